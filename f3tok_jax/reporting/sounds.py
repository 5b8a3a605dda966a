# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The part of a report in which one listens: sounds with their spectrograms, side by side."""

from collections.abc import Mapping, Sequence
import html
import pathlib

import numpy as np

from f3tok_jax.reporting import charts
from f3tok_jax.runs import history as run_history

_MAX_SECONDS = 8.0  # of each sound: the page holds them all
_MAX_STEPS = 4  # of the sounds written during training
_MAX_TRAINING_SOUNDS = 2


class Shelf:
    """Sounds of one example, drawn on the scale of the first."""

    def __init__(self):
        self.top: float | None = None  # dB of the loudest point of the first sound
        self._cells: list[str] = []

    def add(self, title: str, path: pathlib.Path, root: pathlib.Path) -> None:
        """Adds a player and a picture, or the reason why there is none."""
        title = html.escape(title)
        try:
            waveform, sample_rate = run_history.read_sound(path, root=root, seconds=_MAX_SECONDS)
            if not waveform.size:
                raise ValueError(f"{path.name} is empty")
        except ValueError as error:
            self._cells.append(
                f"<figure><figcaption>{title}</figcaption>{html.escape(str(error))}</figure>"
            )
            return
        levels = charts.decibels(waveform, sample_rate)
        if self.top is None:
            self.top = float(np.max(levels))
        picture = charts.spectrogram_uri(levels, top=self.top)
        sound = charts.sound_uri(waveform, sample_rate)
        self._cells.append(
            f'<figure><figcaption>{title}</figcaption><img src="{picture}" alt="spectrogram, '
            f'{title}">'
            f'<audio controls preload="none" src="{sound}" aria-label="{title}"></audio></figure>'
        )

    def __bool__(self) -> bool:
        return bool(self._cells)

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
    return (
        f"<p>At most the first {_MAX_SECONDS:g} seconds of each sound. Spectrograms: time to the "
        f"right, "
        "pitch upwards on the mel scale to half the sample rate, darker is louder, on the scale "
        "of the "
        f"original.</p>{heldout}{training}"
    )


def _heldout(runs: Sequence[run_history.RunHistory]) -> str:
    """Per example the original, every run's decoding, the references; latent noise folded away."""
    sounds: dict[str, dict[str, tuple[str, pathlib.Path, pathlib.Path]]] = {}
    for run in runs:
        for result in run.results:
            titles = {row["name"]: row["title"] for row in result["rows"]}
            for entry in result["listen"]:
                of_example = sounds.setdefault(entry["key"], {})
                for name, path in entry["files"].items():
                    title, place = titles.get(name, name), name
                    if name.startswith("model"):
                        place = f"{name} {run.name} {result['file']}"
                        title += f": {run.name}" if len(runs) > 1 else ""
                    # The original and the references are the same in every run.
                    of_example.setdefault(place, (title, result["folder"] / path, result["folder"]))
    return "".join(
        f"<h3>{html.escape(key)}</h3>{_example(of_example)}" for key, of_example in sounds.items()
    )


def _example(sounds: Mapping[str, tuple[str, pathlib.Path, pathlib.Path]]) -> str:
    """The shelves of one example, all on the scale of its original."""

    def rank(place: str) -> int:
        return 0 if place == "original" else 1 if place.startswith("model ") else 2

    clean, noisy = Shelf(), Shelf()
    for place in sorted(sounds, key=rank):
        (noisy if place.startswith("model_alpha") else clean).add(*sounds[place])
        noisy.top = clean.top
    if not noisy:
        return clean.html()
    folded = f"<summary>Decoded from disturbed latents</summary>{noisy.html()}"
    return f"{clean.html()}<details>{folded}</details>"


def _training(runs: Sequence[run_history.RunHistory]) -> str:
    """The same sounds after more and more steps, folded away."""
    parts = []
    for run in runs:
        steps = sorted(run.samples)
        if not steps:
            continue
        chosen = sorted(
            {steps[round(i * (len(steps) - 1) / (_MAX_STEPS - 1))] for i in range(_MAX_STEPS)}
        )
        for index in sorted(run.samples[steps[-1]])[:_MAX_TRAINING_SOUNDS]:
            shelf = Shelf()
            last = run.samples[steps[-1]][index]
            if "reference" in last:
                shelf.add("original", last["reference"], run.folder)
            for step in chosen:
                for name, path in run.samples[step].get(index, {}).items():
                    if name != "reference":
                        shelf.add(f"{name}, step {step:,}", path, run.folder)
            parts.append(f"<h3>{html.escape(run.name)}, sound {index}</h3>{shelf.html()}")
    return f"<details><summary>While training</summary>{''.join(parts)}</details>" if parts else ""
