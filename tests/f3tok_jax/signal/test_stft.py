# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The autoencoder's STFT against NumPy's FFT, and its inverse."""

import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.signal import stft


def _noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("hop_length", [160, 240, 480])
def test_spectrum_equals_numpy(hop_length):
    waveform = _noise((2, 6 * hop_length))
    length = 2 * hop_length
    window = np.hanning(length + 1)[:-1]
    frames = np.stack(
        [waveform[:, i * hop_length : i * hop_length + length] for i in range(5)], axis=1
    )
    expected = np.fft.rfft(frames * window)[..., :-1] / np.sqrt(np.sum(window**2))
    spectrum = np.asarray(stft.waveform_to_spectrum(waveform, hop_length=hop_length))
    spectrum = spectrum.reshape(2, 5, hop_length, 2)
    # Sums of up to 960 float32 products of order 1.
    np.testing.assert_allclose(spectrum[..., 0], expected.real, atol=2e-5)
    np.testing.assert_allclose(spectrum[..., 1], expected.imag, atol=2e-5)


def test_white_noise_keeps_its_rms():
    spectrum = stft.waveform_to_spectrum(0.1 * _noise((1, 240 * 400)), hop_length=240)
    # Real and imaginary part share the power; 400 x 480 values give a standard error of 0.2 %.
    assert np.std(spectrum) == pytest.approx(0.1 / np.sqrt(2), rel=0.01)


def test_synthesis_inverts_analysis():
    hop = 240
    time = np.arange(40 * hop) / 24_000
    waveform = np.stack([np.sin(2 * np.pi * f * time) for f in (50.0, 1234.5, 9000.0)]).astype(
        np.float32
    )
    spectrum = stft.waveform_to_spectrum(jnp.asarray(waveform), hop_length=hop)
    frames = stft.spectrum_to_frames(spectrum, hop_length=hop)
    back, _ = stft.overlap_add(frames, jnp.zeros((3, hop)))
    # The first hop lacks the frame before it. Nyquist, dropped, holds next to nothing of these tones.
    np.testing.assert_allclose(back[:, hop:], waveform[:, hop:-hop], atol=1e-4)


def test_overlap_add_in_two_parts_equals_whole():
    frames = jnp.asarray(_noise((2, 7, 480)))
    whole, last = stft.overlap_add(frames, jnp.zeros((2, 240)))
    first, tail = stft.overlap_add(frames[:, :3], jnp.zeros((2, 240)))
    second, end = stft.overlap_add(frames[:, 3:], tail)
    np.testing.assert_array_equal(whole, np.concatenate([first, second], axis=1))
    np.testing.assert_array_equal(last, end)
