# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The page about runs: gathers what its template, page.html.jinja, lays out.

The template escapes whatever it is given; it gets plain values, tables of cells, and data URIs.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import re
from typing import Any

from f3tok_jax.reporting import charts
from f3tok_jax.reporting import probes
from f3tok_jax.reporting import sounds
from f3tok_jax.reporting import tables
from f3tok_jax.runs import history
from f3tok_jax.runs import results
from f3tok_jax.stages import registry
from f3tok_jax.training import stage as stage_lib

_TEMPLATE = "page.html.jinja"
_MAX_CHARTS = 150
_NOISE = re.compile(r"model(?:_alpha_(\d{1,9}(?:\.\d{1,9})?))?")


@dataclasses.dataclass(frozen=True)
class Chart:
    """A picture with its title, a note on it, and in words what each curve comes to."""

    title: str
    uri: str
    note: str = ""
    said: str = ""


def render(
    runs: Sequence[history.RunHistory], named: Mapping[str, results.Probe | results.Ablation]
) -> str:
    """Returns the page as HTML.

    Args:
        runs: at least one, with different names.
        named: name -> probes or an ablation that lie in no run's folder.
    """
    import jinja2  # late, as matplotlib

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("f3tok_jax.reporting", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(_TEMPLATE).render(context(runs, named))
    return page.encode(errors="backslashreplace").decode()  # JSON may hold half a character


def context(
    runs: Sequence[history.RunHistory], named: Mapping[str, results.Probe | results.Ablation]
) -> dict[str, Any]:
    """What the template shows; an empty part has no section."""
    colors = {run.name: charts.COLORS[i % len(charts.COLORS)] for i, run in enumerate(runs)}
    stages = _stages(runs)
    kind = stages[0] if len(stages) == 1 else registry.words_of(None)
    groups = tables.evaluations(runs, colors)
    members = [member for group in groups for member in group]
    curves, num_left_out = _curves(runs, colors, stages)
    return {
        "title": f"{kind.title}: {', '.join(run.name for run in runs)}",
        "introduction": [words.introduction for words in stages],
        "colors": colors,
        "summary": tables.summary(runs, colors),
        "notes": [(run.name, note) for run in runs for note in [*run.notes, *_missing(run)]],
        "evaluations": [_evaluation(group) for group in groups],
        "probes": probes.shown(runs, colors, named),
        "transcripts": [
            (f"{run.name} {file}", found, tables.transcripts(found))
            for run in runs
            for file, found in run.of(results.Transcripts).items()
        ],
        "generations": [
            (run.name, found, tables.generation(found), sounds.generated(run, found))
            for run in runs
            for found in run.of(results.Generation).values()
        ],
        "heldout": sounds.heldout(runs),
        "training": sounds.training(runs),
        "max_seconds": sounds.MAX_SECONDS,
        "max_examples": sounds.MAX_EXAMPLES,
        "curves": curves,
        "num_left_out": num_left_out,
        "latents": tables.latents(members) if members else None,
        "channels": [chart for member in members for chart in _channels(member)],
        "different": tables.configurations(runs, only_different=True),
        "configurations": tables.configurations(runs),
        "words": _glossary(runs, members, stages),
    }


def _stages(runs: Sequence[history.RunHistory]) -> list[stage_lib.Words]:
    """What there is to say of the stages of the runs, each once, in the registry's order."""
    shown = [run.config.get("stage") for run in runs]
    return [registry.words_of(name) for name in registry.STAGES if name in shown]


def _missing(run: history.RunHistory) -> list[str]:
    """Which program would tell more about a run that has curves alone."""
    words = registry.words_of(run.config.get("stage"))
    if run.results or not words.program:
        return []
    return [
        f"No {words.results}: run python -m f3tok_jax.{words.program} with --output inside the "
        "folder."
    ]


def _evaluation(members: Sequence[tables.Member]) -> dict[str, Any]:
    """Evaluations on the same sound: their table, and how each metric falls off under noise."""
    first = members[0].result
    missing = {why: name for member in members for name, why in member.result.missing.items()}
    return {
        "members": members,
        "result": first,
        "table": tables.reconstruction(members),
        "missing": [
            (first.metrics[name].title if name in first.metrics else name, why)
            for why, name in missing.items()
        ],
        "undefined": tables.without_value(members),
        "charts": [
            chart
            for name, metric in first.metrics.items()
            if name not in first.missing and (chart := _under_noise(members, name, metric))
        ],
    }


def _under_noise(
    members: Sequence[tables.Member], name: str, metric: results.Metric
) -> Chart | None:
    """One curve per run: its metric over the noise that was added to its latents."""
    series = []
    for member in members:
        points = []
        for row in member.result.rows:
            score, noise = row.metrics.get(name), _NOISE.fullmatch(row.name)
            if noise and score and score.mean is not None:
                points.append((float(noise[1] or 0), score.mean))
        if len(points) > 1:
            x, y = zip(*sorted(points))
            series.append(
                charts.Series(name=member.name, x=x, y=y, color=member.color, marked=True)
            )
    if not series:
        return None
    note = "higher is better" if metric.higher_is_better else "lower is better"
    picture = charts.line_chart(series, x_title="latent noise, alpha")
    return Chart(metric.title, picture, note, _ends(series))


def _curves(
    runs: Sequence[history.RunHistory],
    colors: Mapping[str, str],
    stages: Sequence[stage_lib.Words],
) -> tuple[list[Chart], int]:
    """One chart per quantity, dots for held-out sound; and how many are too many to be drawn."""
    together = {name: said for words in stages for name, said in words.together.items()}
    quantities: dict[str, list[tuple[history.RunHistory, str]]] = {}
    for run in runs:
        for name in run.curves:
            part, _, quantity = name.partition("/")
            quantity = quantity if part in ("train", "eval") else name
            if _family(quantity) in together:
                quantity = _family(quantity)
            quantities.setdefault(quantity, []).append((run, name))
    first = dict.fromkeys(name for words in stages for name in words.curves)
    order = {name: i for i, name in enumerate(first)}
    names = sorted(quantities, key=lambda q: (order.get(_family(q), len(order)), "/" in q))
    drawn = [
        _curve(name, quantities[name], colors, together.get(name, ""))
        for name in names[:_MAX_CHARTS]
    ]
    return drawn, len(names) - len(drawn)


def _curve(
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
    notes += ["dots: held-out sound"] if any(one.marked for one in series) else []
    title = quantity.replace("_", " ").replace("/", ": ")
    return Chart(title, charts.line_chart(series), "; ".join(notes), _ends(series))


def _ends(series: Sequence[charts.Series]) -> str:
    """What a chart shows, in words."""
    return "; ".join(f"{one.name}: {one.y[0]:.4g} to {one.y[-1]:.4g}" for one in series)


def _family(quantity: str) -> str:
    """What a quantity is a part of: of rq_loss/k1, rq_loss."""
    return quantity.split("/", 1)[0]


def _channels(member: tables.Member) -> list[Chart]:
    """Mean and rms of every channel of the latents."""
    found = member.result.latents
    return [
        Chart(
            f"{title} per channel",
            charts.bar_chart(values, x_title="channel", color=member.color),
            member.name,
        )
        for title, values in (("mean", found.channel_mean), ("rms", found.channel_rms))
        if values
    ]


def _glossary(
    runs: Sequence[history.RunHistory],
    members: Sequence[tables.Member],
    stages: Sequence[stage_lib.Words],
) -> dict[str, str]:
    """The metrics, the rows of the tables, and the curves, a sentence each."""
    entries: dict[str, str] = {}
    for member in members:
        for row in member.result.rows:
            entries.setdefault(row.title, row.description)
        for metric in member.result.metrics.values():
            entries.setdefault(metric.title, metric.explanation)
    drawn = {_family(name.split("/", 1)[-1]) for run in runs for name in run.curves}
    for name, said in (curve for words in stages for curve in words.curves.items()):
        if said and name in drawn:
            entries[name.replace("_", " ")] = said
    return entries
