# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""PCM16: exact where it can be, limited where it must be."""

import numpy as np

from data_pipelines.records import pcm16


def test_sixteen_bit_samples_come_back_exactly():
    every = np.arange(-32768, 32768).astype(np.int16)
    waveform = pcm16.to_float(every)
    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(waveform, every / 32768)
    pcm, num_clipped = pcm16.from_float(waveform)
    np.testing.assert_array_equal(pcm, every)
    assert num_clipped == 0


def test_what_is_beyond_full_scale_is_limited_and_counted():
    pcm, num_clipped = pcm16.from_float(np.float32([-3.0, -1.0, 0.0, 1.0, 1.5]))
    np.testing.assert_array_equal(pcm, [-32768, -32768, 0, 32767, 32767])
    assert num_clipped == 2  # full scale itself is not clipping


def test_a_known_peak_changes_nothing():
    rng = np.random.default_rng(0)
    for peak in (0.1, 32767 / 32768, 1.0, 1.5):
        waveform = (rng.uniform(-1.0, 1.0, 100_001) * peak).astype(np.float32)
        waveform[:2] = peak, -peak
        pcm, num_clipped = pcm16.from_float(waveform)
        known, also = pcm16.from_float(waveform, peak=float(np.abs(waveform).max()))
        np.testing.assert_array_equal(known, pcm)
        expected = np.clip(np.rint(waveform * 32768.0), -32768, 32767)
        np.testing.assert_array_equal(pcm, expected)
        assert also == num_clipped == np.count_nonzero(np.abs(np.rint(waveform * 32768.0)) > 32768)
