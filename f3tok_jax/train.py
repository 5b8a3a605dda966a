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

from collections.abc import Callable, Sequence
import contextlib
import functools
import os
import sys
import time
from typing import Any

from absl import app
from absl import flags
from absl import logging
import jax
import ml_collections

from f3tok_jax import checkpoint
from f3tok_jax import checkpoint_meta
from f3tok_jax import compiled
from f3tok_jax import compiler_options
from f3tok_jax import config as config_lib
from f3tok_jax import initialization
from f3tok_jax import loop
from f3tok_jax import metric_writer
from f3tok_jax import multihost
from f3tok_jax import preemption as preemption_lib
from f3tok_jax import progress as progress_lib
from f3tok_jax import run_folder
from f3tok_jax import sharding
from f3tok_jax import stage as stage_lib
from f3tok_jax import stages
from f3tok_jax import startup
from f3tok_jax import validation
from f3tok_jax import watchdog as watchdog_lib

EXIT_DONE, EXIT_REFUSED, EXIT_NONFINITE, EXIT_CHECKPOINT = 0, 1, 3, 4
EXIT_PREEMPTED = preemption_lib.EXIT_PREEMPTED
_EXIT_CODES = {
    loop.Outcome.DONE: EXIT_DONE,
    loop.Outcome.NONFINITE: EXIT_NONFINITE,
    loop.Outcome.PREEMPTED: EXIT_PREEMPTED,
}


def run(
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    make_stage: Callable[[ml_collections.ConfigDict], stage_lib.Stage] | None = None,
    devices: Sequence[Any] | None = None,
) -> int:
    """Trains to config.num_steps, from the newest checkpoint in `workdir` if there is one.

    Args:
        config: of the run, locked or not.
        workdir: run folder, local or a bucket.
        make_stage: config -> stage; default the stage that config.stage names.
        devices: to train on; default all of them.

    Returns:
        An exit code of this module's docstring.

    Raises:
        ValueError: before anything compiles, for a config, data or folder that does not fit.
        checkpoint.CheckpointError: where a checkpoint cannot be written, or none can be read.
    """
    say = functools.partial(print, flush=True) if jax.process_index() == 0 else lambda message: None
    validation.validate(config)
    mesh = sharding.make_mesh(config.mesh, devices)
    sharding.check_batch(
        config.data.batch_size // (config.packing.examples if "packing" in config else 1),
        mesh,
        f"rows of config.data.batch_size of configs/{config.stage}.py:{config.preset}",
    )
    is_new = not config_lib.exists(workdir)
    if not is_new:
        config_lib.check_same_run(config, workdir)
        done_step = run_folder.done_step(workdir)
        if done_step is not None and done_step >= config.num_steps:
            say(f"{workdir} is done: it has all {done_step} steps")
            return EXIT_DONE
    stage = (make_stage or stages.find(config))(config)
    if is_new and config.init_from.workdir:
        initialization.check(config.init_from, config.stage, stage.frozen_fingerprints, say=say)
    return _EXIT_CODES[_train(config, workdir, stage, mesh, say)]


def _train(
    config: ml_collections.ConfigDict,
    workdir: str,
    stage: stage_lib.Stage,
    mesh: jax.sharding.Mesh,
    say: Callable[[str], None],
) -> loop.Outcome:
    """Opens all that a run needs, compiles, and takes the steps."""
    with contextlib.ExitStack() as stack:
        train_data, heldout_data = startup.open_data(config, stage)
        checkpointer = _open_folder(config, workdir, stage, train_data, say, stack)
        preemption, watchdog = _start_guards(config, workdir, stack)
        stack.enter_context(sharding.use(mesh))
        programs = compiled.CompiledStage(
            stage,
            mesh=mesh,
            seed=config.seed,
            min_shard_size=config.mesh.min_shard_size,
            options=compiler_options.parse(config.compiler, jax.default_backend()),
            measured=run_folder.settle_frozen(workdir, stage.frozen_fingerprints, stage.measure),
        )
        state, step = _first_state(config, programs, checkpointer, say)
        _compile(programs, stage, mesh, say)
        writer = metric_writer.MetricWriter(
            workdir, is_writer=jax.process_index() == 0, resume_step=step, say=say
        )
        stack.callback(writer.close)
        this = loop.Run(
            config=config,
            workdir=workdir,
            stage=stage,
            mesh=mesh,
            train_data=train_data,
            heldout_data=heldout_data,
            programs=programs,
            checkpointer=checkpointer,
            writer=writer,
            progress=progress_lib.Progress(
                num_steps=config.num_steps,
                seconds_per_batch=stage.seconds_per_batch,
                clock=time.monotonic,
            ),
            preemption=preemption,
            watchdog=watchdog,
            say=say,
        )
        return loop.take_steps(this, state, step)


def _open_folder(
    config: ml_collections.ConfigDict,
    workdir: str,
    stage: stage_lib.Stage,
    train_data: stage_lib.Data,
    say: Callable[[str], None],
    stack: contextlib.ExitStack,
) -> checkpoint.Checkpointer:
    """Opens the run folder, once all processes agree on what they are about to do.

    It stays locked until `stack` is closed.
    """
    multihost.check_agreement(
        {
            "config": config_lib.hash_of(config),
            "data": train_data.fingerprint,
            "workdir": workdir,
            "devices": str(jax.device_count()),
            **checkpoint_meta.versions(),
        }
    )
    stack.enter_context(run_folder.locked(workdir))
    run_folder.prepare(config, workdir, startup.environment())
    return checkpoint.Checkpointer(
        workdir,
        config_json=config_lib.to_json(config),
        data_fingerprint=train_data.fingerprint,
        best_metric=stage.best_metric,
        keep_last=config.checkpoint.keep_last,
        keep_best=config.checkpoint.keep_best,
        say=say,
    )


def _start_guards(
    config: ml_collections.ConfigDict, workdir: str, stack: contextlib.ExitStack
) -> tuple[preemption_lib.Preemption, watchdog_lib.Watchdog]:
    """Starts what notices that the run must leave, or that it stands; `stack` ends both."""
    preemption = preemption_lib.Preemption()
    stack.callback(preemption.close)
    # Stacks are written locally or not at all: the watchdog must not wait for a bucket.
    stacks_path = os.path.join(workdir, "logs", f"stacks_{jax.process_index():04d}.txt")
    watchdog = watchdog_lib.Watchdog(
        config.loop.watchdog_seconds,
        clock=time.monotonic,
        stacks_path=None if "://" in workdir else stacks_path,
    )
    stack.callback(watchdog.close)
    return preemption, watchdog


def _first_state(
    config: ml_collections.ConfigDict,
    programs: compiled.CompiledStage,
    checkpointer: checkpoint.Checkpointer,
    say: Callable[[str], None],
) -> tuple[Any, int]:
    """The state: of this run's checkpoint, else with another run's weights, else from scratch."""
    # Restored first: the fresh state is never in memory beside the restored one.
    state = checkpointer.restore_latest(programs.abstract_state)
    if state is None:
        if config.init_from.workdir:
            return initialization.begin(programs.init_state(), config.init_from, say=say), 0
        say("starting from scratch: there is no checkpoint in this work folder")
        return programs.init_state(), 0
    step = int(jax.device_get(state.step))
    say(f"resuming this run from its checkpoint of step {step}")
    return state, step


def _compile(
    programs: compiled.CompiledStage,
    stage: stage_lib.Stage,
    mesh: jax.sharding.Mesh,
    say: Callable[[str], None],
) -> None:
    """Says what is about to be trained, and compiles the train step."""
    say(
        f"{programs.num_parameters / 1e6:.2f} M parameters on {mesh.size} "
        f"{jax.devices()[0].platform} devices, mesh {sharding.describe(mesh)}, "
        f"{jax.process_count()} processes; {stage.seconds_per_batch:.1f} s of sound per batch"
    )
    started = time.monotonic()
    programs.compile("train_step")
    say(f"compiled the train step in {time.monotonic() - started:.1f} s")


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


def main(
    arguments: Sequence[str], *, make_stage: Callable[..., stage_lib.Stage] | None = None
) -> int:
    """Runs the program; `arguments` are its name and the --config.KEY=VALUE overrides."""
    logging.set_verbosity(logging.WARNING)  # Orbax tells about every save in 20 lines
    try:
        if not _CONFIG.value:
            raise ValueError(
                "--config must be FILE.py or FILE.py:PRESET, got none; for example "
                "--config=configs/autoencoder.py:tiny"
            )
        config = config_lib.read(_CONFIG.value, arguments[1:])
        validation.validate(config)
        if _PRINT_CONFIG.value:
            print(config_lib.describe(config))
            return EXIT_DONE
        if not _WORKDIR.value:
            raise ValueError("--workdir must be a folder for this run, got none")
        startup.initialize_distributed(
            mode=_DISTRIBUTED.value,
            coordinator=_COORDINATOR.value,
            num_processes=_NUM_PROCESSES.value,
            process_id=_PROCESS_ID.value,
            heartbeat_seconds=_HEARTBEAT.value,
            start_seconds=_START.value,
        )
        if jax.process_index() == 0:
            print(config_lib.describe(config), flush=True)
        cache = (
            _CACHE.value
            if _CACHE.value is not None
            else os.environ.get("JAX_COMPILATION_CACHE_DIR")
        )
        startup.use_compilation_cache(cache)
        return run(config, _WORKDIR.value, make_stage=make_stage)
    except ValueError as error:
        print(f"f3tok_jax.train: {error}", file=sys.stderr, flush=True)
        return EXIT_REFUSED
    except checkpoint.CheckpointError as error:
        print(f"f3tok_jax.train: {error}", file=sys.stderr, flush=True)
        return EXIT_CHECKPOINT


def parse_flags(arguments: Sequence[str]) -> list[str]:
    """Parses the program's flags; returns its name and the --config.KEY=VALUE overrides."""
    overrides, rest = config_lib.split_arguments(arguments)
    left = flags.FLAGS(rest)
    if len(left) > 1:
        raise app.UsageError(f"arguments without a flag are not known: {left[1:]}")
    return [left[0], *overrides]


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
