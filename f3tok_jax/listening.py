# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The part of a report in which one listens: sounds with their spectrograms, side by side."""

from collections.abc import Mapping, Sequence
import html
import pathlib

import numpy as np

from f3tok_jax import figures
from f3tok_jax import run_history

_MAX_SECONDS = 8.0  # of each sound: the page holds them all
_MAX_STEPS = 4  # of the sounds written during training
_MAX_TRAINING_SOUNDS = 2


class _Shelf:
    """Sounds of one example, drawn on the scale of the first."""

    def __init__(self):
        self._top: float | None = None
        self._cells: list[str] = []

    def add(self, title: str, path: pathlib.Path, root: pathlib.Path) -> None:
        """Adds a player and a picture, or the reason why there is none."""
        title = html.escape(title)
        try:
            waveform, sample_rate = run_history.read_sound(path, root=root, seconds=_MAX_SECONDS)
            if not waveform.size:
                raise ValueError(f"{path.name} is empty")
        except ValueError as error:
            self._cells.append(f"<figure><figcaption>{title}</figcaption>{html.escape(str(error))}</figure>")
            return
        levels = figures.decibels(waveform, sample_rate)
        if self._top is None:
            self._top = float(np.max(levels))
        picture = figures.spectrogram_uri(levels, top=self._top)
        sound = figures.sound_uri(waveform, sample_rate)
        self._cells.append(
            f'<figure><figcaption>{title}</figcaption><img src="{picture}" alt="spectrogram, {title}">'
            f'<audio controls preload="none" src="{sound}" aria-label="{title}"></audio></figure>')

    def html(self) -> str:
        return f'<div class="sounds">{"".join(self._cells)}</div>'


def render(runs: Sequence[run_history.RunHistory]) -> str:
    """HTML of the held-out sounds of all runs, and of the sounds written while they trained.

    Args:
        runs: at least one.

    Returns:
        "" where no run has sounds.
    """
    heldout, training = _heldout(runs), _training(runs)
    if not heldout + training:
        return ""
    return (f"<p>At most the first {_MAX_SECONDS:g} seconds of each sound. Spectrograms: time to the right, "
            "pitch upwards on the mel scale to half the sample rate, darker is louder, on the scale of the "
            f"original.</p>{heldout}{training}")


def _heldout(runs: Sequence[run_history.RunHistory]) -> str:
    """Per example of the evaluations the original, every run's rows, and the references once."""
    shelves: dict[str, _Shelf] = {}
    seen: set[tuple[str, str]] = set()
    for run in runs:
        for result in run.results:
            titles = {row["name"]: row["title"] for row in result["rows"]}
            for entry in result["listen"]:
                shelf = shelves.setdefault(entry["key"], _Shelf())
                for name, path in _ordered(entry["files"]).items():
                    shared = not name.startswith("model")
                    if shared and (entry["key"], name) in seen:
                        continue
                    seen.add((entry["key"], name))
                    title = titles.get(name, name)
                    if not shared and len(runs) > 1:
                        title = f"{title}: {run.name}"
                    shelf.add(title, result["folder"] / path, result["folder"])
    return "".join(f"<h3>{html.escape(key)}</h3>{shelf.html()}" for key, shelf in shelves.items())


def _ordered(files: Mapping[str, str]) -> dict[str, str]:
    """The original first, for the scale, then as given."""
    return {"original": files["original"], **files} if "original" in files else dict(files)


def _training(runs: Sequence[run_history.RunHistory]) -> str:
    """The same sounds after more and more steps, folded away."""
    parts = []
    for run in runs:
        steps = sorted(run.samples)
        if not steps:
            continue
        chosen = sorted({steps[round(i * (len(steps) - 1) / (_MAX_STEPS - 1))] for i in range(_MAX_STEPS)})
        for index in sorted(run.samples[steps[-1]])[:_MAX_TRAINING_SOUNDS]:
            shelf = _Shelf()
            last = run.samples[steps[-1]][index]
            if "reference" in last:
                shelf.add("original", last["reference"], run.folder)
            for step in chosen:
                for name, path in run.samples[step].get(index, {}).items():
                    if name != "reference":
                        shelf.add(f"{name}, step {step:,}", path, run.folder)
            parts.append(f"<h3>{html.escape(run.name)}, sound {index}</h3>{shelf.html()}")
    return f"<details><summary>While training</summary>{''.join(parts)}</details>" if parts else ""
