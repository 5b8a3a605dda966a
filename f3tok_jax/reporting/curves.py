# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The charts of a report: training, metrics under latent noise, and channels of latents."""

from collections.abc import Mapping, Sequence
import re
from typing import NamedTuple

from f3tok_jax.reporting import charts
from f3tok_jax.reporting import tables
from f3tok_jax.runs import history
from f3tok_jax.runs import results
from f3tok_jax.training import stage as stage_lib

_MAX_CHARTS = 150
# What only grows or shrinks with the steps: the table of runs says what it comes to.
_NOT_DRAWN = {f"time/{name}" for name in ("seconds", "eta_seconds", "chip_hours", "dollars")}
_NOISE = re.compile(r"model(?:_alpha_(\d{1,9}(?:\.\d{1,9})?))?")


class Chart(NamedTuple):
    """A picture with its title, a note on it, and in words what each curve comes to."""

    title: str
    uri: str
    note: str = ""
    said: str = ""


def training(
    runs: Sequence[history.RunHistory], colors: Mapping[str, str], stages: Sequence[stage_lib.Words]
) -> tuple[list[Chart], int]:
    """One chart per quantity, dots for held-out sound; and how many are too many to be drawn."""
    together = {name: said for words in stages for name, said in words.together.items()}
    quantities: dict[str, list[tuple[history.RunHistory, str]]] = {}
    for run in runs:
        for name in (name for name in run.curves if name not in _NOT_DRAWN):
            part, _, quantity = name.partition("/")
            quantity = quantity if part in ("train", "eval") else name
            if family(quantity) in together:
                quantity = family(quantity)
            quantities.setdefault(quantity, []).append((run, name))
    first = dict.fromkeys(name for words in stages for name in words.curves)
    order = {name: i for i, name in enumerate(first)}
    names = sorted(quantities, key=lambda q: (order.get(family(q), len(order)), "/" in q))
    drawn = [
        _quantity(name, quantities[name], colors, together.get(name, ""))
        for name in names[:_MAX_CHARTS]
    ]
    return drawn, len(names) - len(drawn)


def family(quantity: str) -> str:
    """What a quantity is a part of: of rq_loss/k1, rq_loss."""
    return quantity.split("/", 1)[0]


def _quantity(
    quantity: str,
    members: Sequence[tuple[history.RunHistory, str]],
    colors: Mapping[str, str],
    together: str,
) -> Chart:
    """The curves of one quantity; `together` says what a line is where parts share the chart."""
    series = []
    for run, name in members:
        is_heldout = name.startswith("eval/")
        part = f" {name.rsplit('/', 1)[1]}" if together else ""
        series.append(
            charts.Series(
                name=f"{run.name}{part}, {'held-out' if is_heldout else 'training'}",
                x=run.curves[name].steps,
                y=run.curves[name].values,
                color=colors[run.name],
                marked=is_heldout,
            )
        )
    notes = [together] if together else []
    notes += ["dots: held-out data"] if any(one.marked for one in series) else []
    title = quantity.replace("_", " ").replace("/", ": ")
    return Chart(title, charts.line_chart(series), "; ".join(notes), _ends(series))


def under_noise(evaluation: tables.Evaluation) -> list[Chart]:
    """How each metric falls off as noise is added to the latents, one curve per run."""
    drawn = []
    for name, metric in evaluation.metrics.items():
        series = [_under_noise(member, name) for member in evaluation.members]
        series = [one for one in series if len(one.x) > 1]
        if series:
            note = "higher is better" if metric.higher_is_better else "lower is better"
            picture = charts.line_chart(series, x_title="latent noise, alpha")
            drawn.append(Chart(metric.title, picture, note, _ends(series)))
    return drawn


def _under_noise(member: tables.Member, metric: str) -> charts.Series:
    points = []
    for row in member.result.rows:
        score, noise = row.metrics.get(metric), _NOISE.fullmatch(row.name)
        if noise and score and score.mean is not None:
            points.append((float(noise[1] or 0), score.mean))
    x, y = zip(*sorted(points)) if points else ((), ())
    return charts.Series(name=member.name, x=x, y=y, color=member.color, marked=True)


def _ends(series: Sequence[charts.Series]) -> str:
    """What a chart shows, in words."""
    return "; ".join(f"{one.name}: {one.y[0]:.4g} to {one.y[-1]:.4g}" for one in series)


def channels(name: str, color: str, latents: results.LatentStatistics) -> list[Chart]:
    """Mean and rms of every channel of latents, and their spectrum; `name` is the run's."""
    drawn = {
        "mean per channel": (latents.channel_mean, "channel"),
        "rms per channel": (latents.channel_rms, "channel"),
        "spectrum: share of the variance per direction": (latents.spectrum, "direction"),
    }
    return [
        Chart(title, charts.bar_chart(values, x_title=axis, color=color), name)
        for title, (values, axis) in drawn.items()
        if values
    ]
