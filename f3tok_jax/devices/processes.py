# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""How a process finds the others of its run."""

import os
import pathlib

import jax

from f3tok_jax.devices import rendezvous


def initialize_distributed(
    *,
    mode: str,
    coordinator: str,
    num_processes: int,
    process_id: int,
    heartbeat_seconds: int,
    start_seconds: int,
) -> None:
    """Connects this process to the others of its run, where there are others.

    Args:
        mode: "auto": where a coordinator is given or this machine has TPU chips; "on"; "off".
        coordinator: host:port of process 0; "" asks the cluster, as on a TPU slice.
        num_processes: of the run, with `coordinator`; 0 for not given.
        process_id: of this process from 0, with `coordinator`; -1 for not given.
        heartbeat_seconds: silence of a process after which all others abort (exit 134).
        start_seconds: in which all processes must have arrived.

    Raises:
        ValueError: where only some of the three are given, or processes count differently.
        rendezvous.Absent: where processes have not arrived in time; known with `coordinator` alone.
    """
    given = [bool(coordinator), num_processes > 0, process_id >= 0]
    if any(given) and not all(given):
        raise ValueError(
            f"--coordinator, --num_processes and --process_id go together, got {coordinator!r}, "
            f"{num_processes} and {process_id}; give all three, or none on a TPU slice"
        )
    if mode == "off":
        return
    # The processes of a run reach each other directly, never through an http_proxy of the machine:
    # gRPC would ask it for them, and abort. Empty means none, for gRPC alone.
    if os.environ.keys() & {"http_proxy", "https_proxy"}:
        os.environ.setdefault("grpc_proxy", "")
    limits = dict(heartbeat_timeout_seconds=heartbeat_seconds, initialization_timeout=start_seconds)
    if coordinator:
        rendezvous.meet(
            coordinator, num_processes=num_processes, process_id=process_id, seconds=start_seconds
        )
        jax.distributed.initialize(coordinator, num_processes, process_id, **limits)
    elif mode == "on" or _has_tpu_chips():
        jax.distributed.initialize(**limits)


def _has_tpu_chips() -> bool:
    """Returns whether this machine has TPU chips, without starting a backend."""
    platforms = (jax.config.jax_platforms or "tpu").split(",")
    devices = pathlib.Path("/dev")
    chips = [*devices.glob("accel[0-9]*"), *(devices / "vfio").glob("[0-9]*")]
    return "tpu" in platforms and bool(chips)
