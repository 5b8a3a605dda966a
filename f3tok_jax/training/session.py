# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A run from its folder to its end: opens, compiles, and hands it to the loop."""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import functools
import os
import time
from typing import Any, NamedTuple

import jax
import ml_collections

from data_pipelines import command
from f3tok_jax.devices import multihost
from f3tok_jax.devices import preemption as preemption_lib
from f3tok_jax.devices import processes
from f3tok_jax.devices import sharding
from f3tok_jax.devices import slices
from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import checkpoint_meta
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import environment as environment_lib
from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import ledger
from f3tok_jax.runs import lineage
from f3tok_jax.runs import loggers
from f3tok_jax.runs import metric_writer
from f3tok_jax.runs import places as places_lib
from f3tok_jax.training import bar as bar_lib
from f3tok_jax.training import health as health_lib
from f3tok_jax.training import initialization
from f3tok_jax.training import loop
from f3tok_jax.training import profiler as profiler_lib
from f3tok_jax.training import programs as programs_lib
from f3tok_jax.training import progress as progress_lib
from f3tok_jax.training import reports as reports_lib
from f3tok_jax.training import stage as stage_lib
from f3tok_jax.training import statistics as statistics_lib
from f3tok_jax.training import tally as tally_lib
from f3tok_jax.training import timekeeper as timekeeper_lib
from f3tok_jax.training import validation
from f3tok_jax.training import verification
from f3tok_jax.training import watchdog as watchdog_lib

EXIT_DONE, EXIT_REFUSED, EXIT_NONFINITE, EXIT_CHECKPOINT = 0, 1, 3, 4
EXIT_PREEMPTED = preemption_lib.EXIT_PREEMPTED
_EXIT_CODES = {
    loop.Outcome.DONE: EXIT_DONE,
    loop.Outcome.NONFINITE: EXIT_NONFINITE,
    loop.Outcome.PREEMPTED: EXIT_PREEMPTED,
}
_PROGRAMS = {"eval_step": "evaluation", "sample": "samples", "train_step": "the train step"}


def run(
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    stage: stage_lib.Definition,
    devices: Sequence[Any] | None = None,
    places: places_lib.Places | None = None,
    verify_data: bool = False,
    reports: reports_lib.Reports = reports_lib.Reports(),
) -> int:
    """Trains to config.num_steps, from the newest checkpoint in `workdir` if there is one.

    Args:
        config: of the run, locked or not.
        workdir: run folder, local or a bucket.
        stage: of config.stage; stages.registry has them.
        devices: to train on; default all of them.
        places: where what the config names may lie; default the search path alone.
        verify_data: compare every byte of the shards with their checksums first.
        reports: what the run tells beside what its config says.

    Returns:
        EXIT_DONE, EXIT_NONFINITE or EXIT_PREEMPTED.

    Raises:
        ValueError: before anything compiles, for a config, data or folder that does not fit.
        checkpoint.CheckpointError: where a checkpoint cannot be written, or none can be read.
    """
    is_first = jax.process_index() == 0
    bar = bar_lib.Bar(command.say, mode=reports.bar) if is_first else bar_lib.Bar(lambda text: None)
    with contextlib.closing(preemption_lib.Preemption()) as preemption, bar:
        say = bar.say
        validation.validate(config, stage)
        mesh = programs_lib.make_mesh(config, devices)
        is_new = not config_lib.exists(workdir)
        moved = [] if is_new else config_lib.check_same_run(config, workdir)
        run_folder.check_kept(config, workdir)
        done_step = None if is_new else run_folder.done_step(workdir, config.num_steps)
        if done_step is not None and not moved:
            return _say_done(workdir, done_step, say)
        known = lineage.Lineage.trained_by(config, workdir, places)
        made = stage.make(config, known)
        inputs = _open_inputs(known, made, moved, say)
        if done_step is not None:
            run_folder.check_began_with(workdir, inputs.begins_with, moved=moved, say=say)
            return _say_done(workdir, done_step, say)
        if verify_data:
            verification.verify(inputs.data, say=say)
        return _EXIT_CODES[_train(workdir, mesh, inputs, preemption, reports, bar)]


def _say_done(workdir: str, step: int, say: Callable[[str], None]) -> int:
    say(f"{workdir} is done: it has all {step} steps")
    return EXIT_DONE


class _Inputs(NamedTuple):
    """What a run reads, and what it must have begun with, wherever that lies."""

    run: lineage.Lineage  # as its folder tells so far
    stage: stage_lib.Stage
    data: Mapping[str, stage_lib.Data]  # by the key of the config that names it
    begins_with: Mapping[str, str]  # as run_folder.check_began_with takes it
    moved: Sequence[str]  # keys of the config that name other places than before

    @property
    def train(self) -> stage_lib.Data:
        return self.data[run_folder.DATA]

    @property
    def heldout(self) -> stage_lib.Data | None:
        return self.data.get(run_folder.HELDOUT)


def _train(
    workdir: str,
    mesh: jax.sharding.Mesh,
    inputs: _Inputs,
    preemption: preemption_lib.Preemption,
    reports: reports_lib.Reports,
    bar: bar_lib.Bar,
) -> loop.Outcome:
    """Opens all else that a run needs, compiles, and takes the steps."""
    config, stage, say = inputs.run.config, inputs.stage, bar.say
    with contextlib.ExitStack() as stack:
        checkpointer = _open_folder(workdir, inputs, say, stack)
        may_write, is_first = checkpointer.may_write, jax.process_index() == 0
        book = ledger.Book(workdir, is_writer=is_first, may_write=may_write, say=say)
        clock = _start_clock(config, workdir, mesh, reports, book, stack)
        stack.enter_context(sharding.use(mesh))
        programs = programs_lib.CompiledStage(stage, config, mesh)
        heard = statistics_lib.Heard(say=say, enter=clock.enter)
        measure = functools.partial(programs.measure, heard)
        measured = run_folder.settle_frozen(workdir, inputs.begins_with, measure)
        clock.enter("start")
        checkpointer.files = run_folder.digests(workdir)
        if is_first:
            inputs.run.keep_places(workdir)
            inputs.run.pin_ancestors(workdir, say)
        programs.load_frozen(measured)
        clock.enter("restore")
        state, step = _first_state(inputs.run, workdir, programs, checkpointer, say)
        clock.enter("compile")
        _compile(programs, inputs.heldout is not None, say)
        clock.enter("start")
        writer = _open_writer(config, workdir, step, reports, may_write, say)
        stack.callback(writer.close)
        peak_seconds = _peak_seconds(programs)
        profiler = profiler_lib.Profiler(
            reports.profile_steps if is_first else None,
            workdir,
            clock=clock,
            say=say,
        )
        bar.begin(step, config.num_steps)
        this = loop.Run(
            config=config,
            workdir=workdir,
            train_data=inputs.train,
            heldout_data=inputs.heldout,
            programs=programs,
            checkpointer=checkpointer,
            writer=writer,
            progress=progress_lib.Progress(
                clock, bar, stage, num_steps=config.num_steps, peak_seconds=peak_seconds
            ),
            preemption=preemption,
            clock=clock,
            profiler=stack.enter_context(profiler),
            tally=tally_lib.Tally.read(checkpointer.restored, say=say),
            health=health_lib.Health(stage.watched, stage.signs),
            say=say,
        )
        outcome = loop.take_steps(this, state, step)
        clock.ended = outcome.name.lower()
        return outcome


def _open_inputs(
    run: lineage.Lineage,
    stage: stage_lib.Stage,
    moved: Sequence[str],
    say: Callable[[str], None],
) -> _Inputs:
    """Opens training and held-out shards, and compares all with what the stage and the run need."""
    config, data = run.config, {}
    if not config.data.train:
        raise ValueError(
            "config.data.train must name a folder of shards, got ''; build one with "
            "python -m data_pipelines.build_shards, then give --config.data.train=DIR"
        )
    hosts = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    named = {run_folder.DATA: config.data.train, run_folder.HELDOUT: config.data.heldout}
    for key, mixture in named.items():
        if mixture:
            mixture = run.places.mapped_mixture(mixture)
            data[key] = stage.open_data(mixture, train=key == run_folder.DATA, **hosts)
            for line in data[key].sets:
                say(f"{key}: {line}")
    _check_batches(data[run_folder.DATA], stage)
    begins_with = {key: one.fingerprint for key, one in data.items()}
    begins_with |= stage.frozen_fingerprints
    chooses = not run.workdir or any(key.startswith("init_from") for key in moved)
    if config.init_from.workdir and chooses:
        source = initialization.source(run, read_exported=stage.read_exported)
        begins_with[run_folder.WEIGHTS] = initialization.check(
            source, config, stage.frozen_fingerprints, say=say
        )
        begins_with |= initialization.kept_latents(source, config)
    return _Inputs(run, stage, data, begins_with, moved)


def _check_batches(data: stage_lib.Data, stage: stage_lib.Stage) -> None:
    """Refuses batches of other names, shapes or types than those of the stage."""
    needed = {name: (tuple(spec.shape), spec.dtype.name) for name, spec in stage.batch_spec.items()}
    given = data.batch_spec.items()
    published = {name: (tuple(shape), dtype.name) for name, (shape, dtype) in given}
    if needed != published:
        raise ValueError(
            f"the batches of config.data must be what the stage needs, {needed}, got {published}; "
            "config.data and config.model do not go together"
        )


def _open_folder(
    workdir: str,
    inputs: _Inputs,
    say: Callable[[str], None],
    stack: contextlib.ExitStack,
) -> checkpoint.Checkpointer:
    """Opens the run folder, once all processes agree on what they are about to do.

    It stays locked until `stack` is closed.
    """
    config = inputs.run.config
    multihost.check_agreement(
        {
            "config": config_lib.hash_of(config),
            "workdir": workdir,
            "devices": str(jax.device_count()),
            **inputs.begins_with,
            **checkpoint_meta.versions(),
        }
    )
    may_write = stack.enter_context(run_folder.locked(workdir, say))
    run_folder.check_began_with(workdir, inputs.begins_with, moved=inputs.moved, say=say)
    run_folder.prepare(config, workdir, environment_lib.environment(inputs.begins_with))
    return checkpoint.Checkpointer(
        workdir,
        config_json=config_lib.to_json(config),
        data_fingerprint=inputs.train.fingerprint,
        may_write=may_write,
        best_metric=inputs.stage.best_metric,
        best_from=inputs.stage.best_from,
        keep_last=config.checkpoint.keep_last,
        keep_best=config.checkpoint.keep_best,
        say=say,
    )


def _start_clock(
    config: ml_collections.ConfigDict,
    workdir: str,
    mesh: jax.sharding.Mesh,
    reports: reports_lib.Reports,
    book: ledger.Book,
    stack: contextlib.ExitStack,
) -> timekeeper_lib.Timekeeper:
    """Starts what keeps the time and what notices that the run stands; `stack` ends both."""
    # Stacks are written locally or not at all: the watchdog must not wait for a bucket.
    stacks_path = os.path.join(workdir, "logs", f"stacks_{jax.process_index():04d}.txt")
    watchdog = watchdog_lib.Watchdog(
        config.loop.watchdog_seconds,
        clock=time.monotonic,
        stacks_path=None if "://" in workdir else stacks_path,
    )
    stack.callback(watchdog.close)
    clock = timekeeper_lib.Timekeeper(
        book,
        watchdog,
        age=reports.age(),
        chips=processes.num_chips(mesh.devices.flat),
        device=mesh.devices.flat[0].device_kind,
        price=reports.price,
    )
    return stack.enter_context(clock)


def _open_writer(
    config: ml_collections.ConfigDict,
    workdir: str,
    step: int,
    reports: reports_lib.Reports,
    may_write: Callable[[], None],
    say: Callable[[str], None],
) -> metric_writer.MetricWriter:
    """Opens what hears of metrics and sounds; process 0 alone has loggers."""
    is_first, tree = jax.process_index() == 0, config.to_dict()
    outlets = [
        loggers.Outlet(name, make, workdir, tree, say)
        for name, make in reports.loggers.items()
        if is_first
    ]
    return metric_writer.MetricWriter(
        workdir,
        is_writer=is_first,
        resume_step=step,
        loggers=outlets,
        may_write=may_write,
        say=say,
    )


def _peak_seconds(programs: programs_lib.CompiledStage) -> float | None:
    """What a step would take at the peak of its chips; None where that, or its work, is not known."""
    devices, flops = programs.mesh.devices, programs.stage.model_flops
    chip = slices.chip_of(devices.flat[0].device_kind)
    if chip is None or jax.process_index():
        return None
    return flops / (processes.num_chips(devices.flat) * chip.peak_flops) or None


def _first_state(
    run: lineage.Lineage,
    workdir: str,
    programs: programs_lib.CompiledStage,
    checkpointer: checkpoint.Checkpointer,
    say: Callable[[str], None],
) -> tuple[Any, int]:
    """The state: of this run's checkpoint, else with another run's weights, else from scratch."""
    # Restored first: the fresh state is never in memory beside the restored one.
    state = checkpointer.restore_latest(programs.abstract_state)
    if state is None:
        if run.config.init_from.workdir:
            chosen = run_folder.frozen(workdir)["fingerprints"].get(run_folder.WEIGHTS, "")
            read_exported = programs.stage.read_exported
            source = initialization.source(run, chosen, read_exported=read_exported)
            return initialization.begin(programs.init_state(), source, say=say), 0
        say("starting from scratch: there is no checkpoint in this work folder")
        return programs.init_state(), 0
    step = int(jax.device_get(state.step))
    say(f"resuming this run from its checkpoint of step {step}")
    return state, step


def _compile(
    programs: programs_lib.CompiledStage, evaluates: bool, say: Callable[[str], None]
) -> None:
    """Says what is about to be trained, and compiles all that the loop calls.

    None of it is left for later: a main thread that compiles cannot save when it is told to leave.
    """
    stage, mesh = programs.stage, programs.mesh
    say(
        f"{programs.num_parameters / 1e6:.2f} M parameters on {mesh.size} "
        f"{jax.devices()[0].platform} devices, mesh {sharding.describe(mesh)}, "
        f"{jax.process_count()} processes; {stage.per_batch:,.1f} {stage.unit.replace('_', ' ')} "
        "per batch"
    )
    makes_sound = stage.sample is not None
    wanted = {"eval_step": evaluates, "sample": makes_sound, "train_step": True}
    for name in (name for name, is_wanted in wanted.items() if is_wanted):
        started = time.monotonic()
        programs.compile(name)
        say(f"compiled {_PROGRAMS[name]} in {time.monotonic() - started:.1f} s")
