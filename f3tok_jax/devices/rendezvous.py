# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Who of a run has arrived, and whether they start alike: before JAX uses the coordinator's address.

jax.distributed waits as well, but aborts without a word of who is missing, and compares nothing.
"""

from collections.abc import Callable, Mapping
import contextlib
import json
import socket
import time
from typing import Any

from f3tok_jax.devices import agreement
from f3tok_jax.devices import cluster

_LONGEST = 2**20  # bytes of a line; what is longer is not of a process of this run
_PATIENCE = 2.0  # seconds for a line of somebody who has connected
_AGAIN = 0.2  # seconds until the coordinator is tried again
_MOST_NAMED = 8


class Absent(Exception):
    """Processes that have not arrived in time; the message says which."""


def meet(
    seat: cluster.Seat,
    *,
    seconds: float,
    facts: Mapping[str, str],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Waits until all processes of a run are there; the address is free again afterwards.

    Args:
        seat: of this process.
        seconds: in which all must have arrived.
        facts: name -> value, which all must have alike.
        clock: seconds that never go back.

    Raises:
        Absent: where some have not, in every process that has.
        agreement.Differing: where they have other facts, likewise.
        ValueError: where two have the same number, or count the run's processes differently, or
            process 0 cannot listen at its address.
    """
    deadline = clock() + seconds
    if seat.process_id:
        line = dict(process=seat.process_id, count=seat.num_processes)
        line |= dict(host=socket.gethostname(), facts=dict(facts))
        error = _arrive(seat.coordinator, json.dumps(line), deadline, clock)
        absent = f"process {seat.name(0)} at {seat.coordinator} has not arrived in {seconds:g} s"
        error = Absent(f"{absent} (--start_seconds)") if error is None else _read_error(error)
    else:
        error = _receive(seat, seconds, facts, deadline, clock)
    if error:
        raise error


def _receive(
    seat: cluster.Seat,
    seconds: float,
    facts: Mapping[str, str],
    deadline: float,
    clock: Callable[[], float],
) -> Exception | None:
    """Process 0: hears who arrives and tells all of them the same."""
    starts = {0: agreement.Start(socket.gethostname(), facts)}
    peers: dict[int, socket.socket] = {}
    error = None
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listener(seat.coordinator))
        while not error and len(starts) < seat.num_processes:
            listener.settimeout(max(min(deadline - clock(), 1.0), 0.01))
            try:
                peer = stack.enter_context(listener.accept()[0])
                error = _admit(_read_line(peer), peer, peers, starts, seat)
            except TimeoutError:
                if clock() >= deadline:
                    break
        told = [*peers.values(), *([peer] if error else [])]  # Whoever is wrong hears it as well.
        error = error or _verdict(starts, seat, seconds)
        for peer in dict.fromkeys(told):
            with contextlib.suppress(OSError):
                peer.settimeout(_PATIENCE)
                peer.sendall(_written(error) + b"\n")
    return error


def _verdict(
    starts: Mapping[int, agreement.Start], seat: cluster.Seat, seconds: float
) -> Exception | None:
    """What is wrong with those who have arrived: a restart brings the absent, not the same facts."""
    try:
        agreement.check(starts)
    except agreement.Differing as error:
        return error
    missing = [process for process in range(seat.num_processes) if process not in starts]
    if not missing:
        return None
    names = ", ".join(map(seat.name, missing[:_MOST_NAMED]))
    more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
    return Absent(
        f"processes {names}{more} have not arrived in {seconds:g} s (--start_seconds), "
        f"{len(starts)} of {seat.num_processes} have: start the same command on every host"
    )


def _admit(
    line: str,
    peer: socket.socket,
    peers: dict[int, socket.socket],
    starts: dict[int, agreement.Start],
    seat: cluster.Seat,
) -> ValueError | None:
    """Notes who has arrived; returns what is wrong with it."""
    try:
        told = json.loads(line)
        number, count, host, facts = (told[key] for key in ("process", "count", "host", "facts"))
        if not (type(number) is type(count) is int and type(host) is str and type(facts) is dict):
            return None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None  # Somebody else, who tries ports.
    if count != seat.num_processes or not 0 < number < count:
        return ValueError(
            f"--num_processes must be one everywhere, got {seat.num_processes} in process 0 and "
            f"{count} in process {number} ({host})"
        )
    # Who was restarted arrives again: the one that waits now is answered.
    if number in peers and _is_waiting(peers[number]):
        hosts = f"on {starts[number].host} and {host}"
        return ValueError(f"--process_id must differ, got two processes {number}, {hosts}")
    peers[number], starts[number] = peer, agreement.Start(host, facts)
    return None


def _written(error: Exception | None) -> bytes:
    table = getattr(error, "table", None)
    kind = type(error).__name__ if error else None
    return json.dumps(dict(kind=kind, text=str(error), table=table)).encode()


def _read_error(told: Mapping[str, Any]) -> Exception | None:
    """The error that `_written` wrote."""
    if told["kind"] is None:
        return None
    if told["kind"] == agreement.Differing.__name__:
        return agreement.Differing(told["text"], told["table"])
    return (Absent if told["kind"] == Absent.__name__ else ValueError)(told["text"])


def _arrive(
    address: str, line: str, deadline: float, clock: Callable[[], float]
) -> Mapping[str, Any] | None:
    """Any other process: tries until process 0 listens; what that says, None where it does not."""
    host, _, port = address.rpartition(":")
    while clock() < deadline:
        with contextlib.suppress(OSError, ValueError):
            with socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE) as peer:
                peer.sendall(f"{line}\n".encode())
                # Its verdict comes a moment after its own deadline.
                peer.settimeout(max(deadline - clock(), 0.0) + _PATIENCE)
                told = json.loads(_read_line(peer, wait=None))
                if isinstance(told, dict) and told.keys() == {"kind", "text", "table"}:
                    return told
        time.sleep(_AGAIN)
    return None


def _listener(address: str) -> socket.socket:
    try:
        port = int(address.rpartition(":")[2])
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024
            )
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise ValueError(
            f"process 0 must be able to listen at the coordinator's address, got {address}: "
            f"{error.strerror}; end what uses it, or give another port by --coordinator or "
            "$JAX_COORDINATOR_PORT"
        ) from error


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
