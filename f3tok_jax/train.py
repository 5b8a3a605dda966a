# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Trains any stage: the one loop, and its program.

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

from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
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

from data_pipelines import pipeline as pipeline_lib
from f3tok_jax import autoencoder_stage
from f3tok_jax import checkpoint
from f3tok_jax import checkpoint_meta
from f3tok_jax import compiled
from f3tok_jax import config as config_lib
from f3tok_jax import metric_writer
from f3tok_jax import multihost
from f3tok_jax import preemption as preemption_lib
from f3tok_jax import progress as progress_lib
from f3tok_jax import run_folder
from f3tok_jax import sharding
from f3tok_jax import stage as stage_lib
from f3tok_jax import startup
from f3tok_jax import watchdog as watchdog_lib

EXIT_DONE, EXIT_REFUSED, EXIT_NONFINITE, EXIT_CHECKPOINT = 0, 1, 3, 4
EXIT_PREEMPTED = preemption_lib.EXIT_PREEMPTED

STAGES: Mapping[str, Callable[[ml_collections.ConfigDict], stage_lib.Stage]] = {
    "autoencoder": autoencoder_stage.make_stage
}


@dataclasses.dataclass(kw_only=True)
class _Run:
    """Everything that stays the same from the first step to the last."""

    config: ml_collections.ConfigDict
    workdir: str
    stage: stage_lib.Stage
    mesh: jax.sharding.Mesh
    train_data: pipeline_lib.Pipeline
    heldout_data: pipeline_lib.Pipeline | None
    checkpointer: checkpoint.Checkpointer
    say: Callable[[str], None]
    preemption: preemption_lib.Preemption
    watchdog: watchdog_lib.Watchdog
    # Set by _start.
    programs: compiled.CompiledStage | None = None
    writer: metric_writer.MetricWriter | None = None
    progress: progress_lib.Progress | None = None
    num_nonfinite: int = 0


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
    config_lib.validate(config)
    mesh = sharding.make_mesh(config.mesh, devices)
    sharding.check_batch(
        config.data.batch_size,
        mesh,
        f"config.data.batch_size of configs/{config.stage}.py:{config.preset}",
    )
    if config_lib.exists(workdir):
        config_lib.check_same_run(config, workdir)
        done_step = run_folder.done_step(workdir)
        if done_step is not None and done_step >= config.num_steps:
            say(f"{workdir} is done: it has all {done_step} steps")
            return EXIT_DONE
    stage = (make_stage or _find_stage(config))(config)
    with contextlib.ExitStack() as stack:
        this = _open(config, workdir, stage, mesh, say, stack)
        stack.enter_context(sharding.use(mesh))
        this.programs = compiled.CompiledStage(
            stage, mesh=mesh, seed=config.seed, min_shard_size=config.mesh.min_shard_size
        )
        return _loop(this, *_start(this, stack))


def _open(
    config: ml_collections.ConfigDict,
    workdir: str,
    stage: stage_lib.Stage,
    mesh: jax.sharding.Mesh,
    say: Callable[[str], None],
    stack: contextlib.ExitStack,
) -> _Run:
    """Opens data and folder, once all processes agree on what they are about to do.

    What must be closed at the end of the run goes onto `stack`.
    """
    train_data, heldout_data = startup.open_data(config, stage)
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
    checkpointer = checkpoint.Checkpointer(
        workdir,
        config_json=config_lib.to_json(config),
        data_fingerprint=train_data.fingerprint,
        best_metric=stage.best_metric,
        keep_last=config.checkpoint.keep_last,
        keep_best=config.checkpoint.keep_best,
        say=say,
    )
    preemption = preemption_lib.Preemption()
    stack.callback(preemption.close)
    watchdog = watchdog_lib.Watchdog(
        config.loop.watchdog_seconds, clock=time.monotonic, stacks_path=_stacks_path(workdir)
    )
    stack.callback(watchdog.close)
    return _Run(
        config=config,
        workdir=workdir,
        stage=stage,
        mesh=mesh,
        train_data=train_data,
        heldout_data=heldout_data,
        checkpointer=checkpointer,
        say=say,
        preemption=preemption,
        watchdog=watchdog,
    )


def _find_stage(
    config: ml_collections.ConfigDict,
) -> Callable[[ml_collections.ConfigDict], stage_lib.Stage]:
    if config.stage not in STAGES:
        raise ValueError(f"config.stage must be one of {sorted(STAGES)}, got {config.stage!r}")
    return STAGES[config.stage]


def _stacks_path(workdir: str) -> str | None:
    """Where the watchdog writes; it must not wait for a bucket."""
    if "://" in workdir:
        return None
    return os.path.join(workdir, "logs", f"stacks_{jax.process_index():04d}.txt")


def _start(this: _Run, stack: contextlib.ExitStack) -> tuple[Any, int]:
    """Restores or makes the state, and compiles. Order: this run's checkpoint, else scratch."""
    say, programs = this.say, this.programs
    # Restored first: the fresh state is never in memory beside the restored one.
    state, step = this.checkpointer.restore_latest(programs.abstract_state), 0
    if state is None:
        state = programs.init_state()
        say("starting from scratch: there is no checkpoint in this work folder")
    else:
        step = int(jax.device_get(state.step))
        say(f"resuming this run from its checkpoint of step {step}")
    say(
        f"{programs.num_parameters / 1e6:.2f} M parameters on {this.mesh.size} "
        f"{jax.devices()[0].platform} devices, mesh {sharding.describe(this.mesh)}, "
        f"{jax.process_count()} processes; {this.stage.seconds_per_batch:.1f} s of sound per batch"
    )
    started = time.monotonic()
    programs.compile("train_step")
    say(f"compiled the train step in {time.monotonic() - started:.1f} s")
    this.writer = metric_writer.MetricWriter(
        this.workdir, is_writer=jax.process_index() == 0, resume_step=step, say=say
    )
    stack.callback(this.writer.close)
    this.progress = progress_lib.Progress(
        num_steps=this.config.num_steps,
        seconds_per_batch=this.stage.seconds_per_batch,
        clock=time.monotonic,
    )
    return state, step


def _loop(this: _Run, state: Any, step: int) -> int:
    """Takes the steps. Step n is dispatched before the metrics of step n-1 are read.

    The order of what happens after a dispatch is fixed: read, poll the save in progress, then
    evaluate, listen and save, so that a checkpoint carries the evaluation of its own weights.
    """
    config, watchdog = this.config, this.watchdog
    batches = this.train_data.iterate(step)
    unread = None
    while step < config.num_steps:
        with this.progress.waiting_for_data():
            _, local_batch = next(batches)
        watchdog.beat("step")
        batch = sharding.host_to_global(local_batch, this.mesh)
        with jax.transfer_guard("disallow"):  # nothing else may travel by accident
            state, metrics = this.programs.train_step(state, this.programs.frozen, batch)
            step += 1
            if unread is not None:
                _read(this, *unread)
        unread = (step, metrics)
        this.checkpointer.poll()
        if this.num_nonfinite > config.loop.max_nonfinite:
            return _stop_nonfinite(this, step)
        at_end, leaving = step == config.num_steps, this.preemption.reached()
        if at_end or leaving or _is_due(config, step):
            # Read first: the wait for the step itself is training time.
            _read(this, *unread, log=at_end or leaving)
            unread = None
            with this.progress.aside():
                leaving = _pause(this, state, step, at_end=at_end, leaving=leaving)
            if leaving and not at_end:
                return _leave(this, step)
        watchdog.beat("data")
    return _finish(this, step)


def _is_due(config: ml_collections.ConfigDict, step: int) -> bool:
    """Whether a step is followed by an evaluation, sounds or a save."""
    intervals = (config.loop.eval_every, config.loop.sample_every, config.checkpoint.every_steps)
    return any(step % interval == 0 for interval in intervals)


def _pause(this: _Run, state: Any, step: int, *, at_end: bool, leaving: bool) -> bool:
    """Evaluates, writes sounds and saves, each if it is due; returns whether the run must leave."""
    config, watchdog, evaluated = this.config, this.watchdog, None
    if not leaving and this.heldout_data and (at_end or step % config.loop.eval_every == 0):
        watchdog.disarm()  # the first time compiles, which may take long
        this.programs.compile("eval_step")
        watchdog.beat("evaluation")
        evaluated, leaving = _evaluate(this, state, step)
    if not leaving and (at_end or step % config.loop.sample_every == 0):
        watchdog.disarm()
        this.programs.compile("sample")
        watchdog.beat("samples")
        _write_samples(this, state, step)
    if leaving or at_end or step % config.checkpoint.every_steps == 0:
        watchdog.beat("save")
        this.checkpointer.save(step, state, evaluated)
    return leaving


def _read(this: _Run, step: int, metrics: stage_lib.Metrics, *, log: bool = False) -> None:
    """Fetches the metrics of one step, counts it if it was skipped, and logs at intervals."""
    fetched = jax.device_get(metrics)
    is_finite = not fetched["train/nonfinite"][0]
    this.progress.add(fetched, is_finite=is_finite)
    if not is_finite:
        this.num_nonfinite += 1
        _write_nonfinite(this, step)
    if log or step % this.config.loop.log_every == 0:
        values = this.progress.values()
        values["data/replaced"] = float(this.train_data.replaced)
        this.writer.write(step, values)
        this.say(this.progress.line(step, values))


def _write_nonfinite(this: _Run, step: int) -> None:
    """Writes which examples a skipped step had heard."""
    keys = this.train_data.example_keys(step - 1)
    this.say(
        f"step {step} was not finite and is skipped ({this.num_nonfinite} so far); its examples "
        f"are in "
        "logs/nonfinite.jsonl"
    )
    run_folder.append_log(this.workdir, "nonfinite.jsonl", {"step": step, "examples": keys})


def _evaluate(this: _Run, state: Any, step: int) -> tuple[dict[str, float] | None, bool]:
    """Returns the metrics of held-out batches, or None, and whether the run must leave instead."""
    averages, programs = progress_lib.Averages(), this.programs
    data, batch_size = this.heldout_data, this.config.data.batch_size
    # No more batches than there are examples: the pipeline would begin again.
    for index in range(min(this.config.loop.eval_batches, -(-data.num_records // batch_size))):
        batch = sharding.host_to_global(data.local_batch(index), this.mesh)
        # Read one by one: on CPU, independent collectives in flight can deadlock.
        averages.add(jax.device_get(programs.eval_step(state, programs.frozen, batch)))
        this.watchdog.beat("evaluation")
        if this.preemption.reached():
            return None, True
    values = averages.ratios()
    this.writer.write(step, values)
    this.say(
        this.progress.line(step, {f"held-out/{name}": value for name, value in values.items()})
    )
    return values, False


def _write_samples(this: _Run, state: Any, step: int) -> None:
    """Writes a few sounds of the first held-out (or training) batch and their reconstructions."""
    data = this.heldout_data or this.train_data
    batch = sharding.host_to_global(data.local_batch(0), this.mesh)
    sounds = jax.device_get(this.programs.sample(state, this.programs.frozen, batch))
    lengths = sounds.pop("mask").sum(axis=1)
    this.writer.write_sounds(step, sounds, sample_rate=this.stage.sample_rate, lengths=lengths)
    this.writer.flush()


def _stop_nonfinite(this: _Run, step: int) -> int:
    this.checkpointer.close()
    this.say(
        f"stopping at step {step}: {this.num_nonfinite} steps were not finite, more than "
        f"config.loop.max_nonfinite={this.config.loop.max_nonfinite}; lower the learning rate, "
        f"or look at "
        "the examples in logs/nonfinite.jsonl"
    )
    return EXIT_NONFINITE


def _leave(this: _Run, step: int) -> int:
    this.checkpointer.close()
    this.say(f"told to leave: saved step {step}; run the same command again to resume")
    return EXIT_PREEMPTED


def _finish(this: _Run, step: int) -> int:
    """Waits for the last save and writes DONE."""
    this.watchdog.beat("last save")
    this.checkpointer.close()
    if checkpoint.latest_step(this.workdir) != step:
        raise checkpoint.CheckpointError(
            f"the last step {step} is not in {this.workdir}/checkpoints: its weights "
            "are not finite; the newest checkpoint there is good"
        )
    run_folder.mark_done(this.workdir, step)
    this.say(f"done: {step} steps, checkpoints in {this.workdir}/checkpoints")
    return EXIT_DONE


# The program: flags, environment variables, the processes of a run.

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
        config_lib.validate(config)
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
