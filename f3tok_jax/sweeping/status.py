# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""How far the runs of a sweep are, from their folders alone: on disks and in buckets."""

from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
import dataclasses
import math
import os
import time
from typing import Any

from etils import epath

from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import history
from f3tok_jax.runs import ledger
from f3tok_jax.runs import results as results_lib
from f3tok_jax.runs import saved_states
from f3tok_jax.sweeping import job
from f3tok_jax.sweeping import plan

WAITING = "waiting"
_ETA = "time/eta_seconds"
_NUM_THREADS = 16  # that read folders: those of buckets answer late
_SILENT_SECONDS = 600.0  # of a run elsewhere whose ledger is written every half minute


def read(workdir: str) -> results_lib.Sweep:
    """Reads a sweep's folder.

    Returns:
        Its runs, best first, and behind them those without a reading, in the plan's order.

    Raises:
        ValueError: where it is no sweep's.
    """
    planned = plan.read(workdir)
    better = min if planned.goal == "minimize" else max

    def row(name: str) -> results_lib.SweptRun:
        folder = os.path.join(workdir, name)
        return _row(folder, planned.runs[name], planned.metric, better)

    with futures.ThreadPoolExecutor(_NUM_THREADS) as threads:
        rows = list(threads.map(row, planned.runs))
    sign = 1.0 if better is min else -1.0
    rows.sort(key=lambda row: (row.best is None, sign * (row.best or 0.0)))
    return results_lib.Sweep(
        workdir=workdir,
        recipe=planned.recipe,
        metric=planned.metric,
        goal=planned.goal,
        rows=tuple(rows),
    )


def curves(workdirs: Mapping[str, str], metric: str) -> dict[str, history.Curve]:
    """Name -> one metric of each run that has it, by the runs' folders; NaN where not finite."""
    found = {name: _curves(workdir).get(metric) for name, workdir in workdirs.items()}
    return {name: curve for name, curve in found.items() if curve}


def _curves(workdir: str) -> dict[str, history.Curve]:
    return history.read_curves(epath.Path(workdir) / "metrics.jsonl", [], gaps=True)


def _row(
    workdir: str, changes: Sequence[str], metric: str, better: Callable[..., Any]
) -> results_lib.SweptRun:
    found, num_steps = _curves(workdir), _num_steps(workdir)
    record = _state(workdir, num_steps)
    step = max((int(curve.steps[-1]) for curve in found.values()), default=0)
    row = results_lib.SweptRun(
        name=os.path.basename(workdir),
        changes=tuple(changes),
        state=record.state,
        code=record.code if record.state == job.FAILED else 0,
        words=record.words,
        step=max([step, *saved_states.steps(workdir)]),
        num_steps=num_steps,
        **_spent(workdir),
    )
    if _ETA in found and record.is_running and math.isfinite(found[_ETA].values[-1]):
        row = dataclasses.replace(row, eta_seconds=found[_ETA].values[-1])
    if metric not in found:
        return row
    value, step = found[metric].values[-1], found[metric].steps[-1]
    if not math.isfinite(value):  # What was good before is lost: it is not ranked by that.
        said = f"{metric} is not finite at step {step:.0f}"
        return dataclasses.replace(row, words=record.words or said)
    read = zip(found[metric].values, found[metric].steps)
    best, best_step = better(
        (pair for pair in read if math.isfinite(pair[0])), key=lambda pair: pair[0]
    )
    return dataclasses.replace(row, value=value, best=best, best_step=int(best_step))


def _num_steps(workdir: str) -> int:
    """That a run is to take; 0 where it has not begun."""
    try:
        return config_lib.load(workdir).num_steps if config_lib.exists(workdir) else 0
    except (ValueError, AttributeError):
        return 0


def _state(workdir: str, num_steps: int) -> job.Record:
    """What a run is doing, or what became of it."""
    record = job.read_record(workdir)
    if num_steps and run_folder.done_step(workdir, num_steps) is not None:
        return job.Record(state=job.DONE)
    if job.holder(workdir):
        return job.Record(state=job.RUNNING)
    if record is None or (record.is_running and not num_steps):
        return job.Record(state=job.STOPPED if num_steps else WAITING)
    if record.state in (job.RUNNING, job.DONE) and not record.place:
        # Killed with its driver, which would have said what became of it.
        return job.Record(state=job.STOPPED)
    if record.is_running and _is_silent(workdir):
        return job.Record(state=WAITING)  # for chips, or to be started again
    return record


def _is_silent(workdir: str) -> bool:
    """Whether a run elsewhere has not said for long that it goes on."""
    sessions = ledger.read(workdir).sessions
    return bool(sessions) and sessions[-1].end < time.time() - _SILENT_SECONDS


def _spent(workdir: str) -> dict[str, float | None]:
    """What a run has cost, by its ledger; nothing where it has none."""
    spent = ledger.read(workdir)
    names = ("wall_seconds", "goodput", "chip_hours", "dollars")
    return {name: getattr(spent, name) for name in names} if spent.sessions else {}


def format_table(found: results_lib.Sweep, top: int = 0) -> str:
    """The runs as text, a line each, with a line above and one below.

    Args:
        found: see `read`.
        top: so many of the best; 0 for all.
    """
    rows = found.rows[: top or None]
    width = max(len("run"), *(len(row.name) for row in rows))
    metric = f"{found.metric} ({'lower' if found.goal == 'minimize' else 'higher'} is better)"
    lines = [f"{'run':{width}}  {'state':9}  {'step':>15}  {'ETA':>8}  {'cost':>9}  {metric}"]
    for row in rows:
        state = f"failed {row.code}" if row.state == job.FAILED else row.state
        step = f"{row.step}/{row.num_steps}" if row.num_steps else ""
        value = (
            "" if row.best is None else f"{row.value:.4g}, best {row.best:.4g} at {row.best_step}"
        )
        cells = f"{row.name:{width}}  {state:9}  {step:>15}  {_duration(row.eta_seconds):>8}"
        words = f"  {row.words}" if row.words else ""
        lines.append(f"{cells}  {_cost(row):>9}  {value}{words}".rstrip())
    counts: dict[str, int] = {}
    for row in found.rows:
        counts[row.state] = counts.get(row.state, 0) + 1
    lines.append(f"{len(found.rows)} runs: " + ", ".join(f"{n} {s}" for s, n in counts.items()))
    return "\n".join(lines)


def _duration(seconds: float | None) -> str:
    """Hours and minutes, or minutes and seconds."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"


def _cost(row: results_lib.SweptRun) -> str:
    """Dollars where the price is known, else the hours of a chip."""
    if row.dollars is not None:
        return f"${row.dollars:.2f}"
    return "" if row.chip_hours is None else f"{row.chip_hours:.2f} ch"
