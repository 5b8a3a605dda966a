# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Levels equal what is computed here sample by sample, and say of each kind of sound what it is."""

import fractions

import numpy as np
import pytest
import soundfile
import soxr

from data_pipelines.sound import audio_files
from data_pipelines.sound import conversion as conversion_lib
from data_pipelines.sound import levels
from data_pipelines.sound import refusals
from tests.support import sounds

RATE = 16_000


def _noise(seconds: float, *, rate: int = RATE, channels: int = 1, rms: float = 0.1) -> np.ndarray:
    samples = np.random.default_rng(0).standard_normal((round(seconds * rate), channels)) * rms
    return samples.astype(np.float32)


def _measured(
    channels, *, rate=RATE, full_scale=audio_files.Sound.full_scale, block=5000, **changes
):
    """The figures of each record, and those of the whole."""
    conversion = sounds.conversion(**changes)
    blocks = (channels[start : start + block] for start in range(0, len(channels), block))
    sound = audio_files.Sound(rate, len(channels), blocks, full_scale=full_scale)
    meter = conversion.meter(sound)
    pcm = np.concatenate(
        list(conversion_lib.pcm16_blocks(sound, conversion, {"clipped_samples": 0}, meter))
    )
    records = []
    for start in range(0, len(pcm), conversion.segment_length):
        records.append(levels.Sums())
        records[-1].add_record(
            pcm[start : start + conversion.segment_length], conversion.sample_rate
        )
    each = [levels.whole(pair).figures() for pair in zip(records, meter.stretches, strict=True)]
    return each, levels.whole([*records, *meter.stretches]).figures()


def test_figures_are_those_of_the_samples():
    channels = np.clip(_noise(1.3, channels=2, rms=0.4) + 0.05, -1.0, 32767 / 32768)
    each, whole = _measured(channels.astype(np.float32))
    assert len(each) == 3
    for index, figures in enumerate(each):
        own = channels[index * 8000 : (index + 1) * 8000].astype(np.float64)
        mix = own.mean(axis=1)
        loss = 10 * np.log10(np.mean(own**2) / np.mean(mix**2))
        clipped = np.mean((own >= 32767 / 32768) | (own == -1.0))
        assert clipped > 0.01
        assert figures["peak_db"] == pytest.approx(20 * np.log10(np.abs(own).max()), abs=0.051)
        assert figures["rms_db"] == pytest.approx(10 * np.log10(np.mean(mix**2)), abs=0.051)
        assert figures["clipped"] == pytest.approx(clipped, abs=6e-6)
        assert figures["dc"] == pytest.approx(mix.mean(), abs=6e-5)
        assert figures["mix_loss_db"] == pytest.approx(loss, abs=0.11)
        assert all(type(value) is float for value in figures.values())
        assert list(figures) == list(levels.FIGURES)
    assert whole["clipped"] == pytest.approx(np.mean(np.abs(channels) >= 32767 / 32768), abs=6e-6)
    assert whole["rms_db"] == pytest.approx(
        10 * np.log10(np.mean(channels.mean(axis=1) ** 2)), abs=0.051
    )


@pytest.mark.parametrize("rate", [8_000, 44_100, 11_025])
@pytest.mark.parametrize("channels", [1, 3])
def test_neither_blocks_nor_rates_move_a_stretch(rate, channels):
    """A click in the source is in the record that has it, whatever the blocks."""
    found = []
    for block in (777, 5000, 10**6):
        samples = _noise(3.2, rate=rate, channels=channels, rms=0.01)
        samples[round(1.75 * rate)] = 1.5  # in the fourth half of a second
        found.append(_measured(samples, rate=rate, block=block))
    assert found[0] == found[1] == found[2]
    each, whole = found[0]
    assert [figures["clipped"] > 0 for figures in each] == [False] * 3 + [True] + [False] * 3
    assert whole["peak_db"] == each[3]["peak_db"] == 3.5
    assert whole["clipped"] == pytest.approx(1 / (3.2 * rate), abs=6e-6)


def test_a_channel_that_is_left_out_is_not_measured():
    channels = np.stack([sounds.tone(1.0), 2.0 * sounds.tone(1.0)], axis=1)
    _, whole = _measured(channels, mono="left")
    assert whole["peak_db"] == -6.0 and whole["clipped"] == 0.0 and whole["mix_loss_db"] == 0.0


def test_silence_and_single_samples_have_figures():
    empty = levels.Sums().figures()
    assert empty == dict(
        peak_db=-120.0, rms_db=-120.0, clipped=0.0, dc=0.0, bandwidth=0.0, mix_loss_db=0.0
    )
    sums = levels.Sums()
    sums.add_record(np.array([-1], np.int16), RATE)
    assert sums.figures()["rms_db"] == -90.3 and str(sums.figures()["dc"]) == "0.0"


def test_sums_are_exact_at_the_extremes():
    sums = levels.Sums()
    sums.add_record(np.full(10**6, -32768, np.int16), RATE)
    assert (sums.total, sums.squares) == (-32768 * 10**6, 2**30 * 10**6)
    assert sums.figures()["rms_db"] == 0.0 and sums.figures()["dc"] == -1.0


def _clipped(share):
    """Noise of which that share lies at full scale."""
    noise = _noise(1.0, rms=1.0)
    return np.clip(noise / np.quantile(np.abs(noise), 1 - share), -1.0, 32767 / 32768)


def _narrow(rate):
    """Noise that was recorded at a lower rate."""
    return soxr.resample(_noise(2.0, rate=rate)[:, 0], rate, RATE)[:, None].astype(np.float32)


def _opposite(factor):
    return _noise(1.0) * np.array([1.0, factor], np.float32)


KINDS = {  # name -> samples, rate, figure, its value, tolerance, reason if it is noteworthy
    "a third clipped": (_clipped(0.3), "clipped", 0.3, 0.001, "clipped"),
    "hardly clipped": (_clipped(0.001), "clipped", 0.001, 0.0002, None),
    "at -86 dBFS": (_noise(1.0, rms=10 ** (-86 / 20)), "rms_db", -86.0, 1.0, "quiet"),
    "softly spoken": (_noise(1.0, rms=10 ** (-45 / 20)), "rms_db", -45.0, 0.2, None),
    "an offset": (_noise(1.0) - 0.2, "dc", -0.2, 0.01, "dc_offset"),
    "opposite channels": (_opposite(-0.98), "mix_loss_db", 39.9, 0.2, "mix_loss"),
    "equal channels": (_opposite(1.0), "mix_loss_db", 0.0, 0.0, None),
    "one channel": (_opposite(0.0), "mix_loss_db", 3.0, 0.1, None),
    "any two channels": (_noise(1.0, channels=2), "mix_loss_db", 3.0, 0.2, None),
    "telephone": (_narrow(8_000), "bandwidth", 4000.0, 150.0, "narrow"),
    "at 11 kHz": (_narrow(11_025), "bandwidth", 5512.0, 200.0, None),
    "full band": (_noise(1.0), "bandwidth", 8000.0, 1.0, None),
    "full band beside an offset": (_noise(1.0, rms=1e-3) + 0.015, "bandwidth", 8000.0, 1.0, None),
}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_told(name):
    samples, figure, value, tolerance, reason = KINDS[name]
    _, whole = _measured(samples.astype(np.float32))
    assert whole[figure] == pytest.approx(value, abs=tolerance)
    broken = dict(levels.noteworthy(RATE).broken(whole))
    assert list(broken) == ([reason] if reason else [])
    assert broken.keys() <= refusals.REASONS.keys()


@pytest.mark.parametrize(
    "limits, figures, reason, detail",
    [
        (dict(max_clipped=0.1), dict(clipped=0.3), "clipped", "30.0% of the samples are at full"),
        (dict(min_rms_db=-50.0), dict(rms_db=-86.0), "quiet", "-86.0 dBFS, the limit is --min_rms"),
        (dict(max_dc=0.0), dict(dc=-0.2), "dc_offset", "offset of -0.200 .* --max_dc=0"),
        (dict(min_bandwidth=7e3), dict(bandwidth=4e3), "narrow", "nothing above 4000 Hz, .*=7000"),
        (dict(max_mix_loss_db=6.0), dict(mix_loss_db=40.0), "mix_loss", "loses 40.0 dB"),
    ],
)
def test_a_limit_refuses_by_its_name(limits, figures, reason, detail):
    plain = levels.Sums(peak=0.5, num_samples=1, squares=10**8, bandwidth=8000.0).figures()
    levels.Limits(**limits).check(plain)
    levels.Limits().check(plain | figures)
    with pytest.raises(refusals.Refused, match=detail) as refusal:
        levels.Limits(**limits).check(plain | figures)
    assert refusal.value.reason == reason and reason in refusals.REASONS


@pytest.mark.parametrize("subtype", ["PCM_U8", "ULAW", "ALAW", "PCM_16", "PCM_24", "FLOAT"])
def test_every_format_clips_at_its_own_full_scale(subtype, tmp_path):
    soundfile.write(tmp_path / "a.wav", _clipped(0.3), RATE, subtype=subtype)
    with audio_files.opened(tmp_path / "a.wav") as sound:
        blocks = np.concatenate(list(sound.blocks))
        meter = levels.Meter(full_scale=sound.full_scale, stretch=fractions.Fraction(10**9))
        meter.add(blocks, blocks[:, 0])
    # What is rounded to the largest step of a coarse format lies there, too.
    clipped = levels.whole(meter.stretches).figures()["clipped"]
    assert clipped == pytest.approx(0.3, abs=0.03)
