# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Gestures that many sound events share: bursts of noise, gusts, gates, irregular repetition."""

import numpy as np

from data_pipelines.embedded import synthesis


def times(num_samples: int, sample_rate: int) -> np.ndarray:
    """Returns the time of each sample, s."""
    return np.arange(num_samples) / sample_rate


def band_noise(
    rng: np.random.Generator,
    num_samples: int,
    sample_rate: int,
    low: float,
    high: float,
    slope: float = 4.0,
) -> np.ndarray:
    """Returns noise of rms 1 between two edges, Hz."""
    response = synthesis.band(low, high, slope=slope)
    return synthesis.noise(rng, num_samples=num_samples, sample_rate=sample_rate, response=response)


def burst(
    rng: np.random.Generator,
    sample_rate: int,
    *,
    duration: float,
    low: float,
    high: float,
    decay_time: float,
) -> np.ndarray:
    """Returns a decaying burst of band noise, peak about 1."""
    count = max(int(duration * sample_rate), 8)
    sound = band_noise(rng, count, sample_rate, low, high)
    return 0.35 * sound * np.exp(-np.arange(count) / (decay_time * sample_rate))


def gust(rng: np.random.Generator, num_samples: int, sample_rate: int, rate: float) -> np.ndarray:
    """Returns a slowly moving level, 0.1 to about 1."""
    curve = synthesis.slow_random(rng, num_samples=num_samples, sample_rate=sample_rate, rate=rate)
    return 0.1 + 0.9 / (1.0 + np.exp(-1.5 * curve))


def gate(on: np.ndarray, sample_rate: int) -> np.ndarray:
    """Returns 1 where `on` and 0 elsewhere, with edges of 4 ms so that nothing clicks."""
    edge = np.ones(max(int(0.004 * sample_rate), 1))
    return synthesis.convolve(on.astype(float), edge / len(edge))


def starts(
    rng: np.random.Generator, duration: float, *, per_second: float, jitter: float
) -> np.ndarray:
    """Returns the start times, s, of a regular event with a human or mechanical irregularity."""
    count = max(int(duration * per_second), 2)
    regular = (np.arange(count) + 0.2) / per_second
    return regular + jitter / per_second * rng.standard_normal(count)
