# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sounds to listen to, each with its spectrogram: as data URIs, or the reason why there is none."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import pathlib

from f3tok_jax.reporting import charts
from f3tok_jax.runs import history
from f3tok_jax.runs import results
from f3tok_jax.signal import spectra

MAX_SECONDS = 8.0  # of each sound: the page holds them all
MAX_EXAMPLES = 40  # of one kind
_MAX_STEPS = 4  # of the sounds written during training
_MAX_TRAINING_SOUNDS = 2
_GENERATED = ("original", "reconstruction", "after_true", "generated_0")  # that are shown, in order


@dataclasses.dataclass(frozen=True)
class File:
    """A sound file inside the folder of a run."""

    title: str
    path: pathlib.Path
    root: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Sound:
    """A player and a picture, or an error."""

    title: str
    uri: str = ""
    picture: str = ""
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Example:
    """Sounds of one example: those of disturbed latents are folded away."""

    title: str
    clean: tuple[Sound, ...]
    noisy: tuple[Sound, ...] = ()


def heldout(runs: Sequence[history.RunHistory]) -> list[Example]:
    """Per example the original, every run's decoding, and the references."""
    examples: dict[str, dict[str, File]] = {}
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
                    of_example.setdefault(place, File(title, run.folder / path, run.folder))
    return [_example(key, files) for key, files in list(examples.items())[:MAX_EXAMPLES]]


def _example(key: str, files: Mapping[str, File]) -> Example:
    def rank(place: str) -> int:
        return 0 if place == "original" else 1 if place.startswith("model ") else 2

    places = sorted(files, key=rank)
    sounds = dict(zip(places, _read(files[place] for place in places)))
    noisy = [place for place in places if place.startswith("model_alpha")]
    return Example(
        key,
        tuple(sound for place, sound in sounds.items() if place not in noisy),
        tuple(sounds[place] for place in noisy),
    )


def generated(run: history.RunHistory, result: results.Generation) -> list[Example]:
    """Each text with its recording and what was made of it."""
    titles = {row.name: row.title for row in result.rows} | {"original": "recording"}
    examples = []
    for entry in result.sounds[:MAX_EXAMPLES]:
        names = [name for name in _GENERATED if name in entry.files]
        files = (
            File(titles.get(name, name), run.folder / entry.files[name], run.folder)
            for name in names
        )
        examples.append(Example(result.texts.get(entry.key, entry.key), _read(files)))
    return examples


def training(runs: Sequence[history.RunHistory]) -> list[Example]:
    """The same sounds after more and more steps."""
    examples = []
    for run in runs:
        steps = sorted(run.samples)
        chosen = steps and sorted(
            {steps[round(i * (len(steps) - 1) / (_MAX_STEPS - 1))] for i in range(_MAX_STEPS)}
        )
        for index in sorted(run.samples[steps[-1]])[:_MAX_TRAINING_SOUNDS] if steps else ():
            files = [
                File(
                    "original" if name == "reference" else f"{name}, step {step:,}",
                    path,
                    run.folder,
                )
                for step in chosen
                for name, path in run.samples[step].get(index, {}).items()
                if name != "reference" or step == steps[-1]
            ]
            files.sort(key=lambda file: file.title != "original")
            examples.append(Example(f"{run.name}, sound {index}", _read(files)))
    return examples


def _read(files: Iterable[File]) -> tuple[Sound, ...]:
    """Sounds of one example, drawn on the scale of the first."""
    sounds, top = [], None
    for file in files:
        try:
            waveform, sample_rate = history.read_sound(
                file.path, root=file.root, seconds=MAX_SECONDS
            )
        except ValueError as error:
            sounds.append(Sound(file.title, error=str(error)))
            continue
        levels = spectra.mel_levels_on_host(waveform, sample_rate)
        top = levels.max() if top is None else top
        sounds.append(
            Sound(
                file.title,
                charts.sound(waveform, sample_rate),
                charts.spectrogram(levels, top=top),
            )
        )
    return tuple(sounds)
