# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Tones of musical instruments by physical and additive models.

Plucked strings are the modes of a lossy string loop, struck bodies the modes of bars, bells and
stiff strings, bowed strings a stick-slip sawtooth through body resonances, blown pipes a spectrum
that opens with the breath. Equal temperament, A4 = 440 Hz, MIDI numbering.
"""

from collections.abc import Mapping
import dataclasses
import pathlib
import tomllib
from typing import Any

import numpy as np

from data_pipelines.embedded import synthesis


@dataclasses.dataclass(frozen=True)
class Instrument:
    """One instrument.

    Attributes:
        family: "plucked", "bowed", "blown" or "struck".
        lowest: MIDI number of the lowest note.
        highest: of the highest.
        verb: what the player does in a caption.
        chords: whether one player can sound several notes at once.
        model: parameters of the family's model, by the names that instruments.toml explains.
    """

    family: str
    lowest: int
    highest: int
    verb: str = "plays"
    chords: bool = True
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _read() -> dict[str, Instrument]:
    text = pathlib.Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    return {name: Instrument(**fields) for name, fields in tomllib.loads(text).items()}


INSTRUMENTS = _read()


def frequency(pitch: float) -> float:
    """Returns the frequency, Hz, of a MIDI number."""
    return 440.0 * 2.0 ** ((pitch - 69.0) / 12.0)


def tone(
    name: str,
    pitch: int,
    *,
    duration: float,
    loudness: float,
    rng: np.random.Generator,
    sample_rate: int,
) -> np.ndarray:
    """Returns one tone.

    Args:
        name: a key of INSTRUMENTS.
        pitch: MIDI number.
        duration: seconds until the tone is released or damped; it ends at most 0.2 s later.
        loudness: 0 (soft) to 1 (loud); louder is brighter too.
        rng: small irregularities of the player.
        sample_rate: Hz.

    Returns:
        [samples] float64, peak about `loudness` + 0.3.
    """
    instrument = INSTRUMENTS[name]
    release = 0.2 if instrument.family in ("plucked", "struck") else 0.1
    span = synthesis.Span(int((duration + release) * sample_rate), sample_rate)
    # Each of the parameters of its model, the pitch in Hz, the loudness, and what makes it alive.
    make = {"plucked": _plucked, "struck": _struck, "bowed": _bowed, "blown": _blown}
    signal = make[instrument.family](instrument.model, frequency(pitch), loudness, rng, span)
    signal *= span.envelope((0.0, duration, duration + release), (1.0, 1.0, 0.0))
    return signal * ((0.3 + loudness) / max(float(np.max(np.abs(signal))), 1e-9))


def _partials(fundamental: float, sample_rate: int) -> np.ndarray:
    return np.arange(1, max(int(0.47 * sample_rate / fundamental), 1) + 1)


def _plucked(model, fundamental, loudness, rng, span: synthesis.Span) -> np.ndarray:
    numbers = _partials(fundamental, span.sample_rate)
    position = model["position"] * rng.uniform(0.8, 1.2)
    # A string drawn aside to a corner: sin(pi h p) / h^2, bent towards 1 / h by a hard, loud pluck.
    amplitudes = np.sin(np.pi * numbers * position) / numbers ** (1.9 - 0.7 * loudness)
    frequencies = fundamental * numbers * np.sqrt(1.0 + model["stiffness"] * numbers**2)
    decay_times = model["decay_time"] * (220.0 / fundamental) ** 0.5
    decay_times /= 1.0 + model["loss"] * (frequencies / 1500.0) ** 1.5
    signal = span.modes(
        frequencies, amplitudes=amplitudes, decay_times=decay_times, phases=np.pi / 2.0
    )
    return _soften(signal, 0.001, span.sample_rate) + _knock(rng, 0.02 * loudness, span)


def _struck(model, fundamental, loudness, rng, span: synthesis.Span) -> np.ndarray:
    if not model:  # a piano's strings
        numbers = _partials(fundamental, span.sample_rate)
        stiffness = 4e-4 * (fundamental / 440.0) ** 1.2
        frequencies = fundamental * numbers * np.sqrt(1.0 + stiffness * numbers**2)
        # The hammer is as wide as an eighth of the string and harder when it is fast.
        softness = np.exp(-frequencies / (900.0 + 2800.0 * loudness))
        amplitudes = np.sin(np.pi * numbers / 8.2) / numbers * softness
        decay_times = 2.2 * (220.0 / fundamental) ** 0.6 / (1.0 + 0.35 * numbers)
        # Two strings a cent apart beat, and one of them keeps its energy longer.
        frequencies = np.concatenate([frequencies, frequencies * 1.0004])
        amplitudes = np.concatenate([amplitudes, 0.4 * amplitudes])
        decay_times = np.concatenate([0.4 * decay_times, 1.5 * decay_times])
    else:
        ratios = np.asarray(model["ratios"])
        frequencies = fundamental * ratios
        amplitudes = model["amplitudes"] * ratios ** (0.5 * (loudness - 0.5))
        amplitudes = amplitudes * rng.uniform(0.7, 1.3, len(ratios))
        decay_times = model["decay_time"] * (440.0 / fundamental) ** 0.5 / ratios ** model["power"]
    signal = span.modes(frequencies, amplitudes=amplitudes, decay_times=decay_times)
    return _soften(signal, 0.0015, span.sample_rate) + _knock(rng, 0.03 * loudness, span)


def _bowed(model, fundamental, loudness, rng, span: synthesis.Span) -> np.ndarray:
    numbers = _partials(fundamental, span.sample_rate)
    frequencies = fundamental * numbers
    gains = np.full(len(numbers), 0.4)
    for centre, gain, width in model["resonances"]:
        gains += gain * np.exp(-0.5 * ((frequencies - centre) / (width * centre)) ** 2)
    harmonics = gains / numbers * np.exp(-frequencies / (3000.0 + 4000.0 * loudness))
    pitch = fundamental * _vibrato(rng, 14.0, span)
    signal = span.oscillator(pitch, harmonics=harmonics, phase=rng.uniform())
    signal /= max(float(np.max(np.abs(signal))), 1e-9)
    signal += rng.uniform(0.01, 0.03) * span.band_noise(rng, 800.0, 5000.0, 1.0)
    return signal * _breath(rng, rng.uniform(0.05, 0.15), span)


def _blown(model, fundamental, loudness, rng, span: synthesis.Span) -> np.ndarray:
    pitch = fundamental * _vibrato(rng, model["vibrato"], span)
    envelope = _breath(rng, model["attack"] * rng.uniform(0.7, 1.5), span)
    phase = rng.uniform()
    soft, loud = (
        span.oscillator(pitch, harmonics=np.asarray(model[name], float), phase=phase)
        for name in ("soft", "loud")
    )
    # The spectrum opens as the pressure rises.
    mix = np.clip(envelope * (0.2 + 0.8 * loudness), 0.0, 1.0)
    signal = soft * (1.0 - mix) + loud * mix
    signal += model["breath"] * span.band_noise(rng, fundamental, 6.0 * fundamental, 0.7)
    return signal * envelope


def _vibrato(rng: np.random.Generator, cents: float, span: synthesis.Span) -> np.ndarray:
    """Returns a factor around 1 on the frequency; vibrato comes in after 0.3 s, as players do."""
    times = span.times
    depth = cents * rng.uniform(0.4, 1.0) * np.clip((times - 0.2) / 0.3, 0.0, 1.0)
    return 2.0 ** (depth * np.sin(2.0 * np.pi * rng.uniform(4.8, 6.2) * times) / 1200.0)


def _breath(rng: np.random.Generator, attack: float, span: synthesis.Span) -> np.ndarray:
    """Returns a sustained envelope: a soft attack, then small unevenness."""
    times = span.times
    uneven = span.slow_random(rng, 4.0)
    return (1.0 - np.exp(-3.0 * times / attack)) * (0.9 + 0.05 * np.clip(uneven, -2.0, 2.0))


def _soften(signal: np.ndarray, attack: float, sample_rate: int) -> np.ndarray:
    count = min(int(attack * sample_rate) + 1, len(signal))
    signal[:count] *= np.linspace(0.0, 1.0, count)
    return signal


def _knock(rng: np.random.Generator, level: float, span: synthesis.Span) -> np.ndarray:
    """Returns the short noise of finger, pick or hammer at the start of a tone."""
    count = min(int(0.03 * span.sample_rate), span.num_samples)
    burst = synthesis.Span(count, span.sample_rate).band_noise(rng, 300.0, 3000.0, 1.0)
    signal = np.zeros(span.num_samples)
    signal[:count] = level * burst * np.exp(-np.arange(count) / (0.006 * span.sample_rate))
    return signal


def drum(name: str, *, rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """Returns one stroke of a "kick", "snare", "hat" or "tom", peak about 1."""
    seconds = {"kick": 0.35, "snare": 0.25, "hat": 0.12, "tom": 0.4}[name]
    span = synthesis.Span(int(seconds * sample_rate), sample_rate)
    times = span.times
    if name in ("kick", "tom"):
        rest, drop, decay_time = (50.0, 110.0, 0.10) if name == "kick" else (110.0, 60.0, 0.14)
        # The head is tighter right after the stroke: the pitch falls.
        pitch = rest + drop * np.exp(-times / 0.03)
        signal = np.sin(2.0 * np.pi * np.cumsum(pitch) / sample_rate) * np.exp(-times / decay_time)
        return signal + _knock(rng, 0.15, span)
    low, high, decay_time, body = 5000.0, 12000.0, 0.03, 0.0
    if name == "snare":
        low, high, decay_time, body = 1200.0, 7000.0, 0.06, 0.5
    rattle = 0.4 * span.band_noise(rng, low, high)
    frequencies, decay_times = np.array([185.0, 330.0]), np.array([0.06, 0.04])
    shell = span.modes(frequencies, amplitudes=np.array([1.0, 0.5]), decay_times=decay_times)
    return rattle * np.exp(-times / decay_time) + body * shell
