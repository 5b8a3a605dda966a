# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""How a process finds the others of its run, since when it runs, and on how many chips."""

from collections.abc import Iterable, Mapping
import os
import pathlib
import time
from typing import Any

import jax

from f3tok_jax.devices import cluster
from f3tok_jax.devices import rendezvous
from f3tok_jax.devices import slices

_JAX_SECONDS = 300  # at least, for what JAX does once all are there
_IMPORTED = time.monotonic()


def age() -> float:
    """Seconds since this process began, or was imported where that is not told.

    By clocks that nobody sets: that of a new machine may be set by hours while it starts.
    """
    try:
        fields = pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        began = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # seconds since the machine did
        return time.clock_gettime(time.CLOCK_BOOTTIME) - began
    except (OSError, ValueError, IndexError, AttributeError):  # no Linux
        return time.monotonic() - _IMPORTED


def num_chips(devices: Iterable[Any]) -> int:
    """How many chips devices are of: some generations of TPUs have two devices per chip."""
    places = {
        (getattr(one, "slice_index", 0), *getattr(one, "coords", (one.id,))) for one in devices
    }
    return len(places)


def find_seat(
    *, mode: str, coordinator: str, num_processes: int, process_id: int
) -> cluster.Seat | None:
    """The seat of this process among the others of its run; None where it is alone.

    Args:
        mode: "auto": where a coordinator is given or this machine has TPU chips; "on"; "off".
        coordinator: host:port of process 0; "" asks the cluster, as on a TPU slice.
        num_processes: of the run; 0 for not given. Without `coordinator`, what the cluster must say.
        process_id: of this process from 0, with `coordinator`; -1 for not given.

    Raises:
        ValueError: where what is given is not whole, or other than what the cluster says.
    """
    given = [bool(coordinator), process_id >= 0]
    if any(given) and not (all(given) and num_processes > process_id):
        raise ValueError(
            f"--coordinator, --num_processes and --process_id go together, got {coordinator!r}, "
            f"{num_processes} and {process_id}; give all three, or none on a TPU slice"
        )
    if coordinator and not coordinator.rpartition(":")[2].isdecimal():
        raise ValueError(f"--coordinator must be host:port of process 0, got {coordinator!r}")
    if mode == "off":
        return None
    if coordinator:
        return cluster.Seat(coordinator, num_processes, process_id)
    has_chips = has_tpu_chips()
    seat = cluster.find(has_tpu_chips=has_chips) if mode == "on" or has_chips else None
    if mode == "on" and seat is None:
        return cluster.Seat(num_processes=num_processes)  # Of a cluster that JAX may know.
    found = seat.num_processes if seat else 1
    if num_processes not in (0, found):
        raise ValueError(
            f"the run must have --num_processes={num_processes}, got {found} by what this machine "
            "says of its cluster: start the same command on every host of the slices, or mend the "
            "number"
        )
    return seat


def connect(
    seat: cluster.Seat, *, heartbeat_seconds: int, start_seconds: int, facts: Mapping[str, str]
) -> None:
    """Connects this process to the others of its run, once all are there and start alike.

    Args:
        seat: of this process.
        heartbeat_seconds: silence of a process after which all others abort (exit 134).
        start_seconds: in which all processes must have arrived.
        facts: name -> value, which all must have alike.

    Raises:
        ValueError: where processes count differently; agreement.Differing where facts differ.
        rendezvous.Absent: where processes have not arrived in time; where JAX alone can find them,
            it aborts.
    """
    # The processes of a run reach each other directly, never through an http_proxy of the machine:
    # gRPC would ask it for them, and abort. Empty means none, for gRPC alone.
    if os.environ.keys() & {"http_proxy", "https_proxy"}:
        os.environ.setdefault("grpc_proxy", "")
    limit = max(start_seconds, _JAX_SECONDS)
    limits = dict(heartbeat_timeout_seconds=heartbeat_seconds, initialization_timeout=limit)
    if not seat.coordinator:
        jax.distributed.initialize(**limits)
        _check_count(seat.num_processes)
        return
    rendezvous.meet(seat, seconds=start_seconds, facts=facts)
    # What was found is said: JAX would look for it by a way of its own.
    jax.distributed.initialize(seat.coordinator, seat.num_processes, seat.process_id, **limits)


def check_devices(wanted: slices.Slice) -> None:
    """Refuses other devices than those of a slice, or of several: one chip may be missing.

    Raises:
        ValueError: with both numbers.
    """
    found = jax.devices()
    counts = len(found), slices.count(found)
    if found[0].platform != "tpu" or counts != (wanted.num_devices, wanted.num_slices):
        raise ValueError(
            f"--accelerator must be what the run has, {wanted} with {wanted.num_devices} devices, got "
            f"{counts[0]} {found[0].device_kind} devices of {counts[1]} slices: start on every host, "
            "name the slice that is here, or have it repaired"
        )


def _check_count(wanted: int) -> None:
    if wanted not in (0, jax.process_count()):
        raise ValueError(
            f"the run must have --num_processes={wanted}, got {jax.process_count()}: start the same "
            "command on every host, or mend the number"
        )


def has_tpu_chips() -> bool:
    """Returns whether this machine has TPU chips, without starting a backend."""
    platforms = (jax.config.jax_platforms or "tpu").split(",")
    devices = pathlib.Path("/dev")
    chips = [*devices.glob("accel[0-9]*"), *(devices / "vfio").glob("[0-9]*")]
    return "tpu" in platforms and bool(chips)
