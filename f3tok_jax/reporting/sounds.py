# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Clips to listen to: their takes, which share one scale of time, pitch, level and colour."""

from collections.abc import Iterable, Mapping, Sequence
import pathlib
from typing import NamedTuple

import numpy as np

from f3tok_jax.reporting import charts
from f3tok_jax.reporting import tables
from f3tok_jax.runs import history
from f3tok_jax.runs import results
from f3tok_jax.signal import spectra

MAX_SECONDS = 8.0  # of each sound: the page holds them all
MAX_CLIPS = 40  # of one kind
_MAX_STEPS = 4  # of the sounds written during training
_MAX_TRAINING_SOUNDS = 2
_GENERATED = ("original", "reconstruction", "after_true", "generated_0")  # that are shown, in order
_SHAPE = dict(num_mels=128, max_columns=640)  # of a spectrogram
_MAX_TICKS = 9
_TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # s between them
_KILOHERTZ = (0.5, 1, 2, 4, 8, 16, 32)  # that are marked: octaves, as pitch is heard


class Take(NamedTuple):
    """One sound of a clip, and its picture."""

    title: str
    sound: str  # data URI
    picture: str  # data URI
    level: float  # dB, rms to full scale
    width: float  # share of the clip's time that it fills
    height: float  # share of the clip's mel scale that it fills
    is_noisy: bool  # decoded from disturbed latents


class Tick(NamedTuple):
    """A mark on an axis: where it stands, in [0, 1], and what it says."""

    place: float
    text: str


class Clip(NamedTuple):
    """What is listened to side by side; `missing` says of takes why they cannot be."""

    title: str
    takes: Sequence[Take] = ()
    missing: Sequence[str] = ()
    seconds: float = 0.0
    hertz: float = 0.0  # the highest frequency
    times: Sequence[Tick] = ()
    pitches: Sequence[Tick] = ()


class _File(NamedTuple):
    """Where a take lies: its path must not lead out of the run's folder."""

    title: str
    path: pathlib.Path
    folder: pathlib.Path
    is_noisy: bool = False


def heldout(runs: Sequence[history.RunHistory]) -> list[Clip]:
    """Per clip the original, every run's reconstruction, the references, and disturbed latents."""
    clips: dict[str, dict[str, _File]] = {}
    found = [(run, *one) for run in runs for one in run.of(results.Reconstruction).items()]
    for run, file, result in found:
        titles = {row.name: row.title.removeprefix("model, ") for row in result.rows}
        titles["model"] = "reconstruction"
        for entry in result.sounds:
            takes = clips.setdefault(entry.key, {})
            for name, path in entry.files.items():
                title, place = titles.get(name, name), name
                if name.startswith("model"):
                    place = f"{name} {run.name} {file}"
                    title += f": {run.name}" if found[0][0] is not found[-1][0] else ""
                # The original and the references are the same in every run.
                is_noisy = tables.is_noisy(name)
                takes.setdefault(place, _File(title, run.folder / path, run.folder, is_noisy))
    return [_heldout(key, takes) for key, takes in list(clips.items())[:MAX_CLIPS]]


def _heldout(key: str, files: Mapping[str, _File]) -> Clip:
    def rank(place: str) -> int:
        if files[place].is_noisy:
            return 3
        return 0 if place == "original" else 1 if place.startswith("model ") else 2

    return _read(key, [files[place] for place in sorted(files, key=rank)])


def generated(run: history.RunHistory, result: results.Generation) -> list[Clip]:
    """Each text with its recording and what was made of it."""
    titles = {row.name: row.title for row in result.rows} | {"original": "recording"}
    clips = []
    for entry in result.sounds[:MAX_CLIPS]:
        files = [
            _File(titles.get(name, name), run.folder / entry.files[name], run.folder)
            for name in _GENERATED
            if name in entry.files
        ]
        clips.append(_read(f"“{result.texts.get(entry.key, entry.key)}”", files))
    return clips


def training(runs: Sequence[history.RunHistory]) -> list[Clip]:
    """The same sounds after more and more steps."""
    clips = []
    for run in (run for run in runs if run.samples):
        steps = sorted(run.samples)
        chosen = {steps[round(i * (len(steps) - 1) / (_MAX_STEPS - 1))] for i in range(_MAX_STEPS)}
        for index in sorted(run.samples[steps[-1]])[:_MAX_TRAINING_SOUNDS]:
            reference = run.samples[steps[-1]][index].get("reference")
            files = [_File("original", reference, run.folder)] if reference else []
            for step in sorted(chosen):
                files += [
                    _File(f"{name}, step {step:,}", path, run.folder)
                    for name, path in run.samples[step].get(index, {}).items()
                    if name != "reference"
                ]
            clips.append(_read(f"{run.name}, sound {index}", files))
    return clips


def _read(title: str, files: Iterable[_File]) -> Clip:
    """The takes of one clip, drawn on the scale of the loudest, the longest and the widest."""
    heard, missing = [], []
    for file in files:
        try:
            sound = history.read_sound(file.path, root=file.folder, seconds=MAX_SECONDS)
        except ValueError as error:
            missing.append(f"{file.title}: {error}")
            continue
        heard.append((file, *sound, spectra.mel_levels_on_host(*sound, **_SHAPE)))
    if not heard:
        return Clip(title, missing=missing)
    seconds = max(len(waveform) / rate for _, waveform, rate, _ in heard)
    hertz = max(rate for _, _, rate, _ in heard) / 2
    top = max(float(levels.max()) for *_, levels in heard)
    takes = [
        Take(
            file.title,
            charts.sound(waveform, rate),
            charts.spectrogram(levels, top=top),
            level=float(10 * np.log10(np.mean(np.square(waveform, dtype=np.float64)) + 1e-12)),
            width=len(waveform) / rate / seconds,
            height=_height(rate / 2, hertz),
            is_noisy=file.is_noisy,
        )
        for file, waveform, rate, levels in heard
    ]
    return Clip(title, takes, missing, seconds, hertz, _times(seconds), _pitches(hertz))


def _times(seconds: float) -> list[Tick]:
    step = next((step for step in _TICKS if seconds / step <= _MAX_TICKS), _TICKS[-1])
    places = range(int(seconds / step) + 1)
    return [Tick(place * step / seconds, f"{place * step:g}") for place in places]


def _pitches(hertz: float) -> list[Tick]:
    return [
        Tick(_height(1000 * marked, hertz), f"{marked:g}")
        for marked in _KILOHERTZ
        if 1000 * marked <= hertz
    ]


def _height(hertz: float, highest: float) -> float:
    """Where a frequency lies on a mel scale up to the highest, in [0, 1]."""
    return spectra.hz_to_mel(hertz) / spectra.hz_to_mel(highest)
