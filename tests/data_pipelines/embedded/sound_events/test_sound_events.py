# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Embedded sound events: every class appears and sounds like itself where that can be measured."""

import collections
import functools

import numpy as np
import pytest

from data_pipelines.embedded.sound_events import sound_events

_RATE = 16_000  # Hz


@functools.cache
def _by_class() -> dict[str, list[tuple[np.ndarray, str]]]:
    found = collections.defaultdict(list)
    for index in range(3 * len(sound_events.CLASSES)):
        waveform, caption, labels = sound_events.generate(index, seed=0, sample_rate=_RATE)
        found[labels["class"]].append((waveform, caption))
    return found


def _slope(waveform: np.ndarray) -> float:
    """Returns the slope of the spectrum from 200 Hz to 6 kHz, dB per octave."""
    power = np.abs(np.fft.rfft(waveform)) ** 2
    frequencies = np.fft.rfftfreq(len(waveform), 1.0 / _RATE)
    edges = 200.0 * 2.0 ** np.arange(0.0, 5.0, 0.5)
    levels = [
        10.0 * np.log10(np.mean(power[(frequencies >= low) & (frequencies < high)]))
        for low, high in zip(edges[:-1], edges[1:])
    ]
    return float(np.polyfit(np.log2(edges[:-1]), levels, 1)[0])


def test_every_class_appears_equally_often():
    assert len(sound_events.CLASSES) >= 8
    assert {name: len(clips) for name, clips in _by_class().items()} == dict.fromkeys(
        sound_events.CLASSES, 3
    )


def test_groups():
    groups = {
        sound_events.generate(index, seed=1, sample_rate=8_000)[2]["group"]
        for index in range(len(sound_events.CLASSES))
    }
    assert groups == {"animal", "human", "machine", "nature", "noise", "signal"}


@pytest.mark.parametrize(
    "name, slope", [("white noise", 0.0), ("pink noise", -3.0), ("brown noise", -6.0)]
)
def test_noise_has_its_colour(name, slope):
    for waveform, _ in _by_class()[name]:
        # The floor of the recording, 40 dB below, flattens brown noise at the top a little.
        assert _slope(waveform) == pytest.approx(slope, abs=0.8)


@pytest.mark.parametrize("name", ["clock", "door knock", "footsteps", "water drops", "dog"])
def test_repeated_events_are_separate(name):
    for waveform, _ in _by_class()[name]:
        level = np.abs(waveform[: len(waveform) // 320 * 320]).reshape(-1, 320).max(axis=1)  # 20 ms
        assert np.percentile(level, 25) < 0.35 * level.max()


def test_knocks_are_as_many_as_the_caption_says():
    numbers = {"two": 2, "three": 3, "four": 4, "five": 5}
    for waveform, caption in _by_class()["door knock"]:
        level = np.abs(waveform[: len(waveform) // 160 * 160]).reshape(-1, 160).max(axis=1)  # 10 ms
        loud = level > 0.45 * level.max()
        # A knock is over after 100 ms; the next comes at least 130 ms after it began.
        onsets = [at for at in np.flatnonzero(loud) if not loud[max(at - 9, 0) : at].any()]
        assert len(onsets) == numbers[caption.split()[0]], caption


def test_siren_moves_and_alarm_stays():
    def spread(waveform):
        frames = waveform[: len(waveform) // 1024 * 1024].reshape(-1, 1024)
        energy = np.sum(frames**2, axis=1)
        frames = frames[energy > 0.9 * energy.max()]  # not those cut by a beep's edge
        peaks = np.argmax(np.abs(np.fft.rfft(frames * np.hanning(1024))), axis=1)
        return peaks.max() - peaks.min()

    assert all(spread(waveform) >= 8 for waveform, _ in _by_class()["siren"])
    assert all(spread(waveform) <= 1 for waveform, _ in _by_class()["alarm"])
