# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Gestures that many sound events share: bursts of noise, gusts, gates, irregular repetition."""

import numpy as np

from data_pipelines.embedded import synthesis


def burst(
    rng: np.random.Generator,
    span: synthesis.Span,
    *,
    seconds: float,
    band: tuple[float, float],
    decay: float,
) -> np.ndarray:
    """Returns a decaying burst of noise in a band, Hz, at a span's rate, peak about 1."""
    rate = span.sample_rate
    span = synthesis.Span(max(int(seconds * rate), 8), rate)
    level = np.exp(-np.arange(span.num_samples) / (decay * rate))
    return 0.35 * span.band_noise(rng, *band) * level


def gust(rng: np.random.Generator, span: synthesis.Span, rate: float) -> np.ndarray:
    """Returns a slowly moving level, 0.1 to about 1."""
    return 0.1 + 0.9 / (1.0 + np.exp(-1.5 * span.slow_random(rng, rate)))


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
