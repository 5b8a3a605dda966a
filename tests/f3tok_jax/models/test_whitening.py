# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Whitened frames have variance 1 and no correlation, and use more of a quantizer's codes."""

import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.models import rq_mtp
from f3tok_jax.models import whitening


def _frames(seed=0, decay=0.7) -> np.ndarray:
    """Latents of few directions: [4, 1000, 16]."""
    draw = np.random.default_rng(seed)
    mix = np.random.default_rng(9).standard_normal((16, 16)) * decay ** np.arange(16)[:, None]
    return (draw.standard_normal((4, 1000, 16)) @ mix + 0.5).astype(np.float32)


def _measured(frames, mask):
    parts = [whitening.measure(frames[i : i + 2], mask[i : i + 2]) for i in (0, 2)]
    return [np.add(*pair) for pair in zip(*parts)]


def test_whitened_frames_are_white():
    frames = _frames(decay=0.85)  # float32 sums hold its smallest variances to 0.1 %
    mask = np.random.default_rng(1).uniform(size=(4, 1000)) < 0.8
    hurt = np.where(mask[..., None], frames, np.nan)
    mean, matrix = whitening.finish(_measured(hurt, mask), floor=1e-9)
    np.testing.assert_allclose(mean, frames[mask].mean(0), atol=1e-4)
    white = (frames[mask] - mean) @ matrix
    np.testing.assert_allclose(np.cov(white.T), np.eye(16), atol=0.01)  # float32 sums
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-4 * np.abs(matrix).max())


def test_the_floor_keeps_noise_small():
    frames = _frames()
    frames[..., -1] = 1e-6 * np.random.default_rng(2).standard_normal((4, 1000))
    mean, matrix = whitening.finish(_measured(frames, np.ones((4, 1000), bool)))
    white = (frames - mean) @ matrix
    assert white.std(axis=(0, 1))[-1] < 0.01
    assert np.isfinite(matrix).all()


def test_leading_directions_are_white_and_the_others_are_not_heard():
    frames = _frames(decay=0.85)
    sums = _measured(frames, np.ones((4, 1000), bool))
    mean, matrix = whitening.finish(sums, directions=3, floor=1e-9)
    white = (frames - mean).reshape(-1, 16) @ matrix
    variances, axes = np.linalg.eigh(np.cov(white.T))
    np.testing.assert_allclose(variances, [0.0] * 13 + [1.0] * 3, atol=0.01)
    # What lies outside of the three directions of most variance decides nothing.
    _, vectors = np.linalg.eigh(np.cov((frames - mean).reshape(-1, 16).T))
    np.testing.assert_allclose(np.abs(vectors[:, :13].T @ matrix), 0.0, atol=1e-2)
    whole = whitening.finish(sums, directions=16)
    np.testing.assert_array_equal(whole[1], whitening.finish(sums)[1])
    for directions in (-1, 17):
        with pytest.raises(ValueError, match="must be 1 to 16, .* or 0 for all, got"):
            whitening.finish(sums, directions=directions)


def test_codes_in_use_are_more():
    frames, segments = jnp.asarray(_frames()), np.ones((4, 1000), np.int32)
    table = rq_mtp.make_table(0, input_dim=16, num_codebooks=4, codebook_size=64)
    mean, std = rq_mtp.finish_statistics(rq_mtp.measure_statistics(frames, segments > 0))
    white_mean, matrix = whitening.finish(whitening.measure(frames, segments > 0))
    np.testing.assert_allclose(white_mean, mean, atol=1e-6)
    standard = rq_mtp.standardize(frames, mean, std, epsilon=0.0)
    whitened_table = whitening.into_table(matrix, std, table)
    found = rq_mtp.codes_of(standard, whitened_table, num_codebooks=4)
    direct = (np.asarray(frames, np.float64) - mean) @ matrix @ table.astype(np.float64)
    same = direct.reshape(4, 1000, 4, 64).argmax(-1) == np.asarray(found)
    assert same.mean() > 0.999  # float32 may decide a draw otherwise

    def in_use(table):
        labels = rq_mtp.codes_of(standard, table, num_codebooks=4)
        return np.asarray(rq_mtp.perplexity(rq_mtp.code_usage(labels, segments, codebook_size=64)))

    assert (in_use(whitened_table) > 1.2 * in_use(table)).all()


def test_statistics_of_nothing_are_refused():
    frames = _frames()
    with pytest.raises(ValueError, match="whitening needs finite values"):
        whitening.finish(whitening.measure(frames * np.nan, np.ones((4, 1000), bool)))
    for few in (0, 159):
        mask = np.arange(4000).reshape(4, 1000) < few
        with pytest.raises(whitening.TooFewFramesError, match=f"at least 160 valid .* got {few}"):
            whitening.finish(whitening.measure(frames, mask))
    mask = np.arange(4000).reshape(4, 1000) < 160
    assert np.isfinite(whitening.finish(whitening.measure(frames, mask))[1]).all()
