# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The one training loop, of any stage: steps, and what happens between them."""

from collections.abc import Callable, Mapping
import dataclasses
import enum
from typing import Any

import jax
import ml_collections

from data_pipelines import command
from data_pipelines.reading import coverage
from f3tok_jax.devices import multihost
from f3tok_jax.devices import preemption as preemption_lib
from f3tok_jax.devices import sharding
from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import metric_writer
from f3tok_jax.runs import saved_states
from f3tok_jax.training import health as health_lib
from f3tok_jax.training import profiler as profiler_lib
from f3tok_jax.training import programs as programs_lib
from f3tok_jax.training import progress as progress_lib
from f3tok_jax.training import stage as stage_lib
from f3tok_jax.training import tally as tally_lib
from f3tok_jax.training import timekeeper as timekeeper_lib


class Outcome(enum.Enum):
    """Why a loop ended."""

    DONE = "all steps are taken, and DONE is written"
    NONFINITE = "more steps than config.loop.max_nonfinite were not finite"
    PREEMPTED = "told to leave, and saved"


@dataclasses.dataclass(kw_only=True)
class Run:
    """What the loop works with, open and compiled.

    Attributes:
        config: of the run.
        workdir: run folder.
        train_data: batches to train on.
        heldout_data: batches to evaluate on, or None.
        programs: of the stage that is trained; "train_step" is compiled.
        checkpointer: of `workdir`.
        writer: of metrics and sounds.
        progress: for log lines.
        preemption: whether the run must leave.
        clock: told at each turn what time goes to.
        profiler: traces the steps that the user has named.
        tally: what the run has met since it began, and owes.
        health: which spikes and collapses its metrics show.
        say: where messages to the user go.
        logged: the step of the last log line.
    """

    config: ml_collections.ConfigDict
    workdir: str
    train_data: stage_lib.Data
    heldout_data: stage_lib.Data | None
    programs: programs_lib.CompiledStage
    checkpointer: checkpoint.Checkpointer
    writer: metric_writer.MetricWriter
    progress: progress_lib.Progress
    preemption: preemption_lib.Preemption
    clock: timekeeper_lib.Timekeeper
    profiler: profiler_lib.Profiler
    tally: tally_lib.Tally
    health: health_lib.Health
    say: Callable[[str], None]
    logged: int = 0


def take_steps(this: Run, state: Any, step: int) -> Outcome:
    """Takes the steps. Step n is dispatched before the metrics of step n-1 are read.

    The order of what happens after a dispatch is fixed: read, poll the save in progress, then
    evaluate, write sounds and save, so that a checkpoint carries the evaluation of its own weights.

    Args:
        this: run, inside sharding.use(this.programs.mesh).
        state: after `step` steps; donated.
        step: that many are taken.

    Returns:
        Why it ended; the checkpointer is closed.

    Raises:
        checkpoint.CheckpointError: where a checkpoint cannot be written, or the last is not finite.
    """
    config, clock = this.config, this.clock
    clock.reached(step)
    this.preemption.begin()
    if this.tally.owed and _make_up(this, state, step):
        return _leave(this, step)
    batches = this.train_data.iterate(step)
    this.logged, unread = step, None
    while step < config.num_steps:
        clock.enter("data")
        _, local_batch = next(batches)
        clock.enter("step")
        batch = sharding.host_to_global(local_batch, this.programs.mesh)
        # Nothing else may travel by accident.
        with jax.transfer_guard("disallow"), this.profiler.step(step + 1):
            state, metrics = this.programs.train_step(state, this.programs.frozen, batch)
            step += 1
            if unread is not None:
                _read(this, *unread)
        unread = (step, metrics)
        this.checkpointer.poll()
        if this.tally.nonfinite > config.loop.max_nonfinite:
            return _stop_nonfinite(this, step)
        at_end, leaving = step == config.num_steps, this.preemption.reached()
        if at_end or leaving or _is_due(config, step):
            # Read first: the wait for the step itself is training time.
            _read(this, *unread, log=at_end or leaving)
            unread = None
            leaving = _pause(this, state, step, at_end=at_end, leaving=leaving)
            if leaving and (not at_end or this.tally.owed):
                return _leave(this, step)
    return _finish(this, step)


def _is_due(config: ml_collections.ConfigDict, step: int) -> bool:
    """Whether a step is followed by an evaluation, sounds or a save."""
    intervals = (config.loop.eval_every, config.loop.sample_every, config.checkpoint.every_steps)
    return any(step % interval == 0 for interval in intervals)


def _make_up(this: Run, state: Any, step: int) -> bool:
    """Evaluates and writes sounds where the run had to leave before; returns whether it must again.

    So its curves and its best checkpoint are those of a run that never left.
    """
    evaluated, leaving = _measure(this, state, step)
    if evaluated:
        this.writer.settle()
        this.checkpointer.add_metrics(step, evaluated)
    return leaving


def _pause(this: Run, state: Any, step: int, *, at_end: bool, leaving: bool) -> bool:
    """Evaluates, writes sounds and saves, each if it is due; returns whether the run must leave."""
    config, owed, evaluated = this.config, this.tally.owed, None
    if this.heldout_data and (at_end or step % config.loop.eval_every == 0):
        owed.append(tally_lib.EVALUATION)
    makes_sound = this.programs.stage.sample is not None
    if makes_sound and (at_end or step % config.loop.sample_every == 0):
        owed.append(tally_lib.SAMPLES)
    if not leaving:
        evaluated, leaving = _measure(this, state, step)
    if leaving or at_end or step % config.checkpoint.every_steps == 0:
        _save(this, state, step, evaluated, is_last=leaving or at_end)
    return leaving


def _save(
    this: Run, state: Any, step: int, evaluated: dict[str, float] | None, *, is_last: bool
) -> None:
    """Starts to save the state, with its evaluation and all that the run has met."""
    this.clock.enter("checkpoint")
    this.writer.settle()  # No line of these steps is lost once a checkpoint has them.
    rows = multihost.gathered_numbers(this.train_data.replaced_before(step))
    tally = this.tally.with_rows(rows)
    if is_last and tally.replaced.count:
        this.say(f"note: since the first step {tally.replaced}")
    this.checkpointer.save(step, state, evaluated, seen=tally.as_json())
    this.clock.saved(step)


def _measure(this: Run, state: Any, step: int) -> tuple[dict[str, float] | None, bool]:
    """Evaluates and writes sounds, if the run owes it.

    Returns:
        The metrics of an evaluation that came to its end, and whether the run must leave.
    """
    owed, evaluated = this.tally.owed, None
    if tally_lib.EVALUATION in owed:
        this.clock.enter("evaluation")
        evaluated, leaving = _evaluate(this, state, step)
        if leaving:
            return None, True
        owed.remove(tally_lib.EVALUATION)
    if tally_lib.SAMPLES in owed:
        this.clock.enter("samples")
        _write_samples(this, state, step)
        owed.remove(tally_lib.SAMPLES)
    return evaluated, False


def _read(this: Run, step: int, metrics: stage_lib.Metrics, *, log: bool = False) -> None:
    """Fetches the metrics of one step, counts it if it was skipped, and logs at intervals."""
    fetched = jax.device_get(metrics)
    this.clock.reached(step)
    this.profiler.finished(step)
    is_finite = not fetched["train/nonfinite"][0]
    this.progress.add(fetched, is_finite=is_finite)
    if is_finite:
        _look(this, step, progress_lib.ratios(fetched))
    else:
        this.tally.nonfinite += 1
        this.say(
            f"step {step} was not finite and is skipped ({this.tally.nonfinite} so far); its "
            "examples are in logs/nonfinite.jsonl"
        )
        _write_examples(this, "nonfinite.jsonl", step)
    if log or step % this.config.loop.log_every == 0:
        values = this.progress.values(step)
        # Of this process since it started, and of all of them before.
        replaced = this.tally.replaced.count + this.train_data.replaced_before(step)[0]
        values["data/replaced"] = float(replaced)
        # Of this process' rows: all processes draw of the same records.
        shares = coverage.shares(this.train_data.covered(this.logged, step))
        values |= {f"data/{name}": share for name, share in shares.items()}
        this.logged = step
        this.writer.write(step, values)
        this.say(this.progress.line(step, values))


def _look(this: Run, step: int, values: Mapping[str, float]) -> None:
    """Says what is wrong with a step, and writes which examples a spike had heard."""
    found = this.health.look(step, values)
    for sentence in found.sentences:
        this.say(f"warning: {sentence}")
    if found.spikes:
        spikes = {name: spike._asdict() for name, spike in found.spikes.items()}
        _write_examples(this, "spikes.jsonl", step, spikes=spikes)


def _write_examples(this: Run, log: str, step: int, **more: Any) -> None:
    """Writes which examples a step had heard, to look at them."""
    entry = {"step": step, **more, "examples": this.train_data.example_keys(step - 1)}
    this.writer.log(log, entry)


def _evaluate(this: Run, state: Any, step: int) -> tuple[dict[str, float] | None, bool]:
    """Returns the metrics of held-out batches, or None, and whether the run must leave instead."""
    averages, programs = progress_lib.Averages(), this.programs
    data, batch_size = this.heldout_data, this.config.data.batch_size
    # No more batches than there are examples: the pipeline would begin again.
    for index in range(min(this.config.loop.eval_batches, -(-data.num_records // batch_size))):
        batch = sharding.host_to_global(data.local_batch(index), this.programs.mesh)
        # Read one by one: on CPU, independent collectives in flight can deadlock.
        averages.add(jax.device_get(programs.eval_step(state, programs.frozen, batch)))
        this.clock.enter("evaluation")
        if this.preemption.reached():
            return None, True
    values = averages.ratios()
    this.writer.write(step, values)
    heldout = {f"held-out/{name}": value for name, value in values.items()}
    this.say(this.progress.line(step, heldout))
    return values, False


def _write_samples(this: Run, state: Any, step: int) -> None:
    """Writes a few sounds of the first held-out (or training) batch and their reconstructions."""
    data = this.heldout_data or this.train_data
    batch = sharding.host_to_global(data.local_batch(0), this.programs.mesh)
    sounds = jax.device_get(this.programs.sample(state, this.programs.frozen, batch))
    lengths = sounds.pop("mask").sum(axis=1)
    rate = this.programs.stage.sample_rate
    this.writer.write_sounds(step, sounds, sample_rate=rate, lengths=lengths)
    this.writer.flush()


def _stop_nonfinite(this: Run, step: int) -> Outcome:
    this.checkpointer.close()
    this.say(
        f"stopping at step {step}: {this.tally.nonfinite} steps were not finite, more than "
        f"config.loop.max_nonfinite={this.config.loop.max_nonfinite}; lower the learning rate, "
        "or look at the examples in logs/nonfinite.jsonl"
    )
    return Outcome.NONFINITE


def _leave(this: Run, step: int) -> Outcome:
    this.checkpointer.close()
    is_saved = saved_states.latest_step(this.workdir) == step
    saved = f"saved step {step}" if is_saved else f"step {step} could not be saved"
    this.say(f"told to leave: {saved}; run the same command again to resume")
    return Outcome.PREEMPTED


def _finish(this: Run, step: int) -> Outcome:
    """Waits for the last save and writes DONE."""
    this.clock.enter("checkpoint")
    this.checkpointer.close()
    if saved_states.latest_step(this.workdir) != step:
        raise checkpoint.CheckpointError(
            f"the last step {step} is not in {this.workdir}/checkpoints: its weights "
            "are not finite, or the folder was moved meanwhile; what is there is good"
        )
    try:
        run_folder.mark_done(this.workdir, step, this.checkpointer.may_write)
    except OSError as error:
        raise checkpoint.CheckpointError(
            f"all {step} steps are taken and saved, but {command.explain(error)}: mend that, and "
            "run the same command again"
        ) from error
    this.say(f"done: {step} steps, checkpoints in {this.workdir}/checkpoints")
    return Outcome.DONE
