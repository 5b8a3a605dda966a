# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""STFT discriminators see the bands of a complex spectrum as plain convolutions would."""

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.models.discriminators import bands as bands_lib
from tests.support import noise

# Matrix products against convolutions in float32: sums of a few hundred terms in another order.
_TOLERANCE = 2e-5


def test_folded_stft_is_the_spectrum_with_bins_as_channels():
    window, fold, hop = 64, 8, 16
    waveform = noise.waveform(1, 200)
    folded = np.asarray(bands_lib.folded_stft(waveform, window=window, fold=fold))
    assert folded.shape == (1, 13, 4, 16)
    hann = np.hanning(window + 1)[:-1]
    padded = np.pad(waveform[0].astype(np.float64), (window // 2 - hop // 2, window))
    for frame in range(13):
        spectrum = np.fft.rfft(hann * padded[frame * hop : frame * hop + window])[:-1]
        spectrum /= np.sqrt(np.sum(hann**2))
        expected = np.stack([spectrum.real, spectrum.imag], axis=-1).reshape(4, 16)
        np.testing.assert_allclose(folded[0, frame], expected, atol=1e-6)  # float32 against float64


def _conv_2d(x, kernel, stride=1, padding=0):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )


def test_stft_discriminator_equals_convolutions_of_its_bands():
    """Blocks of 2 x 2 in stacked matrix products against plain convolutions per window and band."""
    windows, bands, fold, width = (64, 32), (0.0, 0.25, 1.0), 4, 6
    module = bands_lib.STFTDiscriminators(
        windows=windows, bands=bands, fold=fold, channels=width, compute_dtype="float32"
    )
    waveform = noise.waveform(2, 320)
    whole = np.full(len(waveform), waveform.shape[1])
    params = jax.jit(module.init)(jax.random.key(0), waveform, whole)
    params = noise.with_random_biases(params)
    outputs, _ = jax.jit(module.apply)(params, waveform, whole)
    expected = jax.jit(_logits_of_bands, static_argnames=("windows", "bands", "fold"))(
        params["params"], waveform, windows=windows, bands=bands, fold=fold
    )
    for maps, logits in zip(outputs, expected):
        np.testing.assert_allclose(maps[-1], logits, atol=_TOLERANCE)


def _logits_of_bands(params, waveform, *, windows, bands, fold):
    """Logits of every window by convolutions."""
    outputs = []
    for index, window in enumerate(windows):
        spectrum = bands_lib.folded_stft(waveform, window=window, fold=fold)
        edges = bands_lib.band_edges(bands, num_groups=window // 2 // fold)
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
