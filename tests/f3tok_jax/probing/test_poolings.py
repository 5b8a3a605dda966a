# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Poolings of frames over time."""

import numpy as np
import pytest

from f3tok_jax.probing import poolings


def test_pooling():
    frames = np.arange(24, dtype=np.float32).reshape(8, 3)
    np.testing.assert_allclose(poolings.pool(frames, "mean"), frames.mean(0))
    np.testing.assert_allclose(poolings.pool(frames, "mean_std"), [*frames.mean(0), *frames.std(0)])
    thirds = poolings.pool(frames[:6], "thirds")
    np.testing.assert_allclose(thirds, frames[:6].reshape(3, 2, 3).mean(1).ravel())
    np.testing.assert_allclose(poolings.pool(frames[:1], "thirds"), np.tile(frames[0], 3))


def test_attention_chooses_between_parts_of_equal_time():
    frames = np.arange(64 * 2, dtype=np.float32).reshape(64, 2)
    parts = poolings.pool(frames, "attentive")
    np.testing.assert_allclose(parts, frames.reshape(32, 2, 2).mean(1))
    few = poolings.pool(frames[:3], "attentive")
    assert few.shape == (32, 2) and (np.diff(few[:, 0]) >= 0).all()
    np.testing.assert_allclose(few[[0, -1]], frames[[0, 2]])


@pytest.mark.parametrize("names", [[], ["max"], ["mean", "mean"]])
def test_other_poolings_are_refused(names):
    with pytest.raises(ValueError, match="--pooling must be different ones of mean, mean_std"):
        poolings.check(names)
