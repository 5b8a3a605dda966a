# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Frames of a cut are those of the whole where they are said to be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.models import edges
from f3tok_jax.models import rq_mtp
from tests.support import tiny_models

_PER_LATENT = 640


def test_frames_need_what_lies_beyond_a_cut_and_not_what_lies_beyond_a_recording():
    found = edges.true_frames(
        jnp.array([60, 60, 60, 55, 60]),
        7,
        jnp.array([True, False, True, True, False]),
        jnp.array([True, True, False, False, False]),
        samples_per_latent=10,
        before=12,
        after=5,
    )
    expected = [
        [1, 1, 1, 1, 1, 1, 1],
        [0, 0, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0, 0],  # the fifth hears up to the last sample
        [0, 0, 1, 1, 1, 0, 0],
    ]
    np.testing.assert_array_equal(found, expected)


def _latents(waveform: np.ndarray) -> tuple[np.ndarray, int, int]:
    model, variables = tiny_models.built()
    encode = jax.jit(lambda x: model.apply(variables, x, method="waveform_to_latents"))
    return np.asarray(encode(waveform)), model.encoder_history, model.encoder_lookahead


def _log_mel(waveform: np.ndarray) -> tuple[np.ndarray, int, int]:
    frames = rq_mtp.log_mel_frames(
        waveform, sample_rate=16_000, samples_per_latent=_PER_LATENT, num_mels=20
    )
    reach = rq_mtp.log_mel_reach(_PER_LATENT)
    return np.asarray(frames), reach, reach


@pytest.mark.parametrize("frames_of", [_latents, _log_mel])
@pytest.mark.parametrize("kept", [8 * _PER_LATENT, 8 * _PER_LATENT - 500, 8 * _PER_LATENT - 10])
def test_frames_that_are_said_to_be_true_are_those_of_the_whole(frames_of, kept):
    whole = 0.3 * np.random.default_rng(0).normal(size=(1, 20 * _PER_LATENT)).astype(np.float32)
    start = 9 * _PER_LATENT
    part = whole[:, start : start + kept]
    expected, before, after = frames_of(whole)
    found, _, _ = frames_of(part)
    is_true = edges.true_frames(
        jnp.array([kept]), found.shape[1], jnp.array([False]), jnp.array([False]),
        samples_per_latent=_PER_LATENT, before=before, after=after,
    )[0]  # fmt: skip
    differs = np.abs(found[0] - expected[0, 9 : 9 + found.shape[1]]).max(-1)
    assert is_true.any() and (differs[is_true] < 1e-5).all(), differs
    # The first and the last are not, nor is any that the cut has touched.
    assert not is_true[0] and not is_true[-1]
    assert differs[0] > 1e-2 and differs[-1] > 1e-4, differs
