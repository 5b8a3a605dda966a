# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Trains any stage: the program that opens and compiles a run, and hands it to the loop.

    python -m f3tok_jax.train --config=configs/autoencoder.py:tiny --config.data.train=DIR/train \
        --config.data.heldout=DIR/test --workdir=runs/autoencoder

The same command with the same --workdir resumes. On a TPU slice run it on every worker.

Exit codes:
    0    finished (or finished before: DONE is there)
    1    wrong config, data or work folder; one sentence on stderr says which
    3    more non-finite steps than config.loop.max_nonfinite
    4    the disk is full, a checkpoint could not be written, or none of those there is whole
    42   told to leave (SIGTERM, SIGHUP, Ctrl-C, maintenance), and saved if a step was taken: run the
         same command again
    124  nothing moved for twice config.loop.watchdog_seconds (stacks are on stderr and in logs/), or
         not all processes had arrived after --start_seconds: run the same command again
    130  Ctrl-C before there was anything to go on from
    134  another process of the run died (jax.distributed aborts): run the same command again
    137  killed from outside, often for host memory
"""

import argparse
import atexit
from collections.abc import Sequence
import faulthandler
import os
import sys
from typing import Any

from data_pipelines import command
from data_pipelines import leaving
from f3tok_jax.runs import places
from f3tok_jax.training import flags


def main(arguments: Sequence[str] | None = None, **options: Any) -> int:
    """The program; returns its exit code. Options are those of command.run."""
    options |= dict(resumes=True, interrupted=_code_of_ctrl_c)
    return command.run(
        flags.make_parser("python -m f3tok_jax.train", __doc__), _train, arguments, **options
    )


def _code_of_ctrl_c(given: argparse.Namespace) -> int:
    """Of a run that has not begun: whether it has something to go on from. Buckets are not asked."""
    folder = os.path.join(given.workdir or "", "checkpoints")
    steps = os.listdir(folder) if os.path.isdir(folder) else []
    resumes = "://" in folder or any(name.isdecimal() for name in steps)
    return leaving.EXIT_RESUMABLE if resumes else command.EXIT_INTERRUPTED


def _train(given: argparse.Namespace) -> int:
    from absl import logging
    import jax

    from data_pipelines.reading import remote
    from f3tok_jax.devices import compilation
    from f3tok_jax.runs import checkpoint
    from f3tok_jax.runs import config as config_lib
    from f3tok_jax.runs import lineage
    from f3tok_jax.stages import registry
    from f3tok_jax.training import session
    from f3tok_jax.training import validation

    if given.data_cache:
        os.environ[remote.VARIABLE] = given.data_cache  # The workers that read batches inherit it.
    logging.set_verbosity(logging.WARNING)  # Orbax tells about every save in 20 lines
    config = config_lib.read(given.config, given.overrides)
    stage = registry.of(config.stage)
    validation.validate(config, stage)
    found, reports = places.Places(dict(given.moved or ())), _reports(given)
    if given.print_config:
        run = lineage.Lineage.trained_by(config, given.workdir, found)
        print(config_lib.describe(config, stage.derived(config, run)))
        return session.EXIT_DONE
    if not given.workdir:
        raise ValueError("--workdir must be a folder for this run, got none")
    if not given.workdir.isascii() and sys.getfilesystemencoding() != "utf-8":
        raise ValueError(
            f"--workdir must be ASCII in a locale that is not UTF-8, got {given.workdir!r}: set "
            "PYTHONUTF8=1, or name another folder"  # Orbax writes no other names there
        )
    _find_others(given, config)
    if jax.process_index() == 0:
        preset = config_lib.read(given.config)
        run = lineage.Lineage.trained_by(config, given.workdir, found)
        command.say(config_lib.summary(config, preset, stage.derived(config, run)))
    compilation.use_cache(given.compilation_cache)
    try:
        return session.run(
            config,
            given.workdir,
            stage=stage,
            places=found,
            verify_data=given.verify_data,
            reports=reports,
        )
    except checkpoint.CheckpointError as error:
        raise command.Refused(error, session.EXIT_CHECKPOINT) from error


def _reports(given: argparse.Namespace) -> Any:
    """What the flags say about what the run tells; refuses a logger that is not there."""
    from f3tok_jax.devices import processes
    from f3tok_jax.runs import loggers
    from f3tok_jax.training import profiler
    from f3tok_jax.training import reports

    return reports.Reports(
        age=processes.age,
        price=given.price,
        bar=given.bar,
        loggers={name: loggers.find(name) for name in given.logger},
        profile_steps=profiler.parse(given.profile_steps) if given.profile_steps else None,
    )


def _find_others(given: argparse.Namespace, config: Any) -> None:
    """Connects this process to the others of its run, which must start alike."""
    from f3tok_jax.devices import processes
    from f3tok_jax.devices import slices

    wanted = None
    if given.accelerator:
        wanted = slices.parse(given.accelerator, given.num_slices, flag="--accelerator")
    seat = processes.find_seat(
        mode=given.distributed,
        coordinator=given.coordinator,
        num_processes=given.num_processes,
        process_id=given.process_id,
    )
    if seat is not None:
        _meet(seat, given, config)
    if wanted:
        processes.check_devices(wanted)


def _meet(seat: Any, given: argparse.Namespace, config: Any) -> None:
    """Waits for the other processes and compares how they start, then connects to them."""
    from f3tok_jax.devices import processes
    from f3tok_jax.devices import rendezvous
    from f3tok_jax.runs import environment
    from f3tok_jax.training import watchdog

    # The config has the overrides; the others say where a host has what it knows by other names.
    own = ("overrides", "coordinator", "process_id", "moved", "compilation_cache", "data_cache")
    flags = {f"--{name}": str(value) for name, value in vars(given).items() if name not in own}
    limits = dict(heartbeat_seconds=given.heartbeat_seconds, start_seconds=given.start_seconds)
    try:
        processes.connect(seat, facts=flags | environment.facts(config), **limits)
    except rendezvous.Absent as error:
        raise command.Refused(error, watchdog.EXIT_STALLED) from error


if __name__ == "__main__":
    atexit.register(leaving.ignore)  # first registered, last called
    if sys.stderr is not None:  # It may have been closed before Python began.
        faulthandler.enable()  # a crash of a library leaves its stacks
    sys.exit(main(ended=leaving.settle))
