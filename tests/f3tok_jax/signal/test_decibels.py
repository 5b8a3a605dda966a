# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Mel spectra in decibels: their definition, their floor, and that padding is never heard."""

import numpy as np
import pytest

from f3tok_jax.signal import decibels
from f3tok_jax.signal import spectra

_FIELDS = dict(sample_rate=16_000, frame_length=512, hop_length=160, num_mels=64, range_db=120.0)


def _sound(num_samples: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(num_samples).astype(np.float32)


def _found(waveform, mask=None) -> np.ndarray:
    return np.asarray(decibels.mel_decibels(waveform, mask, **_FIELDS))


def _by_hand(sound: np.ndarray) -> np.ndarray:
    """In float64, frame by frame."""
    mirrored = np.pad(sound.astype(np.float64), 256, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    frames = [mirrored[i : i + 512] * window for i in range(0, len(sound) + 1, 160)]
    power = np.abs(np.fft.rfft(frames)) ** 2
    filters = spectra.mel_filterbank(16_000, 512, 64, unit_area=False, scale="htk")
    levels = 10 * np.log10(np.maximum(power @ filters, 1e-10))
    return np.maximum(levels, levels.max() - 120)


@pytest.mark.parametrize("num_samples", [1600, 1599, 257])
def test_levels_are_those_of_their_definition(num_samples):
    sound = _sound(num_samples)
    # A DFT in float32; bands are down to 60 dB below the loudest.
    np.testing.assert_allclose(_found(sound[None])[0], _by_hand(sound), atol=2e-3)


def test_an_example_is_in_a_batch_what_it_is_alone_whatever_is_beside_it():
    loud, quiet = 100.0 * _sound(1600), 1e-4 * _sound(1000, seed=1)
    batch = np.full((3, 1600), np.nan, np.float32)
    batch[0], batch[1, :1000] = loud, quiet
    mask = np.arange(1600)[None] < np.array([[1600], [1000], [0]])
    found = _found(batch, mask)
    np.testing.assert_allclose(found[0], _found(loud[None])[0], atol=1e-4)
    np.testing.assert_allclose(found[1, :7], _found(quiet[None])[0], atol=1e-4)
    # The loudest of the batch is more than 120 dB above: it would leave nothing else of it.
    assert np.ptp(found[1, :7]) > 1
    assert not found[1, 7:].any() and not found[2].any()


def test_what_is_far_below_the_loudest_ends_120_db_below_it():
    sound = _sound(3200)
    sound[800:] *= 1e-9
    levels = _found(100.0 * sound[None])[0]
    assert levels.min() == pytest.approx(levels.max() - 120.0)
