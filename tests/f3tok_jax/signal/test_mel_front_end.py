# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Mel spectra of published encoders: against NumPy, against torch, and of sounds behind which there
is nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.signal import mel_front_end

_SIZES = dict(sample_rate=16_000, frame_length=1024, hop_length=160, num_mels=128)


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _htk_filters(sample_rate: int, n_fft: int, num_mels: int) -> np.ndarray:
    """By the definition, band by band."""
    top = 2595 * np.log10(1 + sample_rate / 2 / 700)
    points = 700 * (10 ** (np.linspace(0, top, num_mels + 2) / 2595) - 1)
    hz = np.arange(n_fft // 2 + 1) * sample_rate / n_fft
    bands = [
        np.interp(hz, points[band : band + 3], [0.0, 1.0, 0.0], left=0.0, right=0.0)
        for band in range(num_mels)
    ]
    return np.stack(bands, axis=1)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize(
    "sizes, num_samples",
    [(_SIZES, 3200), (_SIZES, 700), (_SIZES | dict(frame_length=512, num_mels=64), 1239)],
)
def test_equals_its_definition(sizes, num_samples, power):
    waveform = _noise(2, num_samples)
    length, hop = sizes["frame_length"], sizes["hop_length"]
    padded = np.pad(waveform.astype(np.float64), ((0, 0), (length // 2,) * 2), mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    starts = range(0, num_samples + 1, hop)
    frames = np.stack([padded[:, start : start + length] * window for start in starts], axis=1)
    filters = _htk_filters(sizes["sample_rate"], length, sizes["num_mels"])
    expected = np.abs(np.fft.rfft(frames)) ** power @ filters
    found = mel_front_end.mel_spectra(jnp.asarray(waveform), **sizes, power=power)
    assert found.shape == (2, 1 + num_samples // hop, sizes["num_mels"])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_equals_torchs_spectra():
    torch = pytest.importorskip("torch")
    waveform = _noise(1, 2000)
    spectrum = torch.stft(
        torch.from_numpy(waveform),
        1024,
        160,
        window=torch.hann_window(1024),
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )
    expected = spectrum.abs().swapaxes(1, 2).numpy() @ _htk_filters(16_000, 1024, 128)
    found = mel_front_end.mel_spectra(jnp.asarray(waveform), **_SIZES, power=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_a_padded_sound_gives_what_it_gives_alone():
    lengths, waveform = (3200, 1280, 100, 0), _noise(4, 3200)
    waveform = np.where(np.arange(3200)[None] < np.array(lengths)[:, None], waveform, np.nan)
    front_end = jax.jit(lambda x, count: mel_front_end.mel_spectra(x, count, **_SIZES, power=1))
    together = np.asarray(front_end(waveform, np.array(lengths)))
    for row, length in enumerate(lengths[:-1]):
        alone = mel_front_end.mel_spectra(waveform[row : row + 1, :length], **_SIZES, power=1)
        count = 1 + length // 160
        np.testing.assert_allclose(together[row, :count], alone[0], rtol=1e-4, atol=1e-3)
    assert np.all(np.isfinite(together))


def test_silence_is_zero_and_has_no_gradient():
    def total(waveform):
        return jnp.sum(mel_front_end.mel_spectra(waveform, **_SIZES, power=1))

    value, gradient = jax.value_and_grad(total)(jnp.zeros((1, 1600)))
    assert value == 0.0 and not np.any(gradient)


def test_what_cannot_be_is_refused():
    for wrong in (dict(power=3), dict(power=1, frame_length=1023)):
        with pytest.raises(ValueError, match="even number of samples and a power of 1 or 2, got"):
            mel_front_end.mel_spectra(jnp.zeros((1, 1600)), **(_SIZES | wrong))
