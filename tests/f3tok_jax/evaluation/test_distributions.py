# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Moments, the Frechet distance and log spectra, where the answers are known."""

import numpy as np
import pytest

from f3tok_jax.evaluation import distributions


def test_moments_do_not_depend_on_the_parts():
    vectors = np.random.default_rng(0).normal(size=(50, 3)) + 2.0
    parts = distributions.Moments(3)
    for part in np.array_split(vectors, 4):
        parts.add(part)
    # Sums of 50 numbers in float64.
    np.testing.assert_allclose(parts.mean, vectors.mean(0), rtol=1e-12)
    np.testing.assert_allclose(parts.covariance, np.cov(vectors.T, bias=True), rtol=1e-10)


def test_frechet_distance_of_gaussians():
    rng = np.random.default_rng(0)
    one = distributions.moments_of(rng.normal(size=(200_000, 2)) * (1.0, 2.0))
    other = distributions.moments_of(rng.normal(size=(200_000, 2)) * (3.0, 2.0) + (0.0, 5.0))
    # Means 5 apart, standard deviations 1 and 3: 25 + (3 - 1)^2. The sample's error is about 0.03.
    assert distributions.frechet_distance(one, other) == pytest.approx(29.0, abs=0.2)
    assert distributions.frechet_distance(one, one) == pytest.approx(0.0, abs=1e-9)


def test_log_spectrum_of_a_sine():
    time = np.arange(16_000) / 16_000
    spectrum = distributions.log_spectrum(np.sin(2 * np.pi * 1000 * time), sample_rate=16_000)
    assert spectrum.shape == (125, 257)
    assert spectrum[60].argmax() == 32  # of 31.25 Hz
    # The sum of a Hann window is two hops: half of it for each sign of the frequency.
    assert spectrum[60].max() == pytest.approx(0.0, abs=0.01)
    assert spectrum[60].min() == -4.0
