# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The HTML page about runs: what it says, section by section."""

from collections.abc import Iterable, Mapping, Sequence
import html
import json
from typing import Any

from f3tok_jax import figures
from f3tok_jax import listening
from f3tok_jax import run_history

_STYLE = """
:root { --ink: #1d2430; --soft: #5a6475; --line: #dfe3ea; --panel: #f6f7f9; --good: #00694d; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 24px 80px; }
h1 { font-size: 1.9rem; margin: 16px 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 1.35rem; margin: 56px 0 8px; padding-top: 14px; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 28px 0 6px; }
p { max-width: 46rem; margin: 6px 0 12px; } .soft { color: var(--soft); }
a { color: #0b5a94; } a:focus-visible, summary:focus-visible { outline: 3px solid #56b4e9; }
nav ul { display: flex; flex-wrap: wrap; gap: 4px 20px; list-style: none; padding: 0; margin: 16px 0; }
.scroll { overflow-x: auto; margin: 8px 0 16px; }
table { border-collapse: collapse; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 14px 6px 0; text-align: right; vertical-align: top; }
tbody tr { border-top: 1px solid var(--line); } thead th { vertical-align: bottom; font-weight: 600; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
tbody th { font-weight: 500; } td small, th small { display: block; color: var(--soft); font-weight: 400; }
td.best { color: var(--good); font-weight: 700; }
td.text { overflow-wrap: anywhere; max-width: 26rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 20px 28px; }
figure { margin: 0; } figcaption { font-size: 0.92rem; font-weight: 600; margin-bottom: 2px; }
figcaption small { font-weight: 400; color: var(--soft); }
svg { width: 100%; height: auto; display: block; }
svg .grid { stroke: #e4e7ec; } svg .axis { stroke: #8a93a3; }
svg .tick { font: 11px system-ui, sans-serif; fill: #5a6475; }
svg .end { text-anchor: end; } svg .middle { text-anchor: middle; } svg .curve { stroke-width: 1.7; }
.key { display: inline-block; margin-right: 18px; }
.key i { display: inline-block; width: 16px; height: 4px; border-radius: 2px; margin-right: 7px;
  vertical-align: middle; }
.sounds { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 18px 20px;
  margin: 10px 0 26px; }
.sounds img { width: 100%; height: 120px; display: block; border: 1px solid var(--line); }
.sounds audio { width: 100%; height: 34px; margin-top: 4px; }
.note { background: var(--panel); border-left: 4px solid #e69f00; padding: 8px 14px; margin: 10px 0; }
details { margin: 8px 0; } summary { cursor: pointer; color: #0b5a94; }
dl { display: grid; grid-template-columns: minmax(9rem, max-content) 1fr; gap: 4px 20px; margin: 8px 0; }
dt { font-weight: 600; } dd { margin: 0; max-width: 44rem; }
code { font: 0.9em ui-monospace, monospace; }
@media (prefers-reduced-motion: no-preference) { html { scroll-behavior: smooth; } }
"""

_INTRODUCTION = """
An autoencoder turns sound into a short sequence of latent vectors and back. This page shows how well it
does: first figures on sounds that it was not trained on, then those sounds to listen to, then how training
went. Two references without any training loop stand beside it at the same number of values per second, so
that the figures have a scale."""

# What comes first among the curves; the rest follows in the order of the file.
_FIRST_CURVES = ("mel", "stft", "waveform", "adversarial", "feature_matching", "discriminator")


def render(runs: Sequence[run_history.RunHistory]) -> str:
    """Returns the page as HTML.

    Args:
        runs: at least one, with different names.
    """
    colors = {run.name: figures.COLORS[i % len(figures.COLORS)] for i, run in enumerate(runs)}
    sections = [
        ("results", "Results on held-out sound", _results(runs, colors)),
        ("listen", "Listen", listening.render(runs)),
        ("curves", "Training", _curves(runs, colors)),
        ("latents", "Latents", _latents(runs, colors)),
        ("config", "Configuration", _configs(runs)),
        ("words", "What the words mean", _glossary(runs)),
    ]
    sections = [section for section in sections if section[2]]
    title = "Audio autoencoder: " + ", ".join(run.name for run in runs)
    links = "".join(f'<li><a href="#{name}">{text(head)}</a></li>' for name, head, _ in sections)
    body = "".join(f'<section id="{name}"><h2>{text(head)}</h2>{content}</section>'
                   for name, head, content in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{text(title)}</h1><p>{_INTRODUCTION}</p><nav><ul>{links}</ul></nav>"
        f"{_summary(runs, colors)}{body}</main></body></html>\n")


def text(value: Any) -> str:
    """Escapes a value for HTML."""
    return html.escape(str(value))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of HTML cells; a cell that starts with "<td" brings its own tag, the first is a head."""
    lines = []
    for first, *cells in rows:
        tagged = [cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in cells]
        lines.append(f'<tr><th scope="row">{first}</th>{"".join(tagged)}</tr>')
    heads = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    return (f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>'
            f'<tbody>{"".join(lines)}</tbody></table></div>')


def _summary(runs: Sequence[run_history.RunHistory], colors: Mapping[str, str]) -> str:
    """One line per run: what it is, and how far it went."""
    rows = []
    for run in runs:
        flat = run_history.flatten(run.config)
        step = max((curve.steps[-1] for curve in run.curves.values()), default=0)
        speed = run.curves.get("time/audio_seconds_per_second")
        seconds = run.curves.get("time/seconds")
        rows.append([
            f"{_key(colors[run.name], run.name)}",
            text(flat.get("preset", flat.get("stage", ""))),
            f"{flat['model.sample_rate']:,} Hz" if "model.sample_rate" in flat else "",
            f"{step:,.0f} of {flat.get('num_steps', step):,}" + ("" if run.is_done else " (not finished)"),
            f"{sum(_restarted(seconds)) / 60:.1f} min" if seconds else "",
            f"{sorted(speed.values)[len(speed.values) // 2]:.1f}" if speed else "",
        ])
    head = ["run", "preset", "sample rate", "steps", "time", "seconds of sound per second"]
    notes = [f'<div class="note">{text(run.name)}: {text(note)}</div>' for run in runs for note in run.notes]
    return table(head, rows) + "".join(notes)


def _restarted(seconds: run_history.Curve) -> list[float]:
    """The time of each part of a run: its clock starts anew when it is resumed."""
    parts = [value for value, following in zip(seconds.values, seconds.values[1:]) if following < value]
    return [*parts, seconds.values[-1]]


def _results(runs: Sequence[run_history.RunHistory], colors: Mapping[str, str]) -> str:
    """Per held-out set the table of every run, and the curves over latent noise."""
    groups: dict[tuple, list] = {}
    for run in runs:
        for result in run.results:
            key = (result["shards"]["fingerprint"], result["num_examples"])
            groups.setdefault(key, []).append((run, result))
    parts = []
    for members in groups.values():
        result = members[0][1]
        parts.append(
            f"<h3>{text(result['shards']['path'])}</h3><p>{result['num_examples']} examples, "
            f"{result['seconds']:,.0f} seconds, at {result['shards']['sample_rate']:,} Hz. Each cell is the mean "
            "over examples, with its standard error below. An arrow says which way is better; green marks the "
            "best of the undisturbed rows.</p>")
        names = [name for name in result["metrics"] if name not in result["missing"]]
        head = ["", *(_metric_head(result["metrics"][name]) for name in names)]
        parts.append(table(head, _result_rows(members, names, colors)))
        missing = {name: why for _, one in members for name, why in one["missing"].items()}
        parts += [f'<div class="note">{text(result["metrics"][name]["title"])}: {text(why)}</div>'
                  for name, why in missing.items()]
        parts.append(_undefined(members))
        parts.append(_noise_charts(members, names, colors))
    return "".join(parts)


def _result_rows(members: Sequence[tuple], names: Sequence[str], colors: Mapping[str, str]) -> list[list[str]]:
    """Rows of one table: every run's model and noise, and references once where they are the same."""
    entries, seen = [], set()
    for run, result in members:
        for row in result["rows"]:
            is_model = row["name"].startswith("model")
            numbers = json.dumps(row["metrics"], sort_keys=True)
            if not is_model and numbers in seen:
                continue
            seen.add(numbers)
            title = text(row["title"])
            if len(members) > 1 and is_model:
                title += f"<small>{_key(colors[run.name], _result_name(run, result))}</small>"
            entries.append((title, row, result))
    order = {row["name"]: i for i, row in enumerate(members[0][1]["rows"])}
    entries.sort(key=lambda entry: order.get(entry[1]["name"], len(order)))
    best = {}
    for name in names:
        means = [row["metrics"][name]["mean"] for _, row, _ in entries
                 if not row["name"].startswith("model_alpha") and name in row["metrics"]]
        means = [mean for mean in means if mean is not None]
        if means:
            best[name] = (max if members[0][1]["metrics"][name]["higher_is_better"] else min)(means)
    rows = []
    for title, row, result in entries:
        is_noisy = row["name"].startswith("model_alpha")
        rows.append([title, *(
            _cell(row["metrics"].get(name), result["num_examples"], None if is_noisy else best.get(name))
            for name in names)])
    return rows


def _cell(value: Mapping[str, Any] | None, num_examples: int, best: float | None) -> str:
    if value is None or value["mean"] is None:
        return '<td class="soft">undefined</td>'
    small = "" if value["standard_error"] is None else f"&plusmn; {value['standard_error']:.3f}"
    if value["count"] != num_examples:
        small += f" ({value['count']} ex.)"
    kind = ' class="best"' if value["mean"] == best else ""
    return f"<td{kind}>{value['mean']:.3f}<small>{small}</small></td>"


def _metric_head(metric: Mapping[str, Any]) -> str:
    unit = f", {text(metric['unit'])}" if metric["unit"] else ""
    arrow = "&uarr; higher" if metric["higher_is_better"] else "&darr; lower"
    return f"{text(metric['title'])}{unit}<small>{arrow}</small>"


def _undefined(members: Sequence[tuple]) -> str:
    """Why some examples have no value, folded away."""
    lines = []
    for run, result in members:
        for row in result["rows"]:
            for name, value in row["metrics"].items():
                for reason, count in value["undefined"].items():
                    lines.append(f"<li>{text(_result_name(run, result))}, {text(row['title'])}, "
                                 f"{text(result['metrics'][name]['title'])}: {count} of "
                                 f"{result['num_examples']}: {text(reason)}</li>")
        lines += [f"<li>{text(run.name)}: {text(reason)}</li>" for reason in result["unreadable"]]
    if not lines:
        return ""
    return f"<details><summary>Examples without a value</summary><ul>{''.join(lines)}</ul></details>"


def _noise_charts(members: Sequence[tuple], names: Sequence[str], colors: Mapping[str, str]) -> str:
    """How each metric falls off as noise is added to the latents, one curve per run."""
    charts = []
    for name in names:
        series = []
        for run, result in members:
            points = []
            for row in result["rows"]:
                value = row["metrics"].get(name, {}).get("mean")
                if row["name"].startswith("model") and value is not None:
                    points.append((float(row["name"].removeprefix("model").removeprefix("_alpha_") or 0), value))
            if len(points) > 1:
                x, y = zip(*sorted(points))
                series.append(figures.Series(
                    name=_result_name(run, result), x=x, y=y, color=colors[run.name], marked=True))
        if series:
            metric = members[0][1]["metrics"][name]
            arrow = "higher is better" if metric["higher_is_better"] else "lower is better"
            chart = figures.line_chart(
                series, title=f"{metric['title']} under latent noise", x_title="latent noise, alpha")
            charts.append(_figure(f"{text(metric['title'])} <small>{arrow}</small>", chart))
    if not charts:
        return ""
    return ("<h3>Decoding disturbed latents</h3><p>A generator that predicts latents errs. Here noise of "
            "strength alpha is added to clean latents, whose rms is 1, before decoding: a flat curve forgives."
            f'</p>{_legend(members, colors)}<div class="grid">{"".join(charts)}</div>')


def _curves(runs: Sequence[run_history.RunHistory], colors: Mapping[str, str]) -> str:
    """One chart per quantity: lines for training, dotted lines for held-out sound."""
    quantities: dict[str, list[tuple[str, str]]] = {}
    for run in runs:
        for name in run.curves:
            part, _, quantity = name.partition("/")
            if part not in ("train", "eval"):
                quantity = name
            quantities.setdefault(quantity, []).append((run.name, name))
    by_name = {run.name: run for run in runs}
    order = {name: i for i, name in enumerate(_FIRST_CURVES)}
    charts = []
    for quantity in sorted(quantities, key=lambda q: (order.get(q, len(order)), "/" in q)):
        series, has_heldout = [], False
        for run_name, name in quantities[quantity]:
            curve, is_heldout = by_name[run_name].curves[name], name.startswith("eval/")
            has_heldout |= is_heldout
            series.append(figures.Series(
                name=f"{run_name}, {'held-out' if is_heldout else 'training'}", x=curve.steps, y=curve.values,
                color=colors[run_name], marked=is_heldout))
        title = quantity.replace("_", " ").replace("/", ": ")
        note = " <small>dots: held-out sound</small>" if has_heldout else ""
        charts.append(_figure(text(title) + note, figures.line_chart(series, title=title)))
    if not charts:
        return ""
    legend = "<p>" + "".join(_key(colors[run.name], run.name) for run in runs) + "</p>"
    return f'{legend if len(runs) > 1 else ""}<div class="grid">{"".join(charts)}</div>'


def _latents(runs: Sequence[run_history.RunHistory], colors: Mapping[str, str]) -> str:
    """Channel statistics of the latents on held-out sound."""
    rows, charts = [], []
    for run in runs:
        for result in run.results:
            latents, name = result["latents"], _result_name(run, result)
            rows.append([
                _key(colors[run.name], name), f"{latents['dim']} at {latents['rate']:g} Hz",
                f"{latents['dim'] * latents['rate']:,.0f}", f"{latents['rms']:.3f}",
                f"{latents['effective_rank']:.1f}", f"{latents['num_frames']:,}"])
            for key, title in (("channel_mean", "mean"), ("channel_rms", "rms")):
                chart = figures.bar_chart(
                    latents[key], title=f"{title} per channel, {name}", x_title="channel", color=colors[run.name])
                charts.append(_figure(f"{title} per channel <small>{text(name)}</small>", chart))
    if not rows:
        return ""
    head = ["run", "width and rate", "values per second", "rms", "effective rank", "frames"]
    return ("<p>The effective rank says how many directions of the latent space carry the sound: the exponential "
            "of the entropy of its normalised singular values, at most the width.</p>"
            f'{table(head, rows)}<details><summary>Mean and rms of every channel</summary><div class="grid">'
            f'{"".join(charts)}</div></details>')


def _configs(runs: Sequence[run_history.RunHistory]) -> str:
    """What differs between the runs, then everything, with one column per run."""
    flats = [run_history.flatten(run.config) for run in runs]
    keys = list(dict.fromkeys(key for flat in flats for key in flat))
    if not keys:
        return ""

    def rows(chosen: Iterable[str]) -> list[list[str]]:
        return [[f"<code>{text(key)}</code>", *(
            f'<td class="text">{text(json.dumps(flat[key])) if key in flat else "absent"}</td>' for flat in flats)]
            for key in chosen]

    head = ["key", *(text(run.name) for run in runs)]
    different = [key for key in keys if len({json.dumps(flat.get(key)) for flat in flats}) > 1]
    parts = []
    if len(runs) > 1:
        parts.append("<h3>What differs</h3>" + (
            table(head, rows(different)) if different else "<p>Nothing: the configurations are equal.</p>"))
    return "".join(parts) + f"<details><summary>Every value</summary>{table(head, rows(keys))}</details>"


def _glossary(runs: Sequence[run_history.RunHistory]) -> str:
    """The metrics and the rows of the tables, a sentence each."""
    entries = {}
    for result in (result for run in runs for result in run.results):
        for row in result["rows"]:
            entries.setdefault(row["title"], row["description"])
        for metric in result["metrics"].values():
            entries.setdefault(metric["title"], metric["explanation"])
    terms = "".join(f"<dt>{text(title)}</dt><dd>{text(said)}</dd>" for title, said in entries.items())
    return f"<dl>{terms}</dl>" if terms else ""


def _figure(caption: str, content: str) -> str:
    return f"<figure><figcaption>{caption}</figcaption>{content}</figure>"


def _key(color: str, name: str) -> str:
    return f'<span class="key"><i style="background:{color}"></i>{text(name)}</span>'


def _legend(members: Sequence[tuple], colors: Mapping[str, str]) -> str:
    if len(members) == 1:
        return ""
    return "<p>" + "".join(_key(colors[run.name], _result_name(run, result)) for run, result in members) + "</p>"


def _result_name(run: run_history.RunHistory, result: Mapping[str, Any]) -> str:
    """The run's name, with the file where it has several evaluations."""
    return run.name if len(run.results) == 1 else f"{run.name} {result['file']}"
