# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The representation encoder sees no future, and a stream of it is the whole."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.models import bottleneck
from f3tok_jax.models import representation_encoder
from tests.support import tiny_models

_FIELDS = tiny_models.TRANSFORMER | dict(
    num_layers=2,
    width=32,
    hidden_width=48,
    num_heads=4,
    num_kv_heads=2,
    latent_dim=8,
    window=6,
    input_noise=0.5,
)
_TIME = 20


@functools.lru_cache
def _built(**changes):
    """An encoder, its parameters, and its call, compiled."""
    encoder = representation_encoder.RepresentationEncoder(**(_FIELDS | changes))
    variables = nn.unbox(jax.jit(encoder.init)(jax.random.key(0), jnp.zeros((1, 2, 8))))
    return encoder, variables, jax.jit(encoder.apply)


def _latents(seed=0, batch=2) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, _TIME, 8)).astype(np.float32)


def test_what_comes_later_changes_no_bit_of_what_was():
    _, variables, apply = _built()
    latents = _latents()
    whole = np.asarray(apply(variables, latents))
    assert whole.shape == (2, _TIME, 32)
    for t in (0, 7, 18):
        changed = latents.copy()
        changed[:, t + 1 :] = 100.0 * _latents(1)[:, t + 1 :]
        other = np.asarray(apply(variables, changed))
        np.testing.assert_array_equal(other[:, : t + 1], whole[:, : t + 1])
        assert (other[:, t + 1] != whole[:, t + 1]).any()


def test_the_window_is_all_it_remembers():
    _, variables, apply = _built(num_layers=1)
    latents = _latents()
    whole = np.asarray(apply(variables, latents))
    changed = latents.copy()
    changed[:, :10] += 1.0
    other = np.asarray(apply(variables, changed))
    np.testing.assert_array_equal(other[:, 15:], whole[:, 15:])  # sees itself and five before
    assert (other[:, 14] != whole[:, 14]).any()


@pytest.mark.parametrize("window, chunks", [(6, (7, 7, 6)), (6, (1,) * 20), (0, (3,) * 6 + (2,))])
def test_a_stream_is_the_whole(window, chunks):
    encoder, variables, apply = _built(window=window)
    latents = _latents()
    step = jax.jit(functools.partial(encoder.apply, method="step"))
    cache, parts, start = encoder.initial_cache(2, max_length=_TIME), [], 0
    for size in chunks:
        part, cache = step(variables, latents[:, start : start + size], cache)
        parts.append(part)
        start += size
    # The order of float32 sums is all that differs.
    np.testing.assert_allclose(np.concatenate(parts, 1), apply(variables, latents), atol=1e-4)


def test_packed_examples_do_not_see_each_other():
    _, variables, apply = _built()
    latents = _latents(batch=1)
    segments = np.array([[1] * 7 + [2] * 9 + [0] * 4], np.int32)
    packed = np.asarray(apply(variables, latents, segments=segments))
    changed = latents.copy()
    changed[:, :7] += 1.0
    changed[:, 16:] = 9.0
    other = np.asarray(apply(variables, changed, segments=segments))
    np.testing.assert_array_equal(packed[:, 7:16], other[:, 7:16])
    alone = np.asarray(apply(variables, np.roll(latents, -7, axis=1)))
    np.testing.assert_allclose(packed[:, 7:16], alone[:, :9], atol=1e-4)


def test_noise_is_on_the_input_of_training_alone_and_of_one_strength_per_example():
    _, variables, apply = _built()
    latents = _latents()
    clean, noisy = (apply(variables, latents, noise_key=key) for key in (None, jax.random.key(1)))
    assert np.abs(np.asarray(clean) - noisy).max() > 0.01
    zeros = jnp.zeros((64, 50, 40))
    segments = jnp.asarray(np.repeat([[1, 2]], 64, 0).repeat(25, 1).astype(np.int32))
    perturb = functools.partial(bottleneck.perturb, gamma=0.5)
    for given in (None, segments):
        noise = np.asarray(perturb(zeros, jax.random.key(2), segments=given))
        rms = np.sqrt((noise**2).mean(-1).reshape(64, 2, 25).mean(-1))
        assert 0 <= rms.min() < 0.05 and 0.45 < rms.max() < 0.53
        assert rms.mean() == pytest.approx(0.25, abs=0.05)  # three standard errors
        spread = np.abs(rms[:, 0] - rms[:, 1])
        # 1000 draws per estimate; of two strengths the mean difference is a third of the range.
        assert spread.mean() < 0.02 if given is None else spread.mean() > 0.1


def test_examples_that_share_a_row_have_noise_of_a_strength_each():
    _, variables, apply = _built()
    latents, key = _latents(), jax.random.key(1)
    segments = jnp.asarray(1 + (np.arange(latents.shape[1]) >= latents.shape[1] // 2))
    segments = jnp.broadcast_to(segments[None], latents.shape[:2]).astype(jnp.int32)
    noisy = bottleneck.perturb(latents, key, gamma=0.5, segments=segments)
    np.testing.assert_allclose(
        apply(variables, latents, segments=segments, noise_key=key),
        apply(variables, noisy, segments=segments),
        atol=1e-5,
    )


@pytest.mark.parametrize(
    "changes, shape, message",
    [
        (dict(input_noise=-0.1), (1, 4, 8), "input_noise must not be negative, got -0.1"),
        (dict(latent_dim=0), (1, 4, 8), "latent_dim must be at least 1"),
        (dict(), (1, 4, 9), r"takes latents \[b, t, 8\], got \[1, 4, 9\]"),
        (dict(num_kv_heads=3), (1, 4, 8), "num_heads=4 must be a multiple of num_kv_heads=3"),
    ],
)
def test_what_does_not_fit_is_refused(changes, shape, message):
    encoder = representation_encoder.RepresentationEncoder(**(_FIELDS | changes))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros(shape))


def test_the_presets_have_the_published_sizes():
    fields = dict(num_layers=12, width=768, hidden_width=2048, num_heads=12, num_kv_heads=12)
    base = representation_encoder.RepresentationEncoder(
        **(_FIELDS | fields | dict(latent_dim=64, head_dim=64, window=250))
    )
    shapes = jax.eval_shape(base.init, jax.random.key(0), jnp.zeros((1, 2, 64)))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert count == pytest.approx(85e6, rel=0.01)
