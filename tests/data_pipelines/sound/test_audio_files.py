# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The battery of good and bad audio: every kind of file, and what becomes of it."""

import collections
import io
import os
import pathlib
import struct

import numpy as np
import pytest
import soundfile

from data_pipelines.sound import audio_files
from data_pipelines.sound import conversion as conversion_lib
from data_pipelines.sound import refusals
from tests.support import cases
from tests.support import containers
from tests.support import sounds

RATE = 16_000


def _read(path, **changes) -> tuple[np.ndarray, dict[str, int]]:
    counts = collections.Counter()
    with audio_files.opened(path) as sound:
        blocks = list(conversion_lib.pcm16_blocks(sound, sounds.conversion(**changes), counts))
    return np.concatenate(blocks), counts


def _wav(path: pathlib.Path, sound: np.ndarray, *, rate: int = RATE, subtype: str = "PCM_16"):
    soundfile.write(path, sound, rate, subtype=subtype)


def _header_only(path):
    _wav(path, np.zeros(0, np.float32))


def _header_only_flac(path):
    _wav(path, sounds.tone())
    data = bytearray(path.read_bytes()[:42])  # magic and STREAMINFO
    data[4] |= 0x80  # which is made the last block before the samples
    path.write_bytes(data)


def _one_hertz_for_200_hours(path):
    # 720,000 one-byte samples: a small file that would resample to 17 billion samples.
    samples = np.full(200 * 3600, 0x80, np.uint8).tobytes()
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        36 + len(samples),
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        1,
        1,
        1,
        8,
        b"data",
        len(samples),
    )
    path.write_bytes(header + samples)


def _with_nan(path):
    sound = sounds.tone(40.0)
    sound[-5] = np.nan  # in the last block that is read
    _wav(path, sound, subtype="FLOAT")


def _with_infinity_in_one_channel(path):
    sound = np.tile(sounds.tone()[:, None], (1, 2))
    sound[9, 1] = -np.inf
    _wav(path, sound, subtype="FLOAT")


def _truncated_flac(path):
    _wav(path, np.random.default_rng(0).uniform(-0.5, 0.5, RATE).astype(np.float32))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _flac_that_ends_early(path):
    _wav(path, sounds.tone())
    data = bytearray(path.read_bytes())
    # The low half of STREAMINFO's count of samples: the frames that are there are whole.
    data[22:26] = struct.pack(">I", 3 * len(sounds.tone()))
    path.write_bytes(data)


def _flac_with_noise_inside(path):
    _wav(path, sounds.tone(2.0))
    data = bytearray(path.read_bytes())
    place = len(data) // 2
    data[place : place + 400] = np.random.default_rng(0).bytes(400)
    path.write_bytes(data)


def _html_called_wav(path):
    path.write_text("<html>404 not found</html>" * 50)


def _random_bytes(path):
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def _wav_header_cut_short(path):
    _wav(path, sounds.tone())
    path.write_bytes(path.read_bytes()[:20])


def _too_many_channels(path):
    _wav(path, np.tile(sounds.tone()[:, None], (1, 100)))


def _integers_as_floats(path):
    _wav(path, sounds.tone() * 32768, subtype="FLOAT")


def _one_enormous_sample(path):
    sound = sounds.tone()
    sound[1000] = 1e30
    _wav(path, sound, subtype="FLOAT")


def _opposite_channels(path):
    _wav(path, np.stack([sounds.tone(), -sounds.tone()], axis=1))


BAD = {
    "zero_bytes.wav": (lambda path: path.touch(), "empty"),
    "zero_bytes.flac": (lambda path: path.touch(), "empty"),
    "header_only.wav": (_header_only, "no_samples"),
    "header_only.flac": (_header_only_flac, "truncated"),
    "header_cut.wav": (_wav_header_cut_short, "truncated"),
    "one_hertz.wav": (_one_hertz_for_200_hours, "too_long"),
    "nan_at_the_end.wav": (_with_nan, "not_finite"),
    "infinity_right.wav": (_with_infinity_in_one_channel, "not_finite"),
    "silent.wav": (lambda path: _wav(path, np.zeros(RATE)), "silent"),
    "constant.wav": (lambda path: _wav(path, np.full(RATE, 0.25)), "silent"),
    "opposite.wav": (_opposite_channels, "silent"),
    "inaudible.wav": (lambda path: _wav(path, sounds.tone() * 2e-6, subtype="FLOAT"), "silent"),
    "ten_milliseconds.wav": (lambda path: _wav(path, sounds.tone(0.01)), "too_short"),
    "one_sample.wav": (lambda path: _wav(path, np.ones(1) * 0.5), "too_short"),
    "truncated.flac": (_truncated_flac, "truncated"),
    "ends_early.flac": (_flac_that_ends_early, "truncated"),
    "noise_inside.flac": (_flac_with_noise_inside, "damaged"),
    "html.wav": (_html_called_wav, "not_sound"),
    "random.mp3": (_random_bytes, "undecodable"),
    "random.flac": (_random_bytes, "undecodable"),
    "random.ogg": (_random_bytes, "undecodable"),
    "phone.m4a": (_random_bytes, "unsupported"),
    "hundred_channels.wav": (_too_many_channels, "unsupported"),
    "hundred_hertz.wav": (lambda path: _wav(path, sounds.tone(9.0), rate=100), "unsupported"),
    "integers_as_floats.wav": (_integers_as_floats, "out_of_range"),
    "one_enormous_sample.wav": (_one_enormous_sample, "out_of_range"),
}


@pytest.mark.reliability("R24")
@pytest.mark.parametrize("name", BAD)
def test_bad_audio_is_refused_with_its_reason(name, tmp_path):
    make, reason = BAD[name]
    make(tmp_path / name)
    with pytest.raises(refusals.Refused) as refusal:
        _read(tmp_path / name)
    assert refusal.value.reason == reason in refusals.REASONS
    assert "\n" not in refusal.value.detail and str(tmp_path) not in refusal.value.detail


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission_is_unreadable(tmp_path):
    _wav(tmp_path / "secret.wav", sounds.tone())
    (tmp_path / "secret.wav").chmod(0)
    with pytest.raises(refusals.Refused, match="unreadable"):
        _read(tmp_path / "secret.wav")


def test_missing_file_is_unreadable(tmp_path):
    with pytest.raises(refusals.Refused, match="unreadable: No such file"):
        _read(tmp_path / "gone.wav")


GOOD = {
    "eight_bit.wav": dict(subtype="PCM_U8", tolerance=1 / 128),
    "sixteen_bit.wav": dict(subtype="PCM_16", tolerance=1 / 32768),
    "twenty_four_bit.wav": dict(subtype="PCM_24", tolerance=1 / 32768),
    "thirty_two_bit.wav": dict(subtype="PCM_32", tolerance=1 / 32768),
    "float.wav": dict(subtype="FLOAT", tolerance=1 / 32768),
    "double.wav": dict(subtype="DOUBLE", tolerance=1 / 32768),
    "mu_law.wav": dict(subtype="ULAW", tolerance=1 / 32),
    "lossless.flac": dict(subtype="PCM_16", tolerance=1 / 32768),
    "twenty_four_bit.flac": dict(subtype="PCM_24", tolerance=1 / 32768),
    "vorbis.ogg": dict(subtype="VORBIS", tolerance=0.1),
    "lossy.mp3": dict(subtype="MPEG_LAYER_III", tolerance=0.1),
    "stereo.wav": dict(subtype="PCM_16", channels=2, tolerance=1 / 32768),
    "surround.wav": dict(subtype="PCM_24", channels=6, tolerance=1 / 32768),
    "surround.flac": dict(subtype="PCM_24", channels=6, tolerance=1 / 32768),
}


@pytest.mark.reliability("R24")
@pytest.mark.parametrize("name", GOOD)
def test_good_audio_is_read(name, tmp_path):
    kind = dict(channels=1) | GOOD[name]
    expected = sounds.tone()
    channels = np.tile(expected[:, None], (1, kind["channels"]))
    _wav(tmp_path / name, channels, subtype=kind["subtype"])
    pcm, counts = _read(tmp_path / name)
    # MP3 pads at both ends; its decoder takes the padding away again, or does not.
    assert abs(len(pcm) - len(expected)) <= (2500 if name.endswith(".mp3") else 0)
    num = min(len(pcm), len(expected))
    error = np.abs(pcm[:num] / 32768 - expected[:num])
    assert np.quantile(error, 0.9) <= kind["tolerance"]
    assert counts["clipped_samples"] == 0


@pytest.mark.reliability("R24")
@pytest.mark.parametrize("rate", [7_000, 8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_every_rate_is_resampled(rate, tmp_path):
    _wav(tmp_path / "a.wav", sounds.tone(1.0, rate=rate), rate=rate)
    pcm, _ = _read(tmp_path / "a.wav")
    assert abs(len(pcm) - RATE) <= 1
    # 440 Hz is in every band; the ends ring.
    expected = sounds.tone(1.0)[400 : len(pcm) - 400]
    np.testing.assert_allclose(pcm[400:-400] / 32768, expected, atol=1e-3)


@pytest.mark.reliability("R24")
def test_clipped_audio_is_limited_and_counted(tmp_path):
    loud = sounds.tone() * 2.2
    _wav(tmp_path / "loud.wav", loud, subtype="FLOAT")
    pcm, counts = _read(tmp_path / "loud.wav")
    assert pcm.max() == 32767 and pcm.min() == -32768
    assert counts["clipped_samples"] == np.count_nonzero(np.abs(np.rint(loud * 32768)) > 32768)


@pytest.mark.reliability("R24")
def test_mono_policy_is_applied(tmp_path):
    left, right = sounds.tone(hertz=300), sounds.tone(hertz=700)
    _wav(tmp_path / "a.wav", np.stack([left, right], axis=1))
    for policy, expected in (("mean", (left + right) / 2), ("left", left), ("right", right)):
        pcm, _ = _read(tmp_path / "a.wav", mono=policy)
        np.testing.assert_allclose(pcm / 32768, expected, atol=1e-4)


def test_long_files_are_read_in_bounded_blocks(tmp_path, monkeypatch):
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE, 3)).astype(np.float32)
    _wav(tmp_path / "a.wav", sound, rate=44_100)
    whole, _ = _read(tmp_path / "a.wav")
    monkeypatch.setattr(audio_files, "_BLOCK_VALUES", 1000)
    with audio_files.opened(tmp_path / "a.wav") as opened:
        sizes = [block.size for block in opened.blocks]
    assert max(sizes) <= 1000
    np.testing.assert_array_equal(_read(tmp_path / "a.wav")[0], whole)


@pytest.mark.reliability("R24")
def test_length_is_limited_also_where_the_header_does_not_tell():
    blocks = (np.full((1000, 1), 0.1, np.float32) for _ in range(10**9))
    endless = audio_files.Sound(RATE, None, blocks)
    conversion = sounds.conversion(max_seconds=1.0)
    with pytest.raises(refusals.Refused, match="too_long"):
        list(conversion_lib.pcm16_blocks(endless, conversion, collections.Counter()))


def test_a_shortfall_that_the_decoder_passes_over_is_refused(tmp_path, monkeypatch):
    _wav(tmp_path / "a.wav", sounds.tone())
    read, calls = soundfile.SoundFile.read, []

    def read_once(self, *args, **kwargs):
        calls.append(1)
        return read(self, 100 if len(calls) == 1 else 0, **kwargs)  # of one block

    monkeypatch.setattr(soundfile.SoundFile, "read", read_once)
    with pytest.raises(refusals.Refused, match="damaged: 100 of 8000 samples came out"):
        _read(tmp_path / "a.wav")


def test_whatever_a_decoder_raises_is_a_refusal():
    def blocks():
        yield np.full((1000, 1), 0.1, np.float32)
        raise MemoryError("1 TiB")

    with pytest.raises(refusals.Refused, match="undecodable: MemoryError: 1 TiB"):
        sound = audio_files.Sound(RATE, None, blocks())
        list(conversion_lib.pcm16_blocks(sound, sounds.conversion(), collections.Counter()))


def test_encoded_bytes_are_read_like_files():
    stream = io.BytesIO()
    soundfile.write(stream, sounds.tone(), RATE, format="FLAC")
    stream.seek(0)
    np.testing.assert_allclose(_read(stream)[0] / 32768, sounds.tone(), atol=1e-4)
    with pytest.raises(refusals.Refused, match="not_sound"):
        _read(io.BytesIO(b"not a sound file"))


def test_names_that_are_not_utf8_are_opened(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.wav")
    _wav(tmp_path / "a.wav", sounds.tone())
    os.rename(tmp_path / "a.wav", path)
    for name in (path, os.fsdecode(path)):
        np.testing.assert_allclose(_read(name)[0] / 32768, sounds.tone(), atol=1e-4)


def test_folders_and_pipes_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    for path in (tmp_path / "pipe.wav", tmp_path):
        with pytest.raises(refusals.Refused, match="unreadable: not a file"):
            _read(path)


def test_the_name_of_a_file_does_not_matter(tmp_path):
    _wav(tmp_path / "a.wav", sounds.tone())
    (tmp_path / "a.wav").rename(tmp_path / "a.m4a")
    np.testing.assert_allclose(_read(tmp_path / "a.m4a")[0] / 32768, sounds.tone(), atol=1e-4)


def test_a_device_that_fails_while_it_is_read_is_unreadable():
    class Failing(io.BytesIO):
        def readinto(self, buffer):
            if self.tell() > 8_000:
                raise OSError(5, "Input/output error")
            return super().readinto(buffer)

    stream = io.BytesIO()
    soundfile.write(stream, sounds.tone(20.0), RATE, format="WAV")
    with pytest.raises(refusals.Refused, match="unreadable: Input/output error"):
        _read(Failing(stream.getvalue()))


@pytest.mark.parametrize("head, size", [(b"\xff\xfd\x90\xc0", 522), (b"\xff\xff\x80\xc0", 276)])
def test_layers_without_an_info_frame_come_whole(head, size):
    # Every other frame is padded, the first too: the decoder's guess is too short.
    padded = bytes((head[0], head[1], head[2] | 2, head[3]))
    step = 4 if size == 276 else 1
    frames = (padded + bytes(size + step - 4) + head + bytes(size - 4)) * 100
    with audio_files.opened(io.BytesIO(frames)) as sound:
        assert sum(map(len, sound.blocks)) == 200 * (384 if size == 276 else 1_152)


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3"])
def test_what_stands_before_damage_is_kept_on_demand(form):
    noise = containers.noise(np.random.default_rng(0), 4 * RATE, 1)
    content = bytearray(containers.encoded(noise, RATE, form))
    if form == "WAV":
        content = content[: len(content) * 3 // 4]
    else:
        place = len(content) * 3 // 4
        content[place : place + 600] = bytes(600)
    with pytest.raises(refusals.Refused, match="truncated" if form == "WAV" else "damaged"):
        _read(io.BytesIO(content))
    pcm, counts = _read(io.BytesIO(content), keep_damaged=True)
    assert counts["kept_truncated" if form == "WAV" else "kept_damaged"] == 1
    assert 2.0 * RATE < len(pcm) <= 3.1 * RATE
    if form in ("WAV", "FLAC"):
        np.testing.assert_array_equal(pcm, noise[: len(pcm), 0] * 32_768)


def test_nothing_before_the_damage_is_nothing_to_keep():
    content = containers.encoded(containers.noise(np.random.default_rng(0), RATE, 1), RATE, "FLAC")
    with pytest.raises(refusals.Refused, match="truncated"):
        _read(io.BytesIO(content[:200]), keep_damaged=True)


def test_what_is_no_sound_is_never_kept():
    with pytest.raises(refusals.Refused, match="not_sound"):
        _read(io.BytesIO(b"<html>"), keep_damaged=True)


# Seconds that come, or the reason of the refusal.
CASES = {
    "mp3_vbr_no_xing.mp3": 7.0,
    "mp3_xing_few_frames.mp3": 7.0,
    "mp3_cat.mp3": 14.0,
    "ogg_vorbis_chained.ogg": 2.0,
    "ogg_vorbis_truncated.ogg": "truncated",
    "noise_hole.ogg": "damaged",
    "flac_total_zero.flac": 7.0,
    "flac_total_too_few.flac": 7.0,
    "truncated_half.wav": "truncated",
    "stream_zero.wav": 1.0,
    "lfs_pointer.wav": "git_lfs",
}


@pytest.mark.parametrize("name", CASES)
def test_cases_have_their_right_answer(name):
    path = cases.folder("sounds") / name
    if isinstance(CASES[name], str):
        with pytest.raises(refusals.Refused) as refusal:
            _read(path)
        assert refusal.value.reason == CASES[name]
        return
    pcm, _ = _read(path)
    # Without an Info frame, what the encoder put around the sound stays, up to three frames of it.
    tolerance = 0.11 if name == "mp3_vbr_no_xing.mp3" else 0.0
    assert 0.0 <= len(pcm) / RATE - CASES[name] <= tolerance
