# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""DNSMOS by its graphs, beside what its own package says."""

import numpy as np
import pytest

from f3tok_jax.evaluation.judges import judge
from f3tok_jax.evaluation.judges import naturalness
from tests.support import sounds

_missing = naturalness.Dnsmos.package.missing()


@pytest.mark.skipif(bool(_missing), reason=_missing or "it is here")
@pytest.mark.parametrize(
    "seconds, wanted",
    [
        # By speechmos 0.0.1.1 with librosa 0.11 and onnxruntime 1.32: repeated, and in two windows.
        (2.0, dict(p808=2.2129064, signal=1.8390257, background=3.0078754, overall=1.5366338)),
        (10.3, dict(p808=2.2395847, signal=1.7668007, background=3.0496097, overall=1.5156717)),
    ],
)
def test_opinions_are_those_of_the_package(seconds, wanted):
    found = naturalness.Dnsmos()(sounds.speechlike(seconds), judge.RATE)
    assert not found.undefined
    # Products of float32 on other machines.
    assert found.values == pytest.approx(wanted, abs=1e-3)


def test_levels_are_relative_to_the_loudest_band_and_end_80_db_below_it():
    window = np.zeros(144_160, np.float32)
    # Nothing is below nothing.
    np.testing.assert_allclose(naturalness._features(window), 1.0, atol=1e-5)
    window[1000:3000] = np.sin(2 * np.pi * 1000 * np.arange(2000) / judge.RATE)
    features = naturalness._features(window)
    assert features.shape == (1, 900, 120) and features.dtype == np.float32
    assert features.max() == pytest.approx(1.0) and features.min() == pytest.approx(-1.0)
    np.testing.assert_allclose(naturalness._features(0.1 * window), features, atol=1e-4)
