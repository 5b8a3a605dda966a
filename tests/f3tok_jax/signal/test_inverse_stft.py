# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The inverse STFT against NumPy, as an inverse, and of sounds behind which there is nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.signal import inverse_stft
from f3tok_jax.signal import spectra

_RNG = np.random.default_rng(0)
_inverted = jax.jit(
    inverse_stft.spectra_to_waveform, static_argnames=("frame_length", "hop_length")
)


def _spectra(frames: int, length: int) -> np.ndarray:
    shape = (2, frames, length // 2 + 1)
    return (_RNG.normal(size=shape) + 1j * _RNG.normal(size=shape)).astype(np.complex64)


@pytest.mark.parametrize("frames", [1, 2, 9])
@pytest.mark.parametrize("length, hop", [(1280, 320), (48, 8), (32, 16)])
def test_equals_its_definition(frames, length, hop):
    values = _spectra(frames, length)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    total = np.zeros((2, (frames - 1) * hop + length))
    weight = np.zeros((frames - 1) * hop + length)
    for i, frame in enumerate(np.fft.irfft(values.astype(np.complex128)).swapaxes(0, 1)):
        total[:, i * hop : i * hop + length] += window * frame
        weight[i * hop : i * hop + length] += window**2
    cut = slice((length - hop) // 2, (length - hop) // 2 + frames * hop)
    found = _inverted(values.real, values.imag, frame_length=length, hop_length=hop)
    assert found.shape == (2, frames * hop) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, total[:, cut] / weight[cut], atol=1e-5)


def test_undoes_centred_spectra():
    waveform = _RNG.normal(size=(2, 8 * 320)).astype(np.float32)
    sizes = dict(frame_length=1280, hop_length=320)
    found = inverse_stft.spectra_to_waveform(*spectra.centered_stft(waveform, **sizes), **sizes)
    np.testing.assert_allclose(found, waveform, atol=1e-4)


def test_a_shorter_sound_of_a_batch_is_what_it_is_alone():
    values, sizes = _spectra(6, 64), dict(frame_length=64, hop_length=16)
    mask = np.arange(6)[None] < np.array([[6], [4]])
    invert = lambda x, mask=None: _inverted(x.real, x.imag, mask, **sizes)
    together = np.array(invert(np.where(mask[..., None], values, np.nan), mask))
    np.testing.assert_allclose(together[0], invert(values)[0], atol=1e-6)
    np.testing.assert_allclose(together[1, : 4 * 16], invert(values[:, :4])[1], atol=1e-6)
    assert np.all(np.isfinite(together))
    gradient = jax.grad(lambda x: jnp.sum(invert(x, mask) ** 2).real)(jnp.array(values))
    assert np.all(np.isfinite(gradient)) and not np.any(gradient[1, 4:])


def test_frames_that_do_not_overlap_in_whole_hops_are_refused():
    values = _spectra(2, 64)
    for hop in (0, 24, 64):
        with pytest.raises(ValueError, match=f"even number of hops, got .*hop_length={hop}"):
            inverse_stft.spectra_to_waveform(
                values.real, values.imag, frame_length=64, hop_length=hop
            )
