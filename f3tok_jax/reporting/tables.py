# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The tables of a report as plain cells: evaluations, generated sound, configurations."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import json
from typing import Any

from f3tok_jax.runs import history
from f3tok_jax.runs import results

_MAX_TEXT = 2000  # characters of a value of a configuration

# Figure of a row of generated sound -> head of its column, and how it is written.
_GENERATED = {
    "classifier_accuracy": ("heard right by the classifier", "{:.1%}"),
    "character_error_rate": ("character error rate, own transcription", "{:.3f}"),
    "never_stopped": ("never stopped", "{:.1%}"),
    "stopped_at_once": ("stopped at once", "{:.1%}"),
    "seconds": ("seconds", "{:.2f}"),
    "duration_error": ("difference in length, seconds", "{:.2f}"),
    "frechet_distance": ("Fréchet distance", "{:.2f}"),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """Text, smaller lines below it, how it is shown, and the colour of its run."""

    text: str
    small: tuple[str, ...] = ()
    kind: str = ""  # best, soft, text or code
    color: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """Columns' heads, and rows of as many cells, whose first is a head."""

    head: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]


@dataclasses.dataclass(frozen=True)
class Member:
    """An evaluation, and how it is told from others beside it."""

    name: str
    color: str
    result: results.Reconstruction


def evaluations(
    runs: Sequence[history.RunHistory], colors: Mapping[str, str]
) -> list[list[Member]]:
    """Evaluations of reconstruction; those on the same sound stand together."""
    groups: dict[tuple, list[Member]] = {}
    for run in runs:
        found = run.of(results.Reconstruction)
        for file, result in found.items():
            name = run.name if len(found) == 1 else f"{run.name} {file}"
            key = (result.shards.fingerprint, result.num_examples)
            groups.setdefault(key, []).append(Member(name, colors[run.name], result))
    return list(groups.values())


def reconstruction(members: Sequence[Member]) -> Table:
    """Every run's model and its noise; references once where they are the same."""
    first = members[0].result
    names = [name for name in first.metrics if name not in first.missing]
    entries, seen = [], []
    for member in members:
        for row in member.result.rows:
            is_model = row.name.startswith("model")
            if not is_model and (row.name, row.metrics) in seen:
                continue
            seen.append((row.name, row.metrics))
            is_named = is_model and len(members) > 1
            title = Cell(row.title, (member.name,), color=member.color)
            entries.append((title if is_named else Cell(row.title), row))
    order = {row.name: index for index, row in enumerate(first.rows)}
    entries.sort(key=lambda entry: order.get(entry[1].name, len(order)))
    columns = [
        _scores(first.metrics[name], name, [row for _, row in entries], first.num_examples)
        for name in names
    ]
    head = [Cell(""), *(_metric_head(first.metrics[name]) for name in names)]
    rows = [[title, *(column[i] for column in columns)] for i, (title, _) in enumerate(entries)]
    return Table(head, rows)


def _metric_head(metric: results.Metric) -> Cell:
    unit = f", {metric.unit}" if metric.unit else ""
    return Cell(metric.title + unit, ("↑ higher" if metric.higher_is_better else "↓ lower",))


def _scores(
    metric: results.Metric, name: str, rows: Sequence[results.ScoredRow], num_examples: int
) -> list[Cell]:
    """A column; the best of the undisturbed rows is marked."""
    clean = [row.metrics.get(name) for row in rows if not is_noisy(row.name)]
    means = [score.mean for score in clean if score and score.mean is not None]
    best = (max if metric.higher_is_better else min)(means, default=None)
    cells = []
    for row in rows:
        score = row.metrics.get(name)
        if score is None or score.mean is None:
            cells.append(Cell("undefined", kind="soft"))
            continue
        error = "" if score.standard_error is None else f"± {score.standard_error:.3f}"
        count = "" if score.count == num_examples else f" ({score.count} ex.)"
        is_best = score.mean == best and not is_noisy(row.name)
        cells.append(Cell(f"{score.mean:.3f}", (error + count,), "best" if is_best else ""))
    return cells


def is_noisy(row: str) -> bool:
    """Whether a row is of disturbed latents."""
    return row.startswith("model_alpha")


def without_value(members: Sequence[Member]) -> list[str]:
    """Why some examples have no value, as lines."""
    lines = []
    for member in members:
        result = member.result
        for row in result.rows:
            for name, score in row.metrics.items():
                title = result.metrics[name].title if name in result.metrics else name
                lines += [
                    f"{member.name}, {row.title}, {title}: {count} of {result.num_examples}: {why}"
                    for why, count in score.undefined.items()
                ]
        lines += [f"{member.name}: {why}" for why in result.unreadable]
    return lines


def latents(members: Sequence[Member]) -> Table:
    """What the latents of evaluations are like."""
    head = ["run", "width and rate", "values per second", "rms", "effective rank", "frames"]
    rows = []
    for member in members:
        found = member.result.latents
        row = [
            f"{found.dim} at {found.rate:g} Hz",
            f"{found.dim * found.rate:,.0f}",
            f"{found.rms:.3f}",
            f"{found.effective_rank:.1f}",
            f"{found.num_frames:,}",
        ]
        rows.append([Cell(member.name, color=member.color), *map(Cell, row)])
    return Table(list(map(Cell, head)), rows)


def generation(result: results.Generation) -> Table:
    """What was measured of generated sound."""
    columns = [
        name for name in _GENERATED if any(getattr(row, name) is not None for row in result.rows)
    ]
    rows = []
    for row in result.rows:
        values = ((getattr(row, name), _GENERATED[name][1]) for name in columns)
        cells = [Cell("" if value is None else form.format(value)) for value, form in values]
        rows.append([Cell(row.title), *cells])
    return Table([Cell(""), *(Cell(_GENERATED[name][0]) for name in columns)], rows)


def transcripts(found: results.Transcripts) -> Table:
    """What was said beside what was heard."""
    rows = [[Cell(one.reference), Cell(one.hypothesis, kind="text")] for one in found.examples]
    return Table([Cell("said"), Cell("heard", kind="text")], rows)


def configurations(
    runs: Sequence[history.RunHistory], *, only_different: bool = False
) -> Table | None:
    """Keys and the value of each run; None where there is nothing to show."""
    keys = list(dict.fromkeys(key for run in runs for key in run.config))
    values = {key: [_shown(run.config, key) for run in runs] for key in keys}
    if only_different:
        values = {key: found for key, found in values.items() if len(set(found)) > 1}
    rows = [
        [Cell(key, kind="code"), *(Cell(value, kind="text") for value in found)]
        for key, found in values.items()
    ]
    head = [Cell("key"), *(Cell(run.name, kind="text") for run in runs)]
    return Table(head, rows) if rows else None


def _shown(config: Mapping[str, Any], key: str) -> str:
    if key not in config:
        return "absent"
    try:
        text = json.dumps(config[key])
    except RecursionError:
        return "nested too deep to be shown"
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"


def summary(runs: Iterable[history.RunHistory], colors: Mapping[str, str]) -> Table:
    """One line per run: what it is, and how far it went."""
    rows = []
    for run in runs:
        if not (run.config or run.curves or run.of(results.Reconstruction)):
            continue
        step = max((curve.steps[-1] for curve in run.curves.values()), default=0)
        num_steps, rate = (run.config.get(key) for key in ("num_steps", "model.sample_rate"))
        num_steps = num_steps if results.is_number(num_steps) else step
        speed = run.curves.get("time/audio_seconds_per_second")
        seconds = run.curves.get("time/seconds")
        row = [
            ", ".join(str(run.config[key]) for key in ("stage", "preset") if key in run.config),
            f"{rate:,} Hz" if results.is_number(rate) else "",
            f"{step:,.0f} of {num_steps:,.0f}" + ("" if run.is_done else " (not finished)"),
            f"{sum(_restarted(seconds)) / 60:.1f} min" if seconds else "",
            f"{sorted(speed.values)[len(speed.values) // 2]:.1f}" if speed else "",
        ]
        rows.append([Cell(run.name, color=colors[run.name]), *map(Cell, row)])
    head = ["run", "stage", "sample rate", "steps", "time", "seconds of sound per second"]
    return Table(list(map(Cell, head)), rows)


def _restarted(seconds: history.Curve) -> list[float]:
    """The time of each part of a run: its clock starts anew when it is resumed."""
    pairs = zip(seconds.values, seconds.values[1:])
    return [value for value, following in pairs if following < value] + [seconds.values[-1]]
