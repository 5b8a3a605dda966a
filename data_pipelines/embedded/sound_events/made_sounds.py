# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sounds that people and machines make.

Each function takes (rng, span) and returns (signal of any level, caption).
"""

import numpy as np

from data_pipelines.embedded import synthesis
from data_pipelines.embedded.sound_events import gestures
from data_pipelines.embedded.speech import numerals

Made = tuple[np.ndarray, str]


def engine(rng: np.random.Generator, span: synthesis.Span) -> Made:
    """Returns a combustion engine: harmonics of the firing rate and rattle, and a caption."""
    times = span.times
    accelerating = bool(rng.uniform() < 0.5)
    firing = rng.uniform(25.0, 60.0) * (
        1.0 + (times / times[-1] * rng.uniform(0.5, 1.5) if accelerating else 0.0)
    )
    firing = firing * (1.0 + 0.01 * span.slow_random(rng, 8.0))
    numbers = np.arange(1, 40)
    harmonics = rng.uniform(0.5, 1.0, len(numbers)) / numbers**0.8 * np.exp(-numbers / 25.0)
    tone = span.oscillator(firing, harmonics=harmonics)
    # Half the firing rate: no two cylinders are alike.
    tone += 0.4 * span.oscillator(0.5 * firing, harmonics=harmonics[:9])
    rattle = span.band_noise(rng, 300.0, 2500.0, 1.0)
    signal = tone + 0.25 * rattle * (0.5 + np.abs(tone) / np.max(np.abs(tone)))
    return signal, "an engine speeding up" if accelerating else "an engine idling"


def siren(rng: np.random.Generator, span: synthesis.Span) -> Made:
    """Returns a siren that sweeps or changes between two tones, and a caption."""
    times = span.times
    two_tones = bool(rng.uniform() < 0.5)
    phase = times * rng.uniform(0.4, 1.2) + rng.uniform()
    low, high = rng.uniform(400.0, 600.0), rng.uniform(700.0, 1300.0)
    sweep = 0.5 - 0.5 * np.cos(2.0 * np.pi * phase)
    if two_tones:
        sweep = (phase % 1.0 > 0.5).astype(float)
    harmonics = np.array([1.0, 0.3, 0.4, 0.15, 0.2])
    signal = span.oscillator(low + (high - low) * sweep, harmonics=harmonics)
    return signal, "a siren with two tones" if two_tones else "a wailing siren"


def footsteps(rng: np.random.Generator, span: synthesis.Span) -> Made:
    """Returns walking or running: a heel, then a toe or grains of gravel, and a caption."""
    running = bool(rng.uniform() < 0.4)
    gravel = bool(rng.uniform() < 0.5)
    gait = "running" if running else "walking"
    per_second = rng.uniform(2.5, 3.5) if running else rng.uniform(1.3, 2.0)
    hiss, parts = (1500.0 if gravel else 500.0, 5000.0), []
    for start in gestures.starts(rng, span.seconds, per_second=per_second, jitter=0.03):
        level = rng.uniform(0.6, 1.0)
        heel = gestures.burst(rng, span, seconds=0.12, band=(60.0, 350.0), decay=0.02)
        parts.append((start, level * heel))
        for toe in np.sort(rng.uniform(0.03, 0.13, 12 if gravel else 1)):
            grain = gestures.burst(rng, span, seconds=0.05, band=hiss, decay=0.008)
            parts.append((start + toe, level * rng.uniform(0.15, 0.5) * grain))
    signal = span.place(parts)
    return signal, f"{gait} steps on {'gravel' if gravel else 'a wooden floor'}"


def clock(rng: np.random.Generator, span: synthesis.Span) -> Made:
    """Returns a ticking clock, tick and tock, and a caption."""
    per_second = float(rng.choice((1.0, 2.0, 4.0)))
    pitches = rng.uniform(1800.0, 3500.0) * np.array([[1.0, 1.7, 2.3], [0.85, 1.5, 1.9]])
    parts = []
    starts = gestures.starts(rng, span.seconds, per_second=per_second, jitter=0.001)
    for position, start in enumerate(starts):
        tick = span.part(0.06).modes(
            pitches[position % 2],
            amplitudes=np.array([1.0, 0.6, 0.4]),
            decay_times=np.array([0.006, 0.004, 0.003]),
        )
        parts.append((start, tick))
    signal = span.place(parts)
    times_a_second = {1.0: "once", 2.0: "twice", 4.0: "four times"}[per_second]
    return signal, f"a clock ticking {times_a_second} a second"


def knock(rng: np.random.Generator, span: synthesis.Span) -> Made:
    """Returns knocks on a door panel, and a caption."""
    count = int(rng.integers(2, 6))
    gap = rng.uniform(0.15, 0.26)
    frequencies = rng.uniform(110.0, 180.0) * np.array([1.0, 1.9, 2.8, 4.1])
    parts = []
    for position in range(count):
        panel = span.part(0.25).modes(
            frequencies,
            amplitudes=np.array([1.0, 0.7, 0.4, 0.2]) * rng.uniform(0.8, 1.2, 4),
            decay_times=np.array([0.035, 0.03, 0.02, 0.012]),
        )
        contact = gestures.burst(rng, span, seconds=0.02, band=(500.0, 3000.0), decay=0.003)
        panel[: len(contact)] += 0.5 * contact
        start = 0.15 + position * gap + rng.normal(0.0, 0.008)
        parts.append((start, rng.uniform(0.7, 1.0) * panel))
    signal = span.part(0.15 + count * gap + rng.uniform(0.3, 0.8)).place(parts)
    return signal, f"{numerals.words(count, language='en')} knocks on a door"


def alarm(rng: np.random.Generator, span: synthesis.Span) -> Made:
    """Returns a beeping alarm, and a caption."""
    times = span.times
    fast = bool(rng.uniform() < 0.5)
    pitch = rng.uniform(900.0, 2400.0)
    tone = span.oscillator(pitch, harmonics=np.array([1.0, 0.0, 0.33, 0.0, 0.2]))
    on = (times * (4.0 if fast else 1.5)) % 1.0 < 0.5
    signal = tone * gestures.gate(on, span.sample_rate)
    return signal, f"an alarm beeping {'fast' if fast else 'slowly'}"


def telephone(rng: np.random.Generator, span: synthesis.Span) -> Made:
    """Returns a mechanical telephone bell, and a caption."""
    frequencies = rng.uniform(850.0, 1250.0) * np.array([1.0, 1.26, 2.51, 3.8])
    gong = span.part(0.5).modes(
        frequencies, amplitudes=np.array([1.0, 0.8, 0.4, 0.2]), decay_times=np.full(4, 0.12)
    )
    strokes = np.zeros(span.num_samples)  # the clapper, 20 to 26 times a second, 1 s on, 0.6 s off
    starts = np.arange(0.05, span.seconds, 1.0 / rng.uniform(20.0, 26.0))
    strokes[(starts[starts % 1.6 < 1.0] * span.sample_rate).astype(int)] = 1.0
    return synthesis.convolve(strokes, gong), "an old telephone ringing"


def hum(rng: np.random.Generator, span: synthesis.Span) -> Made:
    """Returns a transformer's hum, and a caption."""
    mains = float(rng.choice((50.0, 60.0)))
    harmonics = np.zeros(24)
    # A transformer hums at twice the mains.
    harmonics[1::2] = rng.uniform(0.3, 1.0, 12) / np.arange(1, 13)
    tone = span.oscillator(mains, harmonics=harmonics)
    hiss = span.band_noise(rng, 200.0, 2000.0, 1.0)
    return tone + 0.05 * hiss, "the hum of an electric machine"


def applause(rng: np.random.Generator, span: synthesis.Span) -> Made:
    """Returns hands that clap, each person at an own pace, and a caption."""
    large = bool(rng.uniform() < 0.5)
    duration = span.seconds
    people = int(rng.integers(60, 150)) if large else int(rng.integers(4, 10))
    claps = np.zeros((4, span.num_samples))  # four kinds of hands
    for person in range(people):
        pace = rng.uniform(2.5, 5.0)
        starts = gestures.starts(rng, duration, per_second=pace, jitter=0.1)
        starts += rng.uniform(-0.2, 0.2)
        positions = (starts[(starts > 0.0) & (starts < duration)] * span.sample_rate).astype(int)
        claps[person % 4, np.minimum(positions, span.num_samples - 1)] += rng.uniform(0.2, 1.0)
    signal = np.zeros(span.num_samples)
    for hits in claps:
        centre = rng.uniform(900.0, 2200.0)
        band = (0.7 * centre, 1.6 * centre)
        hand = gestures.burst(rng, span, seconds=0.04, band=band, decay=0.006)
        signal += synthesis.convolve(hits, hand)
    return signal, "a large crowd clapping" if large else "a few people clapping"


def glass(rng: np.random.Generator, span: synthesis.Span) -> Made:
    """Returns a glass struck once or a few times, and a caption."""
    count = int(rng.integers(1, 4))
    parts = []
    for position in range(count):
        frequencies = rng.uniform(1300.0, 2300.0) * np.array([1.0, 2.32, 4.25, 6.63])
        ring = span.part(1.2).modes(
            frequencies,
            amplitudes=np.array([1.0, 0.7, 0.4, 0.2]),
            decay_times=rng.uniform(0.15, 0.5) / np.array([1.0, 1.5, 2.5, 4.0]),
        )
        parts.append((0.05 + position * rng.uniform(0.3, 0.7), rng.uniform(0.6, 1.0) * ring))
    length = min(span.num_samples, int(3.0 * span.sample_rate))
    signal = synthesis.Span(length, span.sample_rate).place(parts)
    return signal, "a glass clinking once" if count == 1 else "glasses clinking"
