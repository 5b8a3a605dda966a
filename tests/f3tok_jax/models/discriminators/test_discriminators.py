# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""All discriminators side by side: shapes, gradients, what they ignore and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import autoencoder as recipe
from f3tok_jax.losses import adversarial as adversarial_losses
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
    outputs, valid = jax.eval_shape(module.apply, variables, waveform)
    num_bands, num_windows = len(section.stft_bands) - 1, len(section.stft_windows)
    assert [maps[0].shape[0] for maps in outputs] == (
        [len(section.periods)] + [num_bands] * num_windows
    )
    for maps, where in zip(outputs, valid):
        assert maps[-1].dtype == jnp.float32 and maps[-1].shape == where[-1].shape
        assert {leaf.dtype for leaf in maps[:-1]} == {jnp.dtype(section.compute_dtype)}
        assert {leaf.shape[-1] for leaf in where} == {2}
        assert [leaf.shape for leaf in where[:-1]] == [leaf.shape[:-1] for leaf in maps[:-1]]
    assert [len(maps) for maps in outputs] == (
        [len(section.period_channels) + 1] + [3 + 1] * num_windows
    )


@pytest.fixture(scope="module", params=discriminators.KINDS)
def small(request):
    """A few of every sort: their function, their parameters and the module."""
    is_of_frequencies, is_folded = (request.param == k for k in ("multi_frequency", "folded"))
    module = discriminators.Discriminators(
        kind=request.param,
        periods=(2, 3),
        period_fold=3,
        period_channels=(8, 8) if is_folded else (2, 4, 8, 8, 8),
        stft_windows=(64, 32) if is_folded else (64,),
        stft_bands=(0.0, 0.25, 1.0),
        stft_fold=4,
        stft_channels=64 if is_of_frequencies else 8,
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
            lambda p, x: sum(jnp.mean((maps[-1] - 1) ** 2) for maps in discriminate(p, x)[0]),
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
    first, again = discriminate(params, waveform)[0], discriminate(params, waveform)[0]
    louder, _ = discriminate(params, 3.0 * waveform + 0.2)
    for one, two, three in zip(first, again, louder):
        np.testing.assert_array_equal(one[-1], two[-1])
        np.testing.assert_allclose(
            one[-1], three[-1], atol=1e-4
        )  # rounding of the offset's removal


def test_preparation_removes_the_mean_and_scales_the_peak():
    prepared = np.asarray(discriminators.prepare(noise.waveform(3, 1000) + 0.3, np.full(3, 1000)))
    np.testing.assert_allclose(prepared.mean(axis=1), 0.0, atol=1e-6)
    np.testing.assert_allclose(np.abs(prepared).max(axis=1), 0.8, rtol=1e-6)


def test_examples_do_not_reach_each_other(small):
    discriminate, params, _ = small
    waveform = noise.waveform(2, 320)
    changed = waveform.copy()
    changed[1] *= np.linspace(-1, 1, 320)
    for one, two in zip(discriminate(params, waveform)[0], discriminate(params, changed)[0]):
        np.testing.assert_allclose(one[-1][..., 0], two[-1][..., 0], atol=1e-6)
        assert np.any(np.abs(one[-1][..., 1] - two[-1][..., 1]) > 1e-4)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(stft_bands=(0.0, 0.01, 1.0)), "at least one of the"),
        (dict(stft_windows=(50,)), "must be a multiple of (4|32)"),
        (dict(period_channels=(8,)), "at least 2 widths|must name 5 widths .* got"),
        (dict(kind="daq"), "must be one of .* got 'daq'"),
    ],
)
def test_impossible_sizes_are_refused(small, change, message):
    if small[2].kind == "multi_frequency" and change.keys() & {"stft_bands", "period_channels"}:
        pytest.skip("it reads neither bands nor periods")
    module = small[2].clone(**change)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 320)))
    with pytest.raises(ValueError, match="batch, samples"):
        jax.eval_shape(small[2].init, jax.random.key(0), jnp.zeros((320,)))


# Samples of a sound, none of them a whole number of positions; 100 is shorter than some stretches.
@pytest.mark.parametrize(
    "length",
    [pytest.param(100, marks=pytest.mark.slow), 301, pytest.param(500, marks=pytest.mark.slow)],
)
def test_padding_is_not_judged_whatever_it_holds(small, length):
    discriminate, params, module = small
    params = noise.with_random_biases(params)
    sound = noise.waveform(1, length)
    alone, alone_valid = discriminate(params, sound)
    fillings = [np.zeros((1, 700)), noise.waveform(1, 700, seed=5), np.full((1, 700), np.nan)]
    for filling in fillings:
        padded = filling.astype(np.float32)
        padded[:, :length] = sound
        maps, valid = discriminate(params, padded, np.array([length]))
        for one, two, is_one, is_two in zip(
            *(jax.tree.leaves(tree) for tree in (maps, alone, valid, alone_valid)), strict=True
        ):
            one, two = np.asarray(one)[np.asarray(is_one)], np.asarray(two)[np.asarray(is_two)]
            # Sums of another length in float32.
            np.testing.assert_allclose(one, two, atol=1e-5)
    # Were its zeros judged, it would be seen: there are more positions, and they hold something.
    judged, judged_valid = discriminate(params, np.where(np.arange(700) < length, padded, 0.0))
    count = lambda valid: sum(np.sum(where) for where in jax.tree.leaves(valid))
    assert count(judged_valid) > count(alone_valid)
    for logits, where in [(maps[-1], where[-1]) for maps, where in zip(judged, judged_valid)]:
        assert np.all(np.asarray(logits)[np.asarray(where)])


def test_valid_places_tile_the_sound(small):
    """Half a sound has half the places, in every map; none has none."""
    discriminate, params, _ = small
    # Whole stretches: 2 x 81 and 3 x 81 samples of periods, 32 of frames; 128 of coarse frames.
    length = {"multi_frequency": 2048}.get(small[2].kind, 2 * 486 * 16)
    num_samples = np.array([length, length // 2, 1, 0])
    maps, valid = discriminate(params, noise.waveform(4, length), num_samples)
    for values, where in zip(jax.tree.leaves(maps), jax.tree.leaves(valid)):
        whole, half, least, none = np.sum(where, axis=tuple(range(where.ndim - 1)))
        assert half == whole / 2 and least > 0 and none == 0
        if values.ndim > where.ndim:  # logits are not zeroed
            assert not np.any(np.asarray(values)[~np.asarray(where)])


def test_the_same_difference_weighs_the_same_in_every_band(small):
    """Maps of bands differ in width, and a stack's narrower ones end in zeros."""
    discriminate, params, module = small
    num_samples = np.array([640, 320])
    maps, valid = discriminate(params, noise.waveform(2, 640), num_samples)
    places = [
        (i, j, entry)
        for i, layers in enumerate(maps)
        for j, values in enumerate(layers[:-1])
        for entry in range(len(values))
    ]

    @jax.jit
    def losses(rises):  # of the maps, by place
        other = [list(layers) for layers in maps]
        for (i, j, entry), rise in zip(places, rises):
            rise = jnp.where(valid[i][j][entry, ..., None], rise, 0.0)
            other[i][j] = other[i][j].at[entry].add(rise)
        value, weight = adversarial_losses.feature_matching(
            maps, other, valid, module.map_weights, jnp.ones(2)
        )
        return value / weight

    found = jax.lax.map(losses, 0.5 * jnp.eye(len(places)))  # a rise of one map at a time
    np.testing.assert_allclose(found, [0.5 * module.map_weights[i] for i, *_ in places], rtol=1e-5)
    # Of DAC 5 maps per period, and per band of a window, each with weight 1; of X-Codec 6 per window.
    windows = len(module.stft_windows)
    count = 6 * windows if module.kind == "multi_frequency" else 2 * 5 + windows * 2 * 5
    assert float(jnp.sum(found)) == pytest.approx(0.5 * count, rel=1e-5)


def test_bases_maps_weigh_as_dacs_hundred():
    section = recipe.get_config("base").discriminators
    module = discriminators.Discriminators(**section)
    counts = [3 * 5] + [15] * 3
    assert np.dot(module.map_weights, counts) == pytest.approx(100.0)


def test_the_published_geometry():
    section = recipe.get_config("base").discriminators
    section.update(dict(kind="dac", period_channels=(32, 128, 512, 1024, 1024), stft_channels=32))
    module = discriminators.Discriminators(**section)
    assert module.map_weights == [1.0] * 8
    waveform = jax.ShapeDtypeStruct((1, 15_360), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), waveform)
    params = variables["params"]
    # By hand from the widths: kernels of 5 and of 3 samples; 3 x 9 and 3 x 3, two planes.
    period = sum(5 * a * b + b for a, b in [(1, 32), (32, 128), (128, 512), (512, 1024)])
    period += 5 * 1024 * 1024 + 1024 + 3 * 1024 + 1
    band = (2 * 27 * 32 + 32) + 3 * (27 * 32 * 32 + 32) + (9 * 32 * 32 + 32)
    sizes = {
        name: sum(leaf.size for leaf in jax.tree.leaves(params[name]))
        for name in ("period", "stft")
    }
    assert sizes == {"period": 5 * period, "stft": 3 * (5 * band + 9 * 32 + 1)}
    maps, _ = jax.eval_shape(module.apply, variables, waveform)
    assert [len(layers) - 1 for layers in maps] == [5] * 5 + [25] * 3
    # Period 2: 7,680 steps, divided by 3 four times, two rows; window 2048: 30 frames of 102 bins.
    assert [layer.shape[1:3] for layer in maps[0]] == [
        (2, steps) for steps in (2560, 854, 285, 95, 95, 95)
    ]
    assert [layer.shape[1:3] for layer in maps[5][:5]] == [(30, n) for n in (102, 51, 26, 13, 13)]
