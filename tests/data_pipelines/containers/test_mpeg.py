# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""MPEG audio: frames by their headers, whatever its Info frame and what lies between say."""

import io

import numpy as np
import pytest

from data_pipelines.containers import content as content_lib
from data_pipelines.containers import mpeg
from data_pipelines.containers import walk as walk_lib
from tests.support import containers

_NOISE = containers.noise(np.random.default_rng(0), 10_000, 1)
_MP3 = containers.mp3(_NOISE, 16_000)
_COUNT = containers.lame_count(_MP3)
_ID3 = b"ID3\x04\0\0\0\0\x01\x00" + b"t" * 128
_ID3V1 = b"TAG" + b"t" * 125
_APE = b"APETAGEX" + (2_000).to_bytes(4, "little") + (20 + 32).to_bytes(4, "little")
_APE += (1).to_bytes(4, "little") + b"\0\0\0\xa0" + bytes(8)
_APE_TAG = _APE + b"t" * 20 + _APE[:20] + b"\0\0\0\x80" + bytes(8)


def _walk(content: bytes):
    return walk_lib.walk(io.BytesIO(content))


def _with_count(content: bytes, count: int) -> bytes:
    place = max(content.find(b"Xing", 0, 64), content.find(b"Info", 0, 64)) + 8
    return content[:place] + count.to_bytes(4, "big") + content[place + 4 :]


def test_a_whole_file_is_read_as_it_is():
    walk = _walk(_MP3)
    assert walk.problem is None and walk.kind == "mpeg"
    assert walk.streams[0].num_frames == 10_000 and walk.streams[0].pieces is None


def test_a_file_without_an_info_frame_is_counted():
    walk = _walk(containers.without_info(_MP3))
    assert walk.problem is None and walk.streams[0].num_frames == _COUNT * 576 - 529


@pytest.mark.parametrize("count", [10, 0])
def test_a_count_that_lies_is_set_right(count):
    walk = _walk(_with_count(_MP3, count))
    assert walk.problem is None
    assert containers.lame_count(walk.streams[0].pieces[0]) == _COUNT


def test_an_info_frame_that_is_changed_otherwise_is_damaged():
    at = _MP3.index(b"LAME3") + 21
    content = _MP3[:at] + bytes((_MP3[at] ^ 0x10,)) + _MP3[at + 1 :]
    problem = _walk(content).problem
    assert problem.reason == "damaged" and "differs from its sum" in problem.detail


@pytest.mark.parametrize("channels, rate", [(1, 8_000), (1, 44_100), (2, 16_000), (2, 44_100)])
def test_the_sum_of_ffmpeg_takes_in_190_bytes_of_any_frame(channels, rate):
    content = containers.mp3(np.tile(_NOISE, (1, channels)), rate)
    content = containers.with_sum_of_ffmpeg(content)
    walk = _walk(content)
    assert walk.problem is None and walk.streams[0].num_frames == 10_000
    at = content.index(b"Lavf") + 21
    walk = _walk(content[:at] + bytes((content[at] ^ 0x10,)) + content[at + 1 :])
    assert "differs from its sum" in walk.problem.detail


def test_an_info_frame_may_have_a_sum_of_its_header():
    with_sum = _MP3[:1] + bytes((_MP3[1] & 0xFE,)) + _MP3[2:4] + b"\x60\xe0" + _MP3[6:]
    walk = _walk(containers.with_sum_of_ffmpeg(with_sum))
    assert walk.problem is None and walk.streams[0].num_frames == 10_000


@pytest.mark.parametrize("place, size", [(9, 1), (100, 60)])
def test_an_info_frame_without_order_is_damaged(place, size):
    content = bytearray(_MP3)
    content[place : place + size] = bytes(size) if size > 1 else b"\x40"
    assert _walk(bytes(content)).problem.reason == "damaged"


def test_an_info_frame_that_lost_its_tag_is_damaged():
    place = max(_MP3.find(b"Xing", 0, 64), _MP3.find(b"Info", 0, 64))
    problem = _walk(_MP3[:place] + bytes(4) + _MP3[place + 4 :]).problem
    assert problem.reason == "damaged" and "lost its tag" in problem.detail


def test_joined_files_are_streams_of_their_own():
    for between in (b"", _ID3V1, _ID3, _APE_TAG):
        walk = _walk(_MP3 + between + _MP3)
        assert walk.problem is None
        assert [stream.num_frames for stream in walk.streams] == [10_000, 10_000]


def test_frames_that_an_info_frame_does_not_count_are_refused():
    problem = _walk(_MP3 + containers.without_info(_MP3)).problem
    assert problem.reason == "damaged" and f"{_COUNT} frames behind the {_COUNT}" in problem.detail


@pytest.mark.parametrize("tail", [_ID3V1, _APE_TAG, _APE_TAG + _ID3V1, bytes(5_000), _ID3])
def test_tags_and_padding_may_follow(tail):
    walk = _walk(_ID3 + _MP3 + tail)
    assert walk.problem is None and walk.streams[0].num_frames == 10_000


@pytest.mark.parametrize("tail", [b"\1" * 500, b"garbage"])
def test_other_bytes_are_damage(tail):
    assert _walk(_MP3 + tail).problem.reason == "damaged"
    assert _walk(_MP3[:1_000] + tail + _MP3[1_000:]).problem.reason == "damaged"


def test_a_frame_that_is_cut_is_truncated():
    for content in (_MP3, containers.without_info(_MP3)):
        walk = _walk(content[:-1])
        assert walk.problem.reason == "truncated" and walk.streams
        for size in (1, 2, 3):  # of the next frame's header
            assert _walk(content + _MP3[:size]).problem.reason == "truncated"


def test_missing_frames_are_truncated():
    content = containers.without_info(_MP3)
    frame = content_lib.Content(io.BytesIO(content))
    first = next(mpeg._stretches(frame, range(len(content))))[0]
    size = len(_MP3) - len(content)
    cut = _MP3[: size + first.stop // 2]
    problem = _walk(cut).problem
    assert problem.reason == "truncated"


def test_one_frame_that_is_missing_is_told_from_an_info_frame_that_counts_itself():
    size = len(_MP3) - len(containers.without_info(_MP3))
    counted = _with_count(_MP3, _COUNT + 1)
    assert _walk(counted).problem is None
    place = size
    for _ in range(5):  # to the middle
        place += mpeg._header(_MP3[place : place + 4]).num_bytes
    cut = _MP3[:place] + _MP3[place + mpeg._header(_MP3[place : place + 4]).num_bytes :]
    assert _walk(cut).problem.reason == "truncated"


def test_streams_of_other_rates_or_channels_are_refused():
    others = (
        containers.mp3(_NOISE, 24_000),
        containers.mp3(_NOISE, 44_100),
        containers.mp3(np.tile(_NOISE, (1, 2)), 16_000),
    )
    for other in others:
        problem = _walk(_MP3 + other).problem
        assert problem.reason == "several_streams" and "16000 Hz in 1 channels" in problem.detail


def _silence(head: bytes, size: int, count: int) -> bytes:
    return (head + bytes(size - 4)) * count


@pytest.mark.parametrize(
    "head, size, per_frame",
    [
        (b"\xff\xfd\x90\xc0", 144 * 160_000 // 44_100, 1_152),  # version 1, layer II
        (b"\xff\xf5\x84\xc0", 144 * 64_000 // 24_000, 1_152),  # version 2, layer II
        (b"\xff\xff\x80\xc0", 12 * 256_000 // 44_100 * 4, 384),  # layer I
        (b"\xff\xe3\x88\xc0", 72 * 64_000 // 8_000, 576),  # version 2.5, layer III
    ],
)
def test_every_version_and_layer_is_counted(head, size, per_frame):
    walk = _walk(_silence(head, size, 20))
    decoder = 529 if head[1] & 6 == 2 else 0  # of layer III
    assert walk.problem is None and walk.streams[0].num_frames == 20 * per_frame - decoder
    assert _walk(_silence(head, size, 20)[:-1]).problem.reason == "truncated"


def test_free_format_is_named():
    problem = _walk(_silence(b"\xff\xfb\x00\xc0", 500, 20)).problem
    assert problem.reason == "unsupported" and "free format" in problem.detail


def test_an_info_frame_of_fraunhofer_is_left_out():
    frames = containers.without_info(_MP3)
    frame = b"\xff\xf3\x88\xc4" + bytes(32) + b"VBRI" + bytes(6)
    size = 72 * 64_000 // 16_000
    frame += (len(frames) + size).to_bytes(4, "big") + _COUNT.to_bytes(4, "big")
    walk = _walk(frame.ljust(size, b"\0") + frames)
    assert walk.problem is None and walk.streams[0].num_frames == _COUNT * 576 - 529
