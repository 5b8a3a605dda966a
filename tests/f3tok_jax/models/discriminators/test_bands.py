# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""STFT discriminators see the bands of a complex spectrum as plain convolutions would."""

import jax
import numpy as np

from f3tok_jax.models.discriminators import bands as bands_lib
from tests.support import noise
from tests.support import plain_discriminators

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


def test_block_spectra_are_what_blocks_see_of_the_folded_stft():
    window, fold, edges = 64, 4, (0, 3, 8)
    waveform, num_samples = noise.waveform(2, 300), np.array([300, 130])
    # 19 frames of 16 samples make 10 rows; of the second example 9 frames begin in the sound.
    frames = np.asarray(bands_lib.folded_stft(waveform, window=window, fold=fold))
    frames = frames * (np.arange(19) < -(-num_samples // 16)[:, None])[..., None, None]
    blocks = np.asarray(
        bands_lib.block_spectra(waveform, num_samples, window=window, fold=fold, edges=edges)
    )
    assert blocks.shape == (2, 3, 11, 2, 64)
    for band, (low, high) in enumerate(zip(edges[:-1], edges[1:])):
        beyond = ((0, 0), (1, 3), (1, 9), (0, 0))
        own = np.pad(frames[:, :, low:high], beyond)
        for block in range(3):
            for pair in range(11):
                seen = own[:, 2 * pair : 2 * pair + 2, 2 * block : 2 * block + 4]
                np.testing.assert_allclose(
                    blocks[band, block, pair], seen.reshape(2, -1), atol=1e-6
                )


def test_stft_discriminator_equals_convolutions_of_its_bands():
    """Blocks of 2 x 2 of stacked bands against plain convolutions per window and band."""
    windows, bands, fold, width = (64, 32), (0.0, 0.25, 1.0), 4, 6
    module = bands_lib.STFTDiscriminators(
        windows=windows, bands=bands, fold=fold, channels=width, compute_dtype="float32"
    )
    waveform = noise.waveform(2, 320)
    whole = np.full(len(waveform), waveform.shape[1])
    params = jax.jit(module.init)(jax.random.key(0), waveform, whole)
    params = noise.with_random_biases(params)
    outputs, _ = jax.jit(module.apply)(params, waveform, whole)
    sizes = ("windows", "bands", "fold")
    expected = jax.jit(plain_discriminators.of_windows, static_argnames=sizes)(
        params["params"], waveform, windows=windows, bands=bands, fold=fold
    )
    for maps, layers in zip(outputs, expected):
        logits = np.moveaxis(np.asarray(maps[-1][0]), (2, 1, 0), (0, 1, 2))  # [b, rows, blocks]
        own = layers[-1][0].reshape(logits.shape)
        np.testing.assert_allclose(logits, own, atol=_TOLERANCE)
