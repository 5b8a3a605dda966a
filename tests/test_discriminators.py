# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The discriminators do what their names say: rows of a period, bands of a spectrum, one stack."""

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import autoencoder as recipe
from f3tok_jax import discriminators

# Matrix products against convolutions in float32: sums of a few hundred terms in another order.
_TOLERANCE = 2e-5


def _waveform(batch: int, length: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((batch, length)).astype(np.float32)


def _conv(x, kernel, stride=1, padding=0):
    """[b, n, c] with [k, c, d]; the reference for every row and, axis by axis, every band."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride,),
        [(padding, padding)],
        dimension_numbers=("NWC", "WIO", "NWC"),
        precision="highest",
    )


def _conv_2d(x, kernel, stride=1, padding=0):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )


def _with_random_biases(params, seed=1):
    """Biases start at zero, which would hide a wrong one."""
    rng = np.random.default_rng(seed)
    return jax.tree.map_with_path(
        lambda path, x: (
            x + 0.1 * rng.standard_normal(x.shape).astype(np.float32)
            if "bias" in jax.tree_util.keystr(path)
            else x
        ),
        params,
    )


def test_period_view_is_every_period_th_sample():
    waveform = _waveform(2, 100)
    view = np.asarray(discriminators.period_view(waveform, period=3, fold=4))
    assert view.shape == (2, 3, 9, 4)  # 100 samples fill 8.3 blocks of 12
    padded = np.pad(waveform, ((0, 0), (0, 8)))
    for row in range(3):
        np.testing.assert_array_equal(view[:, row].reshape(2, -1), padded[:, row::3])


def test_folded_stft_is_the_spectrum_with_bins_as_channels():
    window, fold, hop = 64, 8, 16
    waveform = _waveform(1, 200)
    folded = np.asarray(discriminators.folded_stft(waveform, window=window, fold=fold))
    assert folded.shape == (1, 13, 4, 16)
    hann = np.hanning(window + 1)[:-1]
    padded = np.pad(waveform[0].astype(np.float64), (window // 2 - hop // 2, window))
    for frame in range(13):
        spectrum = np.fft.rfft(hann * padded[frame * hop : frame * hop + window])[:-1]
        spectrum /= np.sqrt(np.sum(hann**2))
        expected = np.stack([spectrum.real, spectrum.imag], axis=-1).reshape(4, 16)
        np.testing.assert_allclose(folded[0, frame], expected, atol=1e-6)  # float32 against float64


def test_period_discriminator_equals_convolutions_along_its_rows():
    """Stacked matrix products over positions against a plain convolution per period."""
    periods, fold, channels = (2, 5), 3, (4, 6, 8)
    module = discriminators.PeriodDiscriminators(
        periods=periods, fold=fold, channels=channels, compute_dtype="float32"
    )
    waveform = _waveform(3, 301)
    params = _with_random_biases(jax.jit(module.init)(jax.random.key(0), waveform))
    outputs = jax.jit(module.apply)(params, waveform)
    expected = jax.jit(_rows_judged, static_argnames=("periods", "fold"))(
        params["params"], waveform, periods=periods, fold=fold
    )
    for maps, logits in zip(outputs, expected):
        np.testing.assert_allclose(maps[-1], logits, atol=_TOLERANCE)


def _rows_judged(params, waveform, *, periods, fold):
    """Logits of every period by convolutions."""
    outputs = []
    for index, period in enumerate(periods):
        padded = jnp.pad(waveform, ((0, 0), (0, -waveform.shape[1] % (period * 3 * fold))))
        logits = []
        for row in range(period):
            x = padded[:, row::period].reshape(3, -1, fold)
            for layer, (stride, padding) in enumerate(((1, 2), (3, 0), (1, 1))):
                kernel, bias = (
                    params[f"conv_{layer}_kernel"][index],
                    params[f"conv_{layer}_bias"][index],
                )
                x = _conv(x, kernel, stride, padding) + bias
                x = jnp.where(x > 0, x, 0.1 * x)
            kernel, bias = params["logits_kernel"][index], params["logits_bias"][index]
            logits.append(_conv(x, kernel, 1, 1) + bias)
        outputs.append(jnp.concatenate(logits, axis=1))
    return outputs


def test_stft_discriminator_equals_convolutions_of_its_bands():
    """Blocks of 2 x 2 in stacked matrix products against plain convolutions per window and band."""
    windows, bands, fold, width = (64, 32), (0.0, 0.25, 1.0), 4, 6
    module = discriminators.STFTDiscriminators(
        windows=windows, bands=bands, fold=fold, channels=width, compute_dtype="float32"
    )
    waveform = _waveform(2, 320)
    params = _with_random_biases(jax.jit(module.init)(jax.random.key(0), waveform))
    outputs = jax.jit(module.apply)(params, waveform)
    expected = jax.jit(_bands_judged, static_argnames=("windows", "bands", "fold"))(
        params["params"], waveform, windows=windows, bands=bands, fold=fold
    )
    for maps, logits in zip(outputs, expected):
        np.testing.assert_allclose(maps[-1], logits, atol=_TOLERANCE)


def _bands_judged(params, waveform, *, windows, bands, fold):
    """Logits of every window by convolutions."""
    outputs = []
    for index, window in enumerate(windows):
        spectrum = discriminators.folded_stft(waveform, window=window, fold=fold)
        edges = discriminators.band_edges(bands, num_groups=window // 2 // fold)
        parts = []
        for band, (low, high) in enumerate(zip(edges[:-1], edges[1:])):
            stacked = index * (len(bands) - 1) + band
            # A band of odd width gets a group of zeros, so that blocks of 2 x 2 cover it.
            x = jnp.pad(spectrum[:, :, low:high], ((0, 0), (0, 0), (0, (high - low) % 2), (0, 0)))
            for layer, (stride, padding) in enumerate(((1, 1), (2, 0), (1, 1))):
                kernel = params[f"conv_{layer}_kernel"][stacked]
                x = (
                    _conv_2d(x, kernel, stride, padding)
                    + params[f"conv_{layer}_bias"][stacked][None]
                )
                x = jnp.where(x > 0, x, 0.1 * x)
            parts.append(x)
        kernel = params["logits_kernel"][index].reshape(3, 3, -1, 1)
        logits = _conv_2d(jnp.concatenate(parts, axis=2), kernel, 1, 1)
        logits += params["logits_bias"][index][None]
        outputs.append(logits.reshape(len(waveform), -1, 1))
    return outputs


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
    """A small pair of both kinds: its judgement, its parameters and the module."""
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
    judge, params, _ = small

    @jax.jit
    def gradient(waveform):
        return jax.grad(
            lambda p, x: sum(jnp.mean((maps[-1] - 1) ** 2) for maps in judge(p, x)), argnums=(0, 1)
        )(params, waveform)

    for scale in (0.0, 1e-12, 1.0):
        for leaf in jax.tree.leaves(gradient(scale * _waveform(2, 320))):
            assert np.all(np.isfinite(leaf))
            # The peak's floor bounds the gain by 800.
            assert np.max(np.abs(leaf)) < 1e3


def test_judgement_is_deterministic_and_ignores_level_and_offset(small):
    judge, params, _ = small
    waveform = _waveform(2, 320)
    first, again = judge(params, waveform), judge(params, waveform)
    louder = judge(params, 3.0 * waveform + 0.2)
    for one, two, three in zip(first, again, louder):
        np.testing.assert_array_equal(one[-1], two[-1])
        np.testing.assert_allclose(
            one[-1], three[-1], atol=1e-4
        )  # rounding of the offset's removal


def test_preparation_removes_the_mean_and_scales_the_peak():
    prepared = np.asarray(discriminators.prepare(_waveform(3, 1000) + 0.3))
    np.testing.assert_allclose(prepared.mean(axis=1), 0.0, atol=1e-6)
    np.testing.assert_allclose(np.abs(prepared).max(axis=1), 0.8, rtol=1e-6)


def test_examples_do_not_reach_each_other(small):
    judge, params, _ = small
    waveform = _waveform(2, 320)
    changed = waveform.copy()
    changed[1] *= np.linspace(-1, 1, 320)
    for one, two in zip(judge(params, waveform), judge(params, changed)):
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
