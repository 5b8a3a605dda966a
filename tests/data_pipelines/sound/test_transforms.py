# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Channels, rates, PCM16, crops and gains."""

import numpy as np
import pytest

from data_pipelines.sound import transforms
from tests.support import sounds


@pytest.mark.parametrize("policy, expected", [("mean", 2.0), ("left", 1.0), ("right", 2.0)])
def test_mono_policies(policy, expected):
    block = np.tile(np.float32([1.0, 2.0, 3.0]), (5, 1))
    np.testing.assert_array_equal(transforms.to_mono(block, policy=policy), np.full(5, expected))


def test_the_mean_of_two_channels_is_the_mean_bit_by_bit():
    block = np.random.default_rng(0).standard_normal((10_000, 2)).astype(np.float32)
    block *= np.float32(10.0) ** np.arange(-20, 20).repeat(250)[:, None]
    mean = transforms.to_mono(block, policy="mean")
    assert mean.dtype == np.float32
    np.testing.assert_array_equal(mean, block.mean(axis=1, dtype=np.float32))


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
    return np.concatenate(
        [
            resampler(waveform[start : start + block_size], last=start == starts[-1])
            for start in starts
        ]
    )


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


def test_crops_stay_inside_and_reach_both_ends():
    pcm, out = np.arange(110).astype(np.int16), np.zeros(100, np.int16)
    starts = set()
    for position in np.linspace(0, 1, 1001)[:-1]:
        taken = transforms.crop(pcm, position, out=out)
        np.testing.assert_array_equal(pcm[taken.start : taken.stop], out)
        np.testing.assert_array_equal(np.diff(out), 1)
        starts.add(int(out[0]))
    assert starts == set(range(11))


@pytest.mark.parametrize("position", [0.0, 0.999])
def test_short_records_are_taken_whole(position):
    pcm, out = np.int16([1, 2, 3]), np.zeros(5, np.int16)
    assert transforms.crop(pcm, position, out=out) == range(3)
    np.testing.assert_array_equal(out, [1, 2, 3, 0, 0])
    assert transforms.crop(np.int16([4, 5, 6, 7, 8]), position, out=out) == range(5)
    np.testing.assert_array_equal(out, [4, 5, 6, 7, 8])


PEAKS = np.array([1, 3, 1000, 16384, 32767, -32768])


@pytest.mark.parametrize("gain_db", [-20.0, 0.0, 6.0, 120.0])
def test_gain_is_given_and_never_clips(gain_db):
    pcm = np.zeros((len(PEAKS), 4), np.int16)
    pcm[:, 1] = PEAKS
    waveform = transforms.amplify(pcm, np.full(len(PEAKS), gain_db))
    assert waveform.dtype == np.float32 and np.abs(waveform).max() <= 1.0
    wanted = np.abs(PEAKS) / 32768 * 10 ** (gain_db / 20)
    # One step of PCM16 is the price of staying below full scale after rounding.
    np.testing.assert_allclose(np.abs(waveform[:, 1]), np.minimum(wanted, 1.0), rtol=1e-4)
    np.testing.assert_array_equal(waveform[:, [0, 2, 3]], 0)


def test_each_row_has_its_own_gain():
    pcm = np.full((3, 2), 1000, np.int16)
    waveform = transforms.amplify(pcm, np.array([-20.0, 0.0, 20.0]))
    np.testing.assert_allclose(waveform[:, 0] * 32768, [100, 1000, 10_000], rtol=1e-6)


def test_without_gain_the_samples_are_exact():
    pcm = np.arange(-32768, 32768).astype(np.int16).reshape(2, -1)
    np.testing.assert_array_equal(transforms.amplify(pcm, None) * 32768, pcm)
    np.testing.assert_array_equal(transforms.amplify(pcm, np.zeros(2)) * 32768, pcm)


def test_silence_can_be_amplified():
    waveform = transforms.amplify(np.zeros((2, 3), np.int16), np.full(2, 6.0))
    np.testing.assert_array_equal(waveform, 0)
