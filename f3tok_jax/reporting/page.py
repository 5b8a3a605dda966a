# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The HTML page about runs: what it says, section by section."""

from collections.abc import Iterable, Mapping, Sequence
import json
from typing import Any

from f3tok_jax.reporting import charts as charts_lib
from f3tok_jax.reporting import generation_tables
from f3tok_jax.reporting import html
from f3tok_jax.reporting import probe_tables
from f3tok_jax.reporting import sounds
from f3tok_jax.reporting import tables as tables_lib
from f3tok_jax.runs import history as run_history
from f3tok_jax.runs import results as results_lib
from f3tok_jax.stages import registry
from f3tok_jax.training import stage as stage_lib


def render(runs: Sequence[run_history.RunHistory], tables: Mapping[str, results_lib.Table]) -> str:
    """Returns the page as HTML.

    Args:
        runs: at least one, with different names.
        tables: name -> accuracies of probes that are in no run's folder.
    """
    colors = {run.name: charts_lib.COLORS[i % len(charts_lib.COLORS)] for i, run in enumerate(runs)}
    sections = [
        ("results", "Results on held-out sound", tables_lib.render(runs, colors)),
        ("probes", "What the features know", probe_tables.render(runs, colors, tables)),
        ("generated", "Sound from text", generation_tables.render(runs)),
        ("listen", "Listen", sounds.render(runs)),
        ("curves", "Training", _curves(runs, colors)),
        ("latents", "Latents", _latents(runs, colors)),
        ("config", "Configuration", _configs(runs)),
        ("words", "What the words mean", _glossary(runs)),
    ]
    sections = [section for section in sections if section[2]]
    words = _words(runs)
    kind = words[0].title if len(words) == 1 else registry.words_of(None).title
    title = f"{kind}: " + ", ".join(run.name for run in runs)
    introduction = "".join(f"<p>{html.text(said.introduction)}</p>" for said in words)
    links = "".join(
        f'<li><a href="#{name}">{html.text(head)}</a></li>' for name, head, _ in sections
    )
    body = "".join(
        f'<section id="{name}"><h2>{html.text(head)}</h2>{content}</section>'
        for name, head, content in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.text(title)}</title><style>{html.STYLE}</style></head><body><main>"
        f"<h1>{html.text(title)}</h1>{introduction}<nav><ul>{links}</ul></nav>"
        f"{_summary(runs, colors)}{body}</main></body></html>\n"
    )


def _words(runs: Sequence[run_history.RunHistory]) -> list[stage_lib.Words]:
    """What there is to say of the stages of the runs, each once, in the registry's order."""
    shown = {run.config.get("stage") for run in runs}
    return [registry.words_of(name) for name in registry.STAGES if name in shown]


def _summary(runs: Sequence[run_history.RunHistory], colors: Mapping[str, str]) -> str:
    """One line per run: what it is, and how far it went."""
    rows = []
    for run in runs:
        if not (run.config or run.curves or run.results):
            continue
        flat = run_history.flatten(run.config)
        step = max((curve.steps[-1] for curve in run.curves.values()), default=0)
        speed = run.curves.get("time/audio_seconds_per_second")
        seconds = run.curves.get("time/seconds")
        rows.append(
            [
                f"{html.key(colors[run.name], run.name)}",
                html.text(", ".join(flat[key] for key in ("stage", "preset") if key in flat)),
                f"{flat['model.sample_rate']:,} Hz" if "model.sample_rate" in flat else "",
                f"{step:,.0f} of {flat.get('num_steps', step):,}"
                + ("" if run.is_done else " (not finished)"),
                f"{sum(_restarted(seconds)) / 60:.1f} min" if seconds else "",
                f"{sorted(speed.values)[len(speed.values) // 2]:.1f}" if speed else "",
            ]
        )
    head = ["run", "stage", "sample rate", "steps", "time", "seconds of sound per second"]
    notes = [
        f'<div class="note">{html.text(run.name)}: {html.text(note)}</div>'
        for run in runs
        for note in (*run.notes, *_unmeasured(run))
    ]
    return html.table(head, rows) + "".join(notes)


def _unmeasured(run: run_history.RunHistory) -> list[str]:
    """Which program would tell more about a run that has curves alone."""
    words = registry.words_of(run.config.get("stage"))
    if (
        not words.program
        or not (run.config or run.curves)
        or run.results
        or run.generations
        or run.tables
    ):
        return []
    return [
        f"No {words.results}: run python -m f3tok_jax.{words.program} with --output inside the "
        "folder."
    ]


def _restarted(seconds: run_history.Curve) -> list[float]:
    """The time of each part of a run: its clock starts anew when it is resumed."""
    parts = [
        value for value, following in zip(seconds.values, seconds.values[1:]) if following < value
    ]
    return [*parts, seconds.values[-1]]


def _curves(runs: Sequence[run_history.RunHistory], colors: Mapping[str, str]) -> str:
    """One chart per quantity: lines for training, dotted lines for held-out sound."""
    words = _words(runs)
    together = {name: said for w in words for name, said in w.together.items()}
    order = {name: i for i, name in enumerate(name for w in words for name in w.curves)}
    quantities: dict[str, list[tuple[str, str]]] = {}
    for run in runs:
        for name in run.curves:
            part, _, quantity = name.partition("/")
            if part not in ("train", "eval"):
                quantity = name
            if _family(quantity) in together:
                quantity = _family(quantity)
            quantities.setdefault(quantity, []).append((run.name, name))
    by_name = {run.name: run for run in runs}
    charts = []
    for quantity in sorted(quantities, key=lambda q: (order.get(_family(q), len(order)), "/" in q)):
        series, has_heldout = [], False
        for run_name, name in quantities[quantity]:
            curve, is_heldout = by_name[run_name].curves[name], name.startswith("eval/")
            has_heldout |= is_heldout
            part = f" {name.rsplit('/', 1)[1]}" if quantity in together else ""
            series.append(
                charts_lib.Series(
                    name=f"{run_name}{part}, {'held-out' if is_heldout else 'training'}",
                    x=curve.steps,
                    y=curve.values,
                    color=colors[run_name],
                    marked=is_heldout,
                )
            )
        title = quantity.replace("_", " ").replace("/", ": ")
        notes = [together[quantity]] if quantity in together else []
        notes += ["dots: held-out sound"] if has_heldout else []
        note = f" <small>{'; '.join(notes)}</small>" if notes else ""
        charts.append(
            html.figure(html.text(title) + note, charts_lib.line_chart(series, title=title))
        )
    if not charts:
        return ""
    legend = "<p>" + "".join(html.key(colors[run.name], run.name) for run in runs) + "</p>"
    return f'{legend if len(runs) > 1 else ""}<div class="grid">{"".join(charts)}</div>'


def _family(quantity: str) -> str:
    """What a quantity is a part of: of rq_loss/k1, rq_loss."""
    return quantity.split("/", 1)[0]


def _latents(runs: Sequence[run_history.RunHistory], colors: Mapping[str, str]) -> str:
    """Channel statistics of the latents on held-out sound."""
    rows, charts = [], []
    for run in runs:
        for result in run.results:
            latents, name = result["latents"], tables_lib.result_name(run, result)
            rows.append(
                [
                    html.key(colors[run.name], name),
                    f"{latents['dim']} at {latents['rate']:g} Hz",
                    f"{latents['dim'] * latents['rate']:,.0f}",
                    f"{latents['rms']:.3f}",
                    f"{latents['effective_rank']:.1f}",
                    f"{latents['num_frames']:,}",
                ]
            )
            for key, title in (("channel_mean", "mean"), ("channel_rms", "rms")):
                chart = charts_lib.bar_chart(
                    latents[key],
                    title=f"{title} per channel, {name}",
                    x_title="channel",
                    color=colors[run.name],
                )
                charts.append(
                    html.figure(f"{title} per channel <small>{html.text(name)}</small>", chart)
                )
    if not rows:
        return ""
    head = ["run", "width and rate", "values per second", "rms", "effective rank", "frames"]
    return (
        "<p>The effective rank says how many directions of the latent space carry the sound: the "
        "exponential "
        "of the entropy of its normalised singular values, at most the width.</p>"
        f"{html.table(head, rows)}<details><summary>Mean and rms of every channel</summary><div "
        f'class="grid">'
        f"{''.join(charts)}</div></details>"
    )


def _configs(runs: Sequence[run_history.RunHistory]) -> str:
    """What differs between the runs, then everything, with one column per run."""
    flats = [run_history.flatten(run.config) for run in runs]
    keys = list(dict.fromkeys(key for flat in flats for key in flat))
    if not keys:
        return ""

    def value(flat: Mapping[str, Any], key: str) -> str:
        return html.text(json.dumps(flat[key])) if key in flat else "absent"

    def rows(chosen: Iterable[str]) -> list[list[str]]:
        return [
            [
                f"<code>{html.text(key)}</code>",
                *(f'<td class="text">{value(flat, key)}</td>' for flat in flats),
            ]
            for key in chosen
        ]

    head = ["key", *(html.text(run.name) for run in runs)]
    different = [key for key in keys if len({json.dumps(flat.get(key)) for flat in flats}) > 1]
    parts = []
    if len(runs) > 1:
        parts.append(
            "<h3>What differs</h3>"
            + (
                html.table(head, rows(different))
                if different
                else "<p>Nothing: the configurations are equal.</p>"
            )
        )
    return (
        "".join(parts)
        + f"<details><summary>Every value</summary>{html.table(head, rows(keys))}</details>"
    )


def _glossary(runs: Sequence[run_history.RunHistory]) -> str:
    """The metrics and the rows of the tables, a sentence each."""
    entries = {}
    for result in (result for run in runs for result in run.results):
        for row in result["rows"]:
            entries.setdefault(row["title"], row["description"])
        for metric in result["metrics"].values():
            entries.setdefault(metric["title"], metric["explanation"])
    drawn = {_family(name.split("/", 1)[-1]) for run in runs for name in run.curves}
    for name, said in (item for words in _words(runs) for item in words.curves.items()):
        if said and name in drawn:
            entries[name.replace("_", " ")] = said
    terms = "".join(
        f"<dt>{html.text(title)}</dt><dd>{html.text(said)}</dd>" for title, said in entries.items()
    )
    return f"<dl>{terms}</dl>" if terms else ""
