# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sounds of weather, water, fire and animals, and coloured noise.

Each function takes (rng, span) and returns (signal of any level, caption).
"""

from collections.abc import Callable

import numpy as np

from data_pipelines.embedded import synthesis
from data_pipelines.embedded.sound_events import gestures
from data_pipelines.embedded.speech import numerals

Made = tuple[np.ndarray, str]


def coloured(exponent: float, name: str) -> Callable[..., Made]:
    """Returns the function that makes noise whose magnitude goes as frequency**exponent."""

    def make(rng: np.random.Generator, span: synthesis.Span) -> Made:
        return span.noise(rng, synthesis.tilt(exponent)), f"steady {name} noise"

    return make


def rain(rng: np.random.Generator, span: synthesis.Span) -> Made:
    """Returns rain: a hiss and single drops, and a caption."""
    heavy = bool(rng.uniform() < 0.5)
    hiss = span.band_noise(rng, 600.0, 7000.0, 1.0)
    # Single drops: impulses at random times through a short resonance.
    drops = np.zeros(span.num_samples)
    count = int(span.seconds * (300 if heavy else 60))
    drops[rng.integers(0, span.num_samples, count)] = rng.exponential(1.0, count)
    tap = gestures.burst(rng, span, seconds=0.01, band=(1500.0, 6000.0), decay=0.002)
    signal = (0.5 if heavy else 0.12) * hiss + 1.5 * synthesis.convolve(drops, tap)
    return signal, "heavy rain" if heavy else "light rain with single drops"


def wind(rng: np.random.Generator, span: synthesis.Span) -> Made:
    """Returns wind in gusts, with or without a howl, and a caption."""
    body = span.band_noise(rng, 40.0, 300.0, 1.5)
    centre = rng.uniform(450.0, 900.0)
    whistle = span.band_noise(rng, centre, 1.15 * centre, 12.0)
    gust = gestures.gust(rng, span, 0.8)
    howling = bool(rng.uniform() < 0.5)
    signal = gust * body + (0.8 if howling else 0.1) * gust**2 * whistle
    return signal, "howling wind" if howling else "wind blowing in gusts"


def thunder(rng: np.random.Generator, span: synthesis.Span) -> Made:
    """Returns thunder, near or distant, and a caption."""
    near = bool(rng.uniform() < 0.5)
    times = span.times
    strike = rng.uniform(0.1, 0.3)
    rumble = span.band_noise(rng, 25.0, 140.0, 1.5)
    level = np.where(times > strike, np.exp(-(times - strike) / 1.2), 0.02)
    signal = rumble * level * gestures.gust(rng, span, 5.0)
    if near:
        crack = gestures.burst(rng, span, seconds=0.5, band=(200.0, 4000.0), decay=0.09)
        signal += 4.0 * span.place([(strike, crack)])
    return signal, "a near crack of thunder" if near else "distant rolling thunder"


def waves(rng: np.random.Generator, span: synthesis.Span) -> Made:
    """Returns surf: swell and foam, and a caption."""
    times = span.times
    period = rng.uniform(2.0, 4.0)
    swell = (0.5 + 0.5 * np.sin(2.0 * np.pi * (times / period + rng.uniform()))) ** 2
    low = span.band_noise(rng, 80.0, 600.0, 1.0)
    foam = span.band_noise(rng, 1000.0, 6000.0, 1.0)
    return low * (0.2 + swell) + 0.5 * foam * (0.05 + swell**2), "waves breaking on a beach"


def fire(rng: np.random.Generator, span: synthesis.Span) -> Made:
    """Returns a fire: roar and crackles, and a caption."""
    roar = span.band_noise(rng, 60.0, 400.0, 1.0)
    crackles = np.zeros(span.num_samples)
    count = int(span.seconds * rng.uniform(8.0, 30.0))
    crackles[rng.integers(0, span.num_samples, count)] = rng.exponential(1.0, count)
    snap = gestures.burst(rng, span, seconds=0.02, band=(1000.0, 6000.0), decay=0.003)
    return 0.08 * roar + 2.0 * synthesis.convolve(crackles, snap), "a crackling fire"


def drops(rng: np.random.Generator, span: synthesis.Span) -> Made:
    """Returns drops falling into water, and a caption."""
    per_second = rng.uniform(1.0, 4.0)
    starts = gestures.starts(rng, span.seconds, per_second=per_second, jitter=0.15)
    times = span.part(0.18).times
    parts = []
    for start in starts:  # an air bubble rises and its pitch with it (Minnaert)
        pitch = rng.uniform(500.0, 1500.0) * (1.0 + rng.uniform(2.0, 5.0) * times)
        bubble = np.sin(2.0 * np.pi * np.cumsum(pitch) / span.sample_rate) * np.exp(-times / 0.03)
        parts.append((start, rng.uniform(0.5, 1.0) * bubble * np.minimum(times / 0.002, 1.0)))
    signal = span.place(parts)
    return signal, f"water dripping {'fast' if per_second > 2.5 else 'slowly'}"


def bird(rng: np.random.Generator, span: synthesis.Span) -> Made:
    """Returns a bird's song of swept syllables, and a caption."""
    top = min(6500.0, 0.42 * span.sample_rate)
    trill = bool(rng.uniform() < 0.4)
    base = rng.uniform(0.4, 0.65) * top
    parts, start = [], 0.1
    syllable = rng.uniform(0.05, 0.16)
    sweep = rng.uniform(-0.35, 0.35, 2)
    while start < span.seconds - 0.3:
        for _ in range(int(rng.integers(2, 7))):
            times = span.part(syllable).times / syllable
            pitch = base * (1.0 + sweep[0] * (times - 0.5) + sweep[1] * np.sin(np.pi * times))
            if trill:
                pitch *= 1.0 + 0.06 * np.sin(2.0 * np.pi * 28.0 * times * syllable)
            chirp = np.sin(2.0 * np.pi * np.cumsum(np.minimum(pitch, top)) / span.sample_rate)
            parts.append((start, rng.uniform(0.5, 1.0) * chirp * np.sin(np.pi * times) ** 0.7))
            start += syllable * rng.uniform(1.3, 1.8)
        start += rng.uniform(0.2, 0.7)
    signal = span.place(parts)
    return signal, "a bird trilling" if trill else "a bird chirping"


def cricket(rng: np.random.Generator, span: synthesis.Span) -> Made:
    """Returns a cricket: pulses of one high tone, and a caption."""
    times = span.times
    carrier = min(rng.uniform(3500.0, 5000.0), 0.42 * span.sample_rate)
    pulses = np.maximum(np.sin(2.0 * np.pi * rng.uniform(25.0, 40.0) * times), 0.0) ** 0.7
    chirps = (times * rng.uniform(1.5, 3.0) + rng.uniform()) % 1.0 < rng.uniform(0.35, 0.6)
    tone = np.sin(2.0 * np.pi * carrier * times)
    signal = tone * pulses * gestures.gate(chirps, span.sample_rate)
    return signal, "a cricket chirping at night"


def dog(rng: np.random.Generator, span: synthesis.Span) -> Made:
    """Returns a dog's barks: a glide through formants, and a caption."""
    large = bool(rng.uniform() < 0.5)
    pitch = rng.uniform(140.0, 220.0) if large else rng.uniform(380.0, 600.0)
    formants = np.array([500.0, 1100.0, 2400.0]) * (0.9 if large else 1.4)
    count = int(rng.integers(2, 6))
    parts, start = [], 0.1
    for _ in range(count):
        length = rng.uniform(0.12, 0.2)
        part = span.part(length)
        times = part.times / length
        rise = 1.0 + 0.6 * np.sin(np.pi * np.minimum(1.4 * times, 1.0))
        glide = pitch * rise * rng.uniform(0.95, 1.05)
        frequencies = pitch * np.arange(1, 40)
        distances = (frequencies[:, None] - formants) / (0.22 * formants)
        harmonics = np.exp(-0.5 * distances**2) @ np.array([1.0, 0.7, 0.3])
        bark = part.oscillator(glide, harmonics=harmonics)
        rough = part.band_noise(rng, formants[0], formants[1], 2.0)
        bark = bark / max(float(np.max(np.abs(bark))), 1e-9) + 0.2 * rough
        parts.append((start, bark * np.minimum(times / 0.08, 1.0) * (1.0 - times) ** 0.8))
        start += rng.uniform(0.3, 0.6)
    signal = span.part(start + 0.2).place(parts)
    times_word = numerals.words(count, language="en")
    return signal, f"a {'large' if large else 'small'} dog barks {times_word} times"
