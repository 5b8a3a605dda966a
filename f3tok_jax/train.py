# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Trains any stage: the program that opens and compiles a run, and hands it to the loop.

    python -m f3tok_jax.train --config=configs/autoencoder.py:tiny --config.data.train=DIR/train \
        --config.data.heldout=DIR/test --workdir=runs/autoencoder

The same command with the same --workdir resumes. On a TPU slice run it on every worker.

Exit codes:
    0    finished (or finished before: DONE is there)
    1    wrong config, data or work folder; one sentence on stderr says which
    3    more non-finite steps than config.loop.max_nonfinite
    4    a checkpoint could not be written, or none of those there is whole
    42   told to leave (SIGTERM, Ctrl-C, TPU maintenance) and saved: run the same command again
    124  nothing moved for twice config.loop.watchdog_seconds; stacks are on stderr and in logs/
    134  another process of the run died (jax.distributed aborts): run the same command again
    137  killed from outside, often for host memory
"""

from collections.abc import Sequence
import os
import sys

from absl import app
from absl import flags
from absl import logging
import jax

from f3tok_jax.devices import processes
from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import config as config_lib
from f3tok_jax.stages import registry
from f3tok_jax.training import session
from f3tok_jax.training import validation

_CONFIG = flags.DEFINE_string(
    "config", None, "FILE.py or FILE.py:PRESET; change values by --config.KEY=VALUE"
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "run folder, local or a bucket; the same one resumes"
)
_PRINT_CONFIG = flags.DEFINE_bool(
    "print_config", False, "print the config and what follows from it, and end"
)
_CACHE = flags.DEFINE_string(
    "compilation_cache",
    None,
    "folder of compiled programs; default $JAX_COMPILATION_CACHE_DIR, else a folder in "
    "the home; '' for none",
)
_DISTRIBUTED = flags.DEFINE_enum(
    "distributed",
    "auto",
    ("auto", "on", "off"),
    "whether to find the other processes: auto where --coordinator is given or there are TPU chips",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "host:port of process 0; not needed on a TPU slice"
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", 0, "processes of the run, with --coordinator"
)
_PROCESS_ID = flags.DEFINE_integer("process_id", -1, "of this process from 0, with --coordinator")
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_seconds", 100, "silence of a process after which the others abort"
)
_START = flags.DEFINE_integer("start_seconds", 300, "in which all processes must have arrived")


def main(arguments: Sequence[str]) -> int:
    """Runs the program; `arguments` are its name and the --config.KEY=VALUE overrides."""
    logging.set_verbosity(logging.WARNING)  # Orbax tells about every save in 20 lines
    try:
        if not _CONFIG.value:
            raise ValueError(
                "--config must be FILE.py or FILE.py:PRESET, got none; for example "
                "--config=configs/autoencoder.py:tiny"
            )
        config = config_lib.read(_CONFIG.value, arguments[1:])
        stage = registry.of(config.stage)
        validation.validate(config, stage)
        if _PRINT_CONFIG.value:
            print(config_lib.describe(config, stage.derived(config)))
            return session.EXIT_DONE
        if not _WORKDIR.value:
            raise ValueError("--workdir must be a folder for this run, got none")
        processes.initialize_distributed(
            mode=_DISTRIBUTED.value,
            coordinator=_COORDINATOR.value,
            num_processes=_NUM_PROCESSES.value,
            process_id=_PROCESS_ID.value,
            heartbeat_seconds=_HEARTBEAT.value,
            start_seconds=_START.value,
        )
        if jax.process_index() == 0:
            preset = config_lib.read(_CONFIG.value)
            print(config_lib.summary(config, preset, stage.derived(config)), flush=True)
        cache = (
            _CACHE.value
            if _CACHE.value is not None
            else os.environ.get("JAX_COMPILATION_CACHE_DIR")
        )
        processes.use_compilation_cache(cache)
        return session.run(config, _WORKDIR.value, stage=stage)
    except ValueError as error:
        print(f"f3tok_jax.train: {error}", file=sys.stderr, flush=True)
        return session.EXIT_REFUSED
    except checkpoint.CheckpointError as error:
        print(f"f3tok_jax.train: {error}", file=sys.stderr, flush=True)
        return session.EXIT_CHECKPOINT


def parse_flags(arguments: Sequence[str]) -> list[str]:
    """Parses the program's flags; returns its name and the --config.KEY=VALUE overrides."""
    overrides, rest = config_lib.split_arguments(arguments)
    left = flags.FLAGS(rest)
    if len(left) > 1:
        raise app.UsageError(f"arguments without a flag are not known: {left[1:]}")
    return [left[0], *overrides]


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
