# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sounds to listen to, each with its spectrogram: as data URIs, or the reason why there is none."""

from collections.abc import Iterable, Mapping, Sequence
import pathlib
from typing import NamedTuple

from f3tok_jax.reporting import charts
from f3tok_jax.reporting import tables
from f3tok_jax.runs import history
from f3tok_jax.runs import results
from f3tok_jax.signal import spectra

MAX_SECONDS = 8.0  # of each sound: the page holds them all
MAX_EXAMPLES = 40  # of one kind
_MAX_STEPS = 4  # of the sounds written during training
_MAX_TRAINING_SOUNDS = 2
_GENERATED = ("original", "reconstruction", "after_true", "generated_0")  # that are shown, in order


class Sound(NamedTuple):
    """A player and a picture, or an error."""

    title: str
    uri: str = ""
    picture: str = ""
    error: str = ""


class Example(NamedTuple):
    """Sounds of one example: those of disturbed latents are folded away."""

    title: str
    clean: Sequence[Sound]
    noisy: Sequence[Sound] = ()


# A title, a path, and the folder of the run, which the path must not lead out of.
_File = tuple[str, pathlib.Path, pathlib.Path]


def heldout(runs: Sequence[history.RunHistory]) -> list[Example]:
    """Per example the original, every run's decoding, and the references."""
    examples: dict[str, dict[str, _File]] = {}
    for run in runs:
        for file, result in run.of(results.Reconstruction).items():
            titles = {row.name: row.title for row in result.rows}
            for entry in result.sounds:
                of_example = examples.setdefault(entry.key, {})
                for name, path in entry.files.items():
                    title, place = titles.get(name, name), name
                    if name.startswith("model"):
                        place = f"{name} {run.name} {file}"
                        title += f": {run.name}" if len(runs) > 1 else ""
                    # The original and the references are the same in every run.
                    of_example.setdefault(place, (title, run.folder / path, run.folder))
    return [_example(key, files) for key, files in list(examples.items())[:MAX_EXAMPLES]]


def _example(key: str, files: Mapping[str, _File]) -> Example:
    def rank(place: str) -> int:
        return 0 if place == "original" else 1 if place.startswith("model ") else 2

    places = sorted(files, key=rank)
    sounds = list(zip(places, _read(files[place] for place in places)))
    return Example(
        key,
        [sound for place, sound in sounds if not tables.is_noisy(place)],
        [sound for place, sound in sounds if tables.is_noisy(place)],
    )


def generated(run: history.RunHistory, result: results.Generation) -> list[Example]:
    """Each text with its recording and what was made of it."""
    titles = {row.name: row.title for row in result.rows} | {"original": "recording"}
    examples = []
    for entry in result.sounds[:MAX_EXAMPLES]:
        files = entry.files
        shown = [(name, run.folder / files[name]) for name in _GENERATED if name in files]
        sounds = _read((titles.get(name, name), path, run.folder) for name, path in shown)
        examples.append(Example(result.texts.get(entry.key, entry.key), sounds))
    return examples


def training(runs: Sequence[history.RunHistory]) -> list[Example]:
    """The same sounds after more and more steps."""
    examples = []
    for run in (run for run in runs if run.samples):
        steps = sorted(run.samples)
        chosen = {steps[round(i * (len(steps) - 1) / (_MAX_STEPS - 1))] for i in range(_MAX_STEPS)}
        for index in sorted(run.samples[steps[-1]])[:_MAX_TRAINING_SOUNDS]:
            reference = run.samples[steps[-1]][index].get("reference")
            files = [("original", reference, run.folder)] if reference else []
            for step in sorted(chosen):
                files += [
                    (f"{name}, step {step:,}", path, run.folder)
                    for name, path in run.samples[step].get(index, {}).items()
                    if name != "reference"
                ]
            examples.append(Example(f"{run.name}, sound {index}", _read(files)))
    return examples


def _read(files: Iterable[_File]) -> list[Sound]:
    """Sounds of one example, drawn on the scale of the first."""
    sounds, top = [], None
    for title, path, root in files:
        try:
            waveform, rate = history.read_sound(path, root=root, seconds=MAX_SECONDS)
        except ValueError as error:
            sounds.append(Sound(title, error=str(error)))
            continue
        levels = spectra.mel_levels_on_host(waveform, rate)
        top = levels.max() if top is None else top
        picture = charts.spectrogram(levels, top=top)
        sounds.append(Sound(title, charts.sound(waveform, rate), picture))
    return sounds
