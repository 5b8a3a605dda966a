# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""All discriminators side by side: shapes, gradients, what they ignore and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import autoencoder as recipe
from f3tok_jax.models.discriminators import discriminators
from tests.support import noise


@pytest.mark.parametrize(
    "preset, samples, parameters", [("tiny", 10_240, 250_053), ("base", 30_720, 13_508_104)]
)
def test_shapes_and_parameter_counts_of_the_presets(preset, samples, parameters):
    section = recipe.get_config(preset).discriminators
    module = discriminators.Discriminators(**section)
    waveform = jax.ShapeDtypeStruct((2, samples), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), waveform)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == parameters
    outputs = jax.eval_shape(module.apply, variables, waveform)
    assert len(outputs) == len(section.periods) + len(section.stft_windows)
    for maps in outputs:
        assert maps[-1].dtype == jnp.float32 and maps[-1].shape[-1] == 1
        assert {leaf.dtype for leaf in maps[:-1]} == {jnp.dtype(section.compute_dtype)}
        assert {leaf.shape[0] for leaf in maps} == {2}
    num_bands = len(section.stft_bands) - 1
    assert [len(maps) for maps in outputs] == (
        [len(section.period_channels) + 1] * len(section.periods)
        + [3 * num_bands + 1] * len(section.stft_windows)
    )


@pytest.fixture(scope="module")
def small():
    """A small pair of both kinds: its function, its parameters and the module."""
    module = discriminators.Discriminators(
        periods=(2, 3),
        period_fold=3,
        period_channels=(8, 8),
        stft_windows=(64, 32),
        stft_bands=(0.0, 0.25, 1.0),
        stft_fold=4,
        stft_channels=8,
    )
    return (
        jax.jit(module.apply),
        jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 320))),
        module,
    )


def test_gradients_are_finite_and_bounded_at_silence(small):
    discriminate, params, _ = small

    @jax.jit
    def gradient(waveform):
        return jax.grad(
            lambda p, x: sum(jnp.mean((maps[-1] - 1) ** 2) for maps in discriminate(p, x)),
            argnums=(0, 1),
        )(params, waveform)

    for scale in (0.0, 1e-12, 1.0):
        for leaf in jax.tree.leaves(gradient(scale * noise.waveform(2, 320))):
            assert np.all(np.isfinite(leaf))
            # The peak's floor bounds the gain by 800.
            assert np.max(np.abs(leaf)) < 1e3


def test_the_result_is_deterministic_and_ignores_level_and_offset(small):
    discriminate, params, _ = small
    waveform = noise.waveform(2, 320)
    first, again = discriminate(params, waveform), discriminate(params, waveform)
    louder = discriminate(params, 3.0 * waveform + 0.2)
    for one, two, three in zip(first, again, louder):
        np.testing.assert_array_equal(one[-1], two[-1])
        np.testing.assert_allclose(
            one[-1], three[-1], atol=1e-4
        )  # rounding of the offset's removal


def test_preparation_removes_the_mean_and_scales_the_peak():
    prepared = np.asarray(discriminators.prepare(noise.waveform(3, 1000) + 0.3))
    np.testing.assert_allclose(prepared.mean(axis=1), 0.0, atol=1e-6)
    np.testing.assert_allclose(np.abs(prepared).max(axis=1), 0.8, rtol=1e-6)


def test_examples_do_not_reach_each_other(small):
    discriminate, params, _ = small
    waveform = noise.waveform(2, 320)
    changed = waveform.copy()
    changed[1] *= np.linspace(-1, 1, 320)
    for one, two in zip(discriminate(params, waveform), discriminate(params, changed)):
        np.testing.assert_allclose(one[-1][0], two[-1][0], atol=1e-6)
        assert np.any(np.abs(one[-1][1] - two[-1][1]) > 1e-4)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(stft_bands=(0.0, 0.01, 1.0)), "at least one of the"),
        (dict(stft_windows=(50,)), "must be a multiple of 4"),
        (dict(period_channels=(8,)), "at least 2 widths"),
    ],
)
def test_impossible_sizes_are_refused(small, change, message):
    module = small[2].clone(**change)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 320)))
    with pytest.raises(ValueError, match="batch, samples"):
        jax.eval_shape(small[2].init, jax.random.key(0), jnp.zeros((320,)))
