# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The bottleneck's mathematics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.models import bottleneck


def _bottleneck(**changes):
    return bottleneck.F3(**(dict(normalize=True, perturb=True, gamma=1.0, epsilon=1e-5) | changes))


def _encoded(shape=(4, 50, 64)):
    return 3.0 + 5.0 * jax.random.normal(jax.random.key(0), shape)


def _noisy(kind, latents, key):
    return kind.noisy(latents, key, encoded=latents, mask=jnp.ones(latents.shape[:2], bool))


def test_every_frame_has_mean_0_and_rms_1():
    latents = _bottleneck().clean(_encoded())
    assert np.abs(np.mean(latents, axis=-1)).max() < 1e-5
    assert np.abs(np.std(latents, axis=-1) - 1).max() < 1e-3


def test_constant_frame_has_finite_value_and_gradient():
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(_bottleneck().clean(x) ** 2))(
        jnp.full((1, 2, 8), 0.3)
    )
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_equals_dividing_by_the_deviation():
    encoded = np.asarray(_encoded(), np.float64)
    expected = (encoded - encoded.mean(-1, keepdims=True)) / encoded.std(-1, keepdims=True)
    # epsilon 1e-5 against a variance of about 25.
    np.testing.assert_allclose(_bottleneck().clean(_encoded()), expected, atol=1e-5)


def test_noise_has_one_uniform_alpha_per_example():
    latents = jnp.zeros((2000, 100, 16))
    noise = np.asarray(_noisy(_bottleneck(gamma=0.5), latents, jax.random.key(1)))
    alphas = noise.std(axis=(1, 2))
    assert 0 <= alphas.min() < 0.01 and 0.48 < alphas.max() < 0.52
    # Uniform on [0, 0.5]: mean 0.25 with standard error 0.003.
    assert alphas.mean() == pytest.approx(0.25, abs=0.012)
    # One alpha over the whole example: both halves are equally loud.
    halves = noise[:, :50].std(axis=(1, 2)) / noise[:, 50:].std(axis=(1, 2))
    assert np.abs(halves - 1).max() < 0.15


def test_noise_is_off_by_switch():
    latents = _bottleneck().clean(_encoded())
    assert _noisy(_bottleneck(perturb=False), latents, jax.random.key(0)) is latents


def test_without_normalization_latents_pass_unchanged():
    np.testing.assert_array_equal(_bottleneck(normalize=False).clean(_encoded()), _encoded())


@pytest.mark.parametrize("change", [dict(gamma=-0.1), dict(epsilon=0.0), dict(gamma=float("nan"))])
def test_impossible_values_are_refused(change):
    (name,) = change
    with pytest.raises(ValueError, match=f"config.bottleneck.{name} must"):
        _bottleneck(**change)
