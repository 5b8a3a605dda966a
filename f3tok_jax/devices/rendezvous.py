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
from f3tok_jax.devices import reception

_CONNECTING = 2.0  # seconds
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
    here = {0: agreement.Start(socket.gethostname(), facts)}
    with (
        _listener(seat.coordinator) as listener,
        contextlib.closing(reception.Reception(listener, seat, clock)) as hall,
    ):
        while not (hall.error or hall.is_complete):
            left = deadline - clock()
            if left <= 0 and not hall.is_full:
                break
            hall.serve(max(left, 0.1))  # Who has arrived in time has its time to answer.
        error = hall.error or _verdict(here | hall.starts, seat, seconds)
        hall.tell(_written(error) + b"\n")
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
            where = host.strip("[]"), int(port)
            with socket.create_connection(where, timeout=_CONNECTING) as peer:
                peer.sendall(f"{line}\n".encode())
                told = json.loads(_last_line(peer, clock))
                if isinstance(told, dict) and told.keys() == {"kind", "text", "table"}:
                    return told
        time.sleep(_AGAIN)
    return None


def _last_line(peer: socket.socket, clock: Callable[[], float]) -> bytes:
    """What process 0 says once it asks no more, for however long that is; "" where it goes silent."""
    # Process 0 must be the first to give up: who leaves it unseen would miss the verdict.
    silence = 3 * reception.SILENCE
    data, until = b"", clock() + silence
    while (left := until - clock()) > 0 and len(data) <= reception.LONGEST:
        peer.settimeout(left)
        more = peer.recv(2**16)
        if not more:
            break
        data += more
        while data.startswith(reception.PING):
            data, until = data.removeprefix(reception.PING), clock() + silence
            peer.sendall(reception.PONG)
        line, end, _ = data.partition(b"\n")
        if end:
            return line
    return b""


def _listener(address: str) -> socket.socket:
    try:
        port = int(address.rpartition(":")[2])
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096
            )
        return socket.create_server(("", port), backlog=4096)
    except OSError as error:
        raise ValueError(
            f"process 0 must be able to listen at the coordinator's address, got {address}: "
            f"{error.strerror}; end what uses it, or give another port by --coordinator or "
            "$JAX_COORDINATOR_PORT"
        ) from error
