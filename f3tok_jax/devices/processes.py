# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a program does before it computes: find its processes, keep compiled programs, open data."""

from collections.abc import Callable
import os
import pathlib

from etils import epath
import jax


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
        ValueError: where only some of the three are given.
    """
    given = [bool(coordinator), num_processes > 0, process_id >= 0]
    if any(given) and not all(given):
        raise ValueError(
            "--coordinator, --num_processes and --process_id go together, got "
            f"{coordinator!r}, {num_processes} and {process_id}; give all three, or none "
            "on a TPU slice"
        )
    if mode == "off":
        return
    limits = dict(heartbeat_timeout_seconds=heartbeat_seconds, initialization_timeout=start_seconds)
    if coordinator:
        jax.distributed.initialize(coordinator, num_processes, process_id, **limits)
    elif mode == "on" or _has_tpu_chips():
        jax.distributed.initialize(**limits)


def _has_tpu_chips() -> bool:
    """Returns whether this machine has TPU chips, without starting a backend."""
    platforms = (jax.config.jax_platforms or "tpu").split(",")
    devices = pathlib.Path("/dev")
    chips = [*devices.glob("accel[0-9]*"), *(devices / "vfio").glob("[0-9]*")]
    return "tpu" in platforms and bool(chips)


def use_compilation_cache(folder: str | None, *, say: Callable[[str], None] = print) -> None:
    """Keeps compiled programs on disk, after writing there once: JAX itself only warns, much later.

    Args:
        folder: local or a bucket; "" for none; None for a folder in the home, if it can be written.
        say: where messages to the user go.

    Raises:
        ValueError: where a folder was asked for and cannot be written.
    """
    if folder == "":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    path = epath.Path(folder or pathlib.Path.home() / ".cache" / "f3tok_jax" / "compilation")
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f"write_test_{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        if folder:
            raise ValueError(
                f"the compilation cache must be a folder that can be written, got {folder}: "
                f"{error}; "
                "give another --compilation_cache or JAX_COMPILATION_CACHE_DIR, or '' for none"
            ) from error
        say(
            f"compiled programs are not kept: {path} cannot be written ({error}); give "
            f"--compilation_cache=DIR"
        )
        jax.config.update("jax_enable_compilation_cache", False)
        return
    jax.config.update("jax_compilation_cache_dir", os.fspath(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
