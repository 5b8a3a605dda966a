# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Tones of the embedded instruments: the pitch that is asked for, and each family's behaviour."""

import numpy as np
import pytest

from data_pipelines.embedded.music import instruments

_RATE = 16_000  # Hz


def _tone(name: str, pitch: int, *, loudness: float = 0.6) -> np.ndarray:
    return instruments.tone(
        name,
        pitch,
        duration=1.5,
        loudness=loudness,
        rng=np.random.default_rng(0),
        sample_rate=_RATE,
    )


def _peak_near(signal: np.ndarray, frequency: float) -> tuple[float, float]:
    """Returns (frequency, Hz; share of the power) of the spectral peak within a semitone."""
    power = np.abs(np.fft.rfft(signal * np.hanning(len(signal)), 1 << 18)) ** 2
    frequencies = np.fft.rfftfreq(1 << 18, 1.0 / _RATE)
    near = np.abs(12.0 * np.log2(np.maximum(frequencies, 1.0) / frequency)) < 1.0
    peak = np.argmax(np.where(near, power, 0.0))
    return frequencies[peak], power[near].sum() / power.sum()


@pytest.mark.parametrize("name", instruments.INSTRUMENTS)
def test_pitch_is_as_asked(name):
    instrument = instruments.INSTRUMENTS[name]
    for pitch in (instrument.lowest + 12, instrument.highest):
        wanted = instruments.frequency(pitch)
        found, share = _peak_near(_tone(name, pitch), wanted)
        # Vibrato reaches 14 cents and stiffness stretches a string by less than 10.
        assert abs(1200.0 * np.log2(found / wanted)) < 20.0
        assert share > 0.02


def test_a_is_440_hertz():
    assert instruments.frequency(69) == 440.0
    assert instruments.frequency(57) == 220.0


@pytest.mark.parametrize("name", instruments.INSTRUMENTS)
def test_families_decay_or_sustain(name):
    pitch = (instruments.INSTRUMENTS[name].lowest + instruments.INSTRUMENTS[name].highest) // 2
    signal = _tone(name, pitch)
    early, late = (
        np.sqrt(np.mean(signal[int(start * _RATE) : int((start + 0.2) * _RATE)] ** 2))
        for start in (0.2, 1.2)
    )
    if instruments.INSTRUMENTS[name].family in ("plucked", "struck"):
        assert late < 0.7 * early
    else:
        assert 0.7 * early < late < 1.4 * early


@pytest.mark.parametrize("name", ["guitar", "piano", "violin", "trumpet", "glockenspiel"])
def test_loud_is_brighter(name):
    pitch = instruments.INSTRUMENTS[name].lowest + 7
    centroids = []
    for loudness in (0.1, 1.0):
        magnitude = np.abs(np.fft.rfft(_tone(name, pitch, loudness=loudness)))
        centroids.append(np.sum(magnitude * np.arange(len(magnitude))) / np.sum(magnitude))
    assert centroids[1] > 1.02 * centroids[0]


def test_drums_are_low_and_high():
    centroids = []
    for name in ("kick", "snare", "hat"):
        stroke = instruments.drum(name, rng=np.random.default_rng(0), sample_rate=_RATE)
        power = np.abs(np.fft.rfft(stroke)) ** 2
        centroids.append(np.sum(power * np.fft.rfftfreq(len(stroke), 1.0 / _RATE)) / np.sum(power))
    assert centroids[0] < 250.0 < centroids[1] < centroids[2]
