# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The part of a report with the figures of evaluations, runs side by side."""

from collections.abc import Mapping, Sequence
import json
from typing import Any

from f3tok_jax.reporting import charts as charts_lib
from f3tok_jax.reporting import html
from f3tok_jax.runs import history as run_history


def render(runs: Sequence[run_history.RunHistory], colors: Mapping[str, str]) -> str:
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
            f"<h3>{html.text(result['shards']['path'])}</h3><p>{result['num_examples']} "
            f"examples, "
            f"{result['seconds']:,.0f} seconds, at {result['shards']['sample_rate']:,} Hz. Each "
            f"cell is the mean "
            "over examples, with its standard error below. An arrow says which way is better; "
            "green marks the "
            "best of the undisturbed rows.</p>"
        )
        names = [name for name in result["metrics"] if name not in result["missing"]]
        head = ["", *(_metric_head(result["metrics"][name]) for name in names)]
        parts.append(html.table(head, _result_rows(members, names, colors)))
        missing = {name: why for _, one in members for name, why in one["missing"].items()}
        parts += [
            f'<div class="note">{html.text(result["metrics"][name]["title"])}: '
            f"{html.text(why)}</div>"
            for name, why in missing.items()
        ]
        parts.append(_undefined(members))
        parts.append(_noise_charts(members, names, colors))
    return "".join(parts)


def _result_rows(
    members: Sequence[tuple], names: Sequence[str], colors: Mapping[str, str]
) -> list[list[str]]:
    """Rows of one table: every run's model and noise, references once where they are the same."""
    entries, seen = [], set()
    for run, result in members:
        for row in result["rows"]:
            is_model = row["name"].startswith("model")
            numbers = json.dumps(row["metrics"], sort_keys=True)
            if not is_model and numbers in seen:
                continue
            seen.add(numbers)
            title = html.text(row["title"])
            if len(members) > 1 and is_model:
                title += f"<small>{html.key(colors[run.name], result_name(run, result))}</small>"
            entries.append((title, row, result))
    order = {row["name"]: i for i, row in enumerate(members[0][1]["rows"])}
    entries.sort(key=lambda entry: order.get(entry[1]["name"], len(order)))
    best = {}
    for name in names:
        means = [
            row["metrics"][name]["mean"]
            for _, row, _ in entries
            if not row["name"].startswith("model_alpha") and name in row["metrics"]
        ]
        means = [mean for mean in means if mean is not None]
        if means:
            best[name] = (max if members[0][1]["metrics"][name]["higher_is_better"] else min)(means)
    rows = []
    for title, row, result in entries:
        is_noisy = row["name"].startswith("model_alpha")
        rows.append(
            [
                title,
                *(
                    _cell(
                        row["metrics"].get(name),
                        result["num_examples"],
                        None if is_noisy else best.get(name),
                    )
                    for name in names
                ),
            ]
        )
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
    unit = f", {html.text(metric['unit'])}" if metric["unit"] else ""
    arrow = "&uarr; higher" if metric["higher_is_better"] else "&darr; lower"
    return f"{html.text(metric['title'])}{unit}<small>{arrow}</small>"


def _undefined(members: Sequence[tuple]) -> str:
    """Why some examples have no value, folded away."""
    lines = []
    for run, result in members:
        for row in result["rows"]:
            for name, value in row["metrics"].items():
                for reason, count in value["undefined"].items():
                    lines.append(
                        f"<li>{html.text(result_name(run, result))}, "
                        f"{html.text(row['title'])}, "
                        f"{html.text(result['metrics'][name]['title'])}: {count} of "
                        f"{result['num_examples']}: {html.text(reason)}</li>"
                    )
        lines += [
            f"<li>{html.text(run.name)}: {html.text(reason)}</li>"
            for reason in result["unreadable"]
        ]
    if not lines:
        return ""
    return (
        f"<details><summary>Examples without a value</summary><ul>{''.join(lines)}</ul></details>"
    )


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
                    points.append(
                        (
                            float(row["name"].removeprefix("model").removeprefix("_alpha_") or 0),
                            value,
                        )
                    )
            if len(points) > 1:
                x, y = zip(*sorted(points))
                series.append(
                    charts_lib.Series(
                        name=result_name(run, result),
                        x=x,
                        y=y,
                        color=colors[run.name],
                        marked=True,
                    )
                )
        if series:
            metric = members[0][1]["metrics"][name]
            arrow = "higher is better" if metric["higher_is_better"] else "lower is better"
            chart = charts_lib.line_chart(
                series, title=f"{metric['title']} under latent noise", x_title="latent noise, alpha"
            )
            charts.append(
                html.figure(f"{html.text(metric['title'])} <small>{arrow}</small>", chart)
            )
    if not charts:
        return ""
    return (
        "<h3>Decoding disturbed latents</h3><p>A generator that predicts latents errs. Here noise "
        "of "
        "strength alpha is added to clean latents, whose rms is 1, before decoding: a flat curve "
        "forgives."
        f'</p>{_legend(members, colors)}<div class="grid">{"".join(charts)}</div>'
    )


def _legend(members: Sequence[tuple], colors: Mapping[str, str]) -> str:
    if len(members) == 1:
        return ""
    return (
        "<p>"
        + "".join(html.key(colors[run.name], result_name(run, result)) for run, result in members)
        + "</p>"
    )


def result_name(run: run_history.RunHistory, result: Mapping[str, Any]) -> str:
    """The run's name, with the file where it has several evaluations."""
    return run.name if len(run.results) == 1 else f"{run.name} {result['file']}"
