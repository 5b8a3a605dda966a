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

# What a run of each stage is called, and what its part of the page shows.
_STAGES = {
    "autoencoder": (
        "Audio autoencoder",
        "An autoencoder turns sound into a short sequence of latent vectors and back. This page "
        "shows how well it does: first figures on sounds that it was not trained on, then those "
        "sounds to listen to, then how training went. Two references without any training loop "
        "stand beside it at the same number of values per second, so that the figures have a "
        "scale.",
    ),
    "language_model": (
        "Language model",
        "A language model learns the texts that go with the sounds. Frozen, it then teaches the "
        "representation encoder.",
    ),
    "representation": (
        "Representation encoder",
        "A representation encoder turns the latents of a frozen autoencoder into vectors that say "
        "what is in the sound. It learns by predicting quantized latents some frames ahead "
        "(RQ-MTP), and by making itself understood to a frozen language model that answers "
        "questions on the sound. Probes show what it gains over raw latents.",
    ),
    "generation": (
        "Generator",
        "A generator makes sound from text: the language model reads the text and what has been "
        "made so far, and a flow head turns its state into the next few latents, which the autoencoder "
        "decodes.",
    ),
}

# What comes first among the curves; the rest follows in the order of the file.
_FIRST_CURVES = (
    *("mel", "stft", "waveform", "adversarial", "feature_matching", "discriminator"),
    *("rq_loss", "rq_accuracy", "answer_loss", "answer_accuracy", "code_perplexity"),
    *("flow_loss", "patch_error", "stop_loss", "stop_missed", "stop_early"),
)
_TOGETHER = {"code_perplexity": "a line per codebook"}  # parts of a quantity that share a chart
_CURVE_WORDS = {
    "rq_loss": "Cross entropy, in nats, of the quantized latents k frames ahead.",
    "rq_accuracy": "Share of those that are predicted exactly.",
    "answer_loss": "Cross entropy, in nats per token, of the frozen language model's answers.",
    "answer_accuracy": "Share of the answers' tokens that it finds most likely, given those before.",
    "code_perplexity": "How many codes of a codebook are in use: the exponential of the entropy of "
    "their frequencies.",
    "flow_loss": "Mean square error of the velocity from noise to latents; its parts by the time on "
    "the way, from noise at 0 to sound at 1.",
    "patch_error": "Mean square distance of patches, made after the true ones, from the true ones; "
    "latents have mean square 1.",
    "stop_missed": "Share of ends that the generator would have passed by.",
    "stop_early": "Share of other patches that it would not have made any more.",
}


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
    stages = [name for name in _STAGES if any(run.config.get("stage") == name for run in runs)]
    stages = stages or ["autoencoder"]
    kind = _STAGES[stages[0]][0] if len(stages) == 1 else "Audio tokenizer"
    title = f"{kind}: " + ", ".join(run.name for run in runs)
    introduction = "".join(f"<p>{_STAGES[name][1]}</p>" for name in stages)
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
        for note in run.notes
    ]
    return html.table(head, rows) + "".join(notes)


def _restarted(seconds: run_history.Curve) -> list[float]:
    """The time of each part of a run: its clock starts anew when it is resumed."""
    parts = [
        value for value, following in zip(seconds.values, seconds.values[1:]) if following < value
    ]
    return [*parts, seconds.values[-1]]


def _curves(runs: Sequence[run_history.RunHistory], colors: Mapping[str, str]) -> str:
    """One chart per quantity: lines for training, dotted lines for held-out sound."""
    quantities: dict[str, list[tuple[str, str]]] = {}
    for run in runs:
        for name in run.curves:
            part, _, quantity = name.partition("/")
            if part not in ("train", "eval"):
                quantity = name
            if _family(quantity) in _TOGETHER:
                quantity = _family(quantity)
            quantities.setdefault(quantity, []).append((run.name, name))
    by_name = {run.name: run for run in runs}
    order = {name: i for i, name in enumerate(_FIRST_CURVES)}
    charts = []
    for quantity in sorted(quantities, key=lambda q: (order.get(_family(q), len(order)), "/" in q)):
        series, has_heldout = [], False
        for run_name, name in quantities[quantity]:
            curve, is_heldout = by_name[run_name].curves[name], name.startswith("eval/")
            has_heldout |= is_heldout
            part = f" {name.rsplit('/', 1)[1]}" if quantity in _TOGETHER else ""
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
        notes = [_TOGETHER[quantity]] if quantity in _TOGETHER else []
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
    for name, said in _CURVE_WORDS.items():
        if name in drawn:
            entries[name.replace("_", " ")] = said
    terms = "".join(
        f"<dt>{html.text(title)}</dt><dd>{html.text(said)}</dd>" for title, said in entries.items()
    )
    return f"<dl>{terms}</dl>" if terms else ""
