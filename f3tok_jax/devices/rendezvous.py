# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Who of a run has arrived: the processes meet at the coordinator's address before JAX uses it.

jax.distributed waits as well, but aborts without a word of who is missing.
"""

from collections.abc import Callable, Sequence
import contextlib
import socket
import time

_LONGEST = 200  # bytes of a line; what is longer is not of a process of this run
_PATIENCE = 2.0  # seconds for a line of somebody who has connected
_AGAIN = 0.2  # seconds until the coordinator is tried again
_GO, _WRONG = "go", "wrong: "
_MOST_NAMED = 8


class Absent(Exception):
    """Processes that have not arrived in time; the message says which."""


def meet(
    address: str,
    *,
    num_processes: int,
    process_id: int,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Waits until all processes of a run are there; the address is free again afterwards.

    Args:
        address: host:port of process 0, where it listens.
        num_processes: of the run.
        process_id: of this process.
        seconds: in which all must have arrived.
        clock: seconds that never go back.

    Raises:
        Absent: where some have not, in every process that has.
        ValueError: where two have the same number, or count the run's processes differently, or
            process 0 cannot listen at its address.
    """
    deadline = clock() + seconds
    if process_id:
        verdict = _arrive(address, f"{process_id} {num_processes}", deadline, clock)
        verdict = verdict or f"process 0 at {address} has not arrived in {seconds:g} s"
    else:
        verdict = _receive(address, num_processes, seconds, deadline, clock)
    if verdict.startswith(_WRONG):
        raise ValueError(verdict.removeprefix(_WRONG))
    if verdict != _GO:
        raise Absent(verdict)


def _receive(address: str, num_processes: int, seconds: float, deadline: float, clock) -> str:
    """Process 0: counts who arrives and tells all of them the same."""
    arrived: dict[int, socket.socket] = {}
    verdict = ""
    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(_listener(int(address.rpartition(":")[2])))
        except OSError as error:
            raise ValueError(
                f"--coordinator must be an address where process 0 can listen, got {address}: "
                f"{error.strerror}; give another port"
            ) from error
        while not verdict and len(arrived) < num_processes - 1:
            listener.settimeout(max(min(deadline - clock(), 1.0), 0.01))
            try:
                peer = stack.enter_context(listener.accept()[0])
                verdict = _admit(_read_line(peer), peer, arrived, num_processes)
            except TimeoutError:
                if clock() >= deadline:
                    verdict = _absent(sorted(set(range(1, num_processes)) - set(arrived)), seconds)
        # Whoever is wrong hears it as well.
        for peer in {*arrived.values(), *([peer] if verdict.startswith(_WRONG) else [])}:
            with contextlib.suppress(OSError):
                peer.sendall(f"{verdict or _GO}\n".encode())
    return verdict or _GO


def _admit(line: str, peer: socket.socket, arrived: dict, num_processes: int) -> str:
    """Notes who has arrived; returns what is wrong with it, "" for nothing."""
    numbers = line.split()
    if len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
        return ""  # Somebody else, who tries ports.
    number, count = map(int, numbers)
    if count != num_processes or not 0 < number < num_processes:
        return (
            f"{_WRONG}--num_processes must be one everywhere, got {num_processes} in process 0 and "
            f"{count} in process {number}"
        )
    # Who was restarted arrives again: the one that waits now is answered.
    if number in arrived and _is_waiting(arrived[number]):
        return f"{_WRONG}--process_id must differ, got two processes {number}"
    arrived[number] = peer
    return ""


def _absent(missing: Sequence[int], seconds: float) -> str:
    names = ", ".join(str(number) for number in missing[:_MOST_NAMED])
    more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
    return f"processes {names}{more} have not arrived in {seconds:g} s (--start_seconds)"


def _arrive(address: str, line: str, deadline: float, clock) -> str:
    """Any other process: tries until process 0 listens, and returns what it says."""
    host, _, port = address.rpartition(":")
    while clock() < deadline:
        with contextlib.suppress(OSError):
            with socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE) as peer:
                peer.sendall(f"{line}\n".encode())
                # Its verdict comes a moment after its own deadline.
                peer.settimeout(max(deadline - clock(), 0.0) + _PATIENCE)
                if verdict := _read_line(peer, wait=None):
                    return verdict
        time.sleep(_AGAIN)
    return ""


def _listener(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024
        )
    return socket.create_server(("", port), backlog=1024)


def _read_line(peer: socket.socket, wait: float | None = _PATIENCE) -> str:
    """A line of at most _LONGEST bytes; "" where none comes. `wait`: seconds, None for its own."""
    if wait is not None:
        peer.settimeout(wait)
    with contextlib.suppress(OSError), peer.makefile("rb") as file:
        return file.readline(_LONGEST).decode(errors="replace").strip()
    return ""


def _is_waiting(peer: socket.socket) -> bool:
    """Whether somebody still waits at the other end."""
    peer.setblocking(False)
    try:
        return peer.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
