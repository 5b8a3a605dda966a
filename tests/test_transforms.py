# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Channels, rates, PCM16, crops and gains."""

import numpy as np
import pytest
import sounds

from data_pipelines import transforms


@pytest.mark.parametrize("policy, expected", [("mean", 2.0), ("left", 1.0), ("right", 2.0)])
def test_mono_policies(policy, expected):
    block = np.tile(np.float32([1.0, 2.0, 3.0]), (5, 1))
    np.testing.assert_array_equal(transforms.to_mono(block, policy=policy), np.full(5, expected))


@pytest.mark.parametrize("policy", transforms.MONO_POLICIES)
def test_mono_of_one_channel_is_that_channel(policy):
    block = np.arange(4, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(transforms.to_mono(block, policy=policy), block[:, 0])


def test_unknown_mono_policy_is_refused():
    with pytest.raises(ValueError, match="center"):
        transforms.to_mono(np.zeros((1, 2), np.float32), policy="center")


def _resample(waveform, from_rate, to_rate, block_size):
    resampler = transforms.Resampler(from_rate, to_rate)
    starts = range(0, len(waveform), block_size)
    return np.concatenate([
        resampler(waveform[start:start + block_size], last=start == starts[-1]) for start in starts])


@pytest.mark.parametrize("from_rate, to_rate", [(44_100, 24_000), (8_000, 16_000), (7_000, 24_000)])
def test_resampling_does_not_depend_on_the_blocks(from_rate, to_rate):
    waveform = sounds.tone(1.0, rate=from_rate)
    whole = _resample(waveform, from_rate, to_rate, len(waveform))
    assert abs(len(whole) - to_rate) <= 1
    np.testing.assert_array_equal(_resample(waveform, from_rate, to_rate, 1000), whole)
    np.testing.assert_array_equal(_resample(waveform, from_rate, to_rate, 77), whole)


def test_resampling_keeps_a_tone_in_phase():
    whole = _resample(sounds.tone(1.0, rate=44_100), 44_100, 24_000, 4096)
    expected = sounds.tone(1.0, rate=24_000)
    # The filter's transients at the ends aside, soxr HQ is good to about 20 bits.
    np.testing.assert_allclose(whole[500:-500], expected[500:-500], atol=2e-5)


def test_equal_rates_pass_through():
    waveform = sounds.tone()
    assert transforms.Resampler(16_000, 16_000)(waveform, last=True) is waveform


def test_pcm16_keeps_sixteen_bit_samples_exactly():
    every = np.arange(-32768, 32768).astype(np.int16)
    pcm, num_clipped = transforms.to_pcm16(every.astype(np.float32) / 32768)
    np.testing.assert_array_equal(pcm, every)
    assert num_clipped == 0


def test_pcm16_limits_and_counts_what_is_beyond_full_scale():
    pcm, num_clipped = transforms.to_pcm16(np.float32([-3.0, -1.0, 0.0, 1.0, 1.5]))
    np.testing.assert_array_equal(pcm, [-32768, -32768, 0, 32767, 32767])
    assert num_clipped == 2  # full scale itself is not clipping


def test_crops_stay_inside_and_reach_both_ends():
    positions = np.linspace(0, 1, 1001)[:-1]
    starts = {transforms.crop_start(110, 100, position) for position in positions}
    assert starts == set(range(11))
    assert transforms.crop_start(100, 100, 0.999) == transforms.crop_start(7, 100, 0.999) == 0


@pytest.mark.parametrize("peak", [1, 3, 1000, 32767, -32768])
@pytest.mark.parametrize("gain_db", [-20.0, 0.0, 6.0, 120.0])
def test_gain_never_clips(peak, gain_db):
    row = np.empty(8, np.float32)
    pcm = np.int16([0, peak, 0, 0])
    assert transforms.fill_row(row, pcm, position=0.0, gain_db=gain_db) == 4
    assert np.abs(row).max() <= 1.0
    wanted = abs(peak) / 32768 * 10 ** (gain_db / 20)
    # One step of PCM16 is the price of staying below full scale after rounding.
    assert np.abs(row).max() == pytest.approx(min(wanted, 1.0), rel=1e-4)
    np.testing.assert_array_equal(row[4:], 0)


def test_row_without_gain_is_the_record():
    pcm = np.arange(-100, 100).astype(np.int16)
    row = np.full(50, np.nan, np.float32)
    assert transforms.fill_row(row, pcm, position=0.5, gain_db=None) == 50
    start = transforms.crop_start(200, 50, 0.5)
    np.testing.assert_array_equal(row * 32768, pcm[start:start + 50])


def test_silence_can_be_amplified():
    row = np.empty(4, np.float32)
    transforms.fill_row(row, np.zeros(4, np.int16), position=0.0, gain_db=6.0)
    np.testing.assert_array_equal(row, 0)
