# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The part of a report with sound that was generated: figures, and each text with its sounds."""

from collections.abc import Mapping, Sequence
from typing import Any

from f3tok_jax.reporting import html
from f3tok_jax.reporting import sounds
from f3tok_jax.runs import history as run_history

# Figure of a row -> head of its column, and how it is written.
_COLUMNS = {
    "judge_accuracy": ("heard right by the judge", "{:.1%}"),
    "character_error_rate": ("character error rate, own transcription", "{:.3f}"),
    "never_stopped": ("never stopped", "{:.1%}"),
    "stopped_at_once": ("stopped at once", "{:.1%}"),
    "seconds": ("seconds", "{:.2f}"),
    "duration_error": ("difference in length, seconds", "{:.2f}"),
    "frechet_distance": ("Fr&eacute;chet distance", "{:.2f}"),
}
_SHOWN = (
    "original",
    "reconstruction",
    "after_true",
    "generated_0",
)  # sounds of an example, in order


def render(runs: Sequence[run_history.RunHistory]) -> str:
    """HTML of all evaluations of generated sound, "" where there is none."""
    return "".join(_evaluation(run, result) for run in runs for result in run.generations)


def _evaluation(run: run_history.RunHistory, result: Mapping[str, Any]) -> str:
    columns = [name for name in _COLUMNS if any(name in row for row in result["rows"])]
    rows = [
        [
            html.text(row["title"]),
            *(_COLUMNS[name][1].format(row[name]) if name in row else "" for name in columns),
        ]
        for row in result["rows"]
    ]
    judge = result["judge"]
    said = (
        f"The judge tells the {html.text(judge['label'])}; it has learned from recordings alone. "
        if judge["label"]
        else ""
    )
    table = html.table(["", *(_COLUMNS[name][0] for name in columns)], rows)
    return (
        f"<h3>{html.text(run.name)}</h3><p>{result['num_examples']} texts of held-out clips, "
        f"guidance {result['sampler']['guidance']:g}, {result['sampler']['num_steps']} steps, at "
        f"most {result['max_seconds']:.1f} seconds. {said}The Fr&eacute;chet distance compares the "
        "run's own representations, frame by frame, with those of the recordings.</p>"
        f"{table}{_sounds(result)}"
    )


def _sounds(result: Mapping[str, Any]) -> str:
    titles = {row["name"]: row["title"] for row in result["rows"]} | {"original": "recording"}
    parts = []
    for entry in result["listen"]:
        shelf = sounds.Shelf()
        for name in _SHOWN:
            if name in entry["files"]:
                path = result["folder"] / entry["files"][name]
                shelf.add(titles.get(name, name), path, result["folder"])
        text = result["texts"].get(entry["key"], entry["key"])
        parts.append(f"<h3>&ldquo;{html.text(text)}&rdquo;</h3>{shelf.html()}")
    return "".join(parts)
