# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""WAV, RF64 and W64 as recorders, pipes and copies leave them."""

import io
import struct

import numpy as np
import pytest

from data_pipelines.containers import walk as walk_lib
from data_pipelines.sound import audio_files
from tests.support import containers

_SOUND = containers.noise(np.random.default_rng(0), 1_000, 2)
_WAV = containers.encoded(_SOUND, 16_000, "WAV", "PCM_16")
_DATA = _WAV.index(b"data") + 4


def _walk(content: bytes):
    return walk_lib.walk(io.BytesIO(content))


def _with_size(size: int, content: bytes = _WAV) -> bytes:
    return content[:_DATA] + struct.pack("<I", size) + content[_DATA + 4 :]


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def test_a_whole_file_is_read_as_it_is():
    walk = _walk(_WAV)
    assert walk.problem is None and walk.kind == "wav"
    assert walk.streams[0].num_frames == 1_000 and walk.streams[0].pieces is None


@pytest.mark.parametrize(
    "size", [0, 2**32 - 1, 2**31 - 1, 0x7FFFF000, 0x7FFFF024, 2**31, 2**32 - 37]
)
def test_a_size_of_a_pipe_reaches_to_the_end(size):
    walk = _walk(_with_size(size))
    assert walk.problem is None and walk.streams[0].num_frames == 1_000
    # The decoder is shown a header with the right size.
    head = walk.streams[0].pieces[0]
    assert struct.unpack("<I", head[-4:]) == (4_000,)


def test_a_pipe_that_ends_inside_a_sample_is_truncated():
    assert _walk(_with_size(2**32 - 1)[:-1]).problem.reason == "truncated"


def test_nothing_is_nothing():
    empty = _with_size(0)[: _DATA + 4]
    assert _walk(empty).problem is None and _walk(empty).streams[0].num_frames == 0
    walk = _walk(empty + _chunk(b"LIST", b"INFOx"))
    assert walk.problem is None and walk.streams[0].num_frames == 0


def test_samples_behind_the_size_are_refused():
    problem = _walk(_with_size(2_000)).problem
    assert problem.reason == "damaged" and "2000 bytes behind the samples" in problem.detail


def test_a_size_beyond_the_end_is_truncated():
    walk = _walk(_with_size(4_004))
    assert walk.problem.reason == "truncated" and walk.streams[0].num_frames == 1_000
    assert walk.problem.detail == "4000 of 4004 bytes of samples are there"


@pytest.mark.parametrize(
    "tail",
    [
        _chunk(b"LIST", b"INFOISFT\4\0\0\0abc\0"),
        _chunk(b"id3 ", b"ID3 whatever"),
        _chunk(b"odd ", b"123")[:-1],  # without the byte that makes it even
        _chunk(b"LIST", b"INFO" + b"x" * 60)[:-20],
        _chunk(b"xyz ", b"12") + bytes(300),
        bytes(4_096),
        b"TAG" + b"x" * 125,
    ],
)
def test_chunks_tags_and_padding_may_follow(tail):
    walk = _walk(_WAV + tail)
    assert walk.problem is None and walk.streams[0].num_frames == 1_000


@pytest.mark.parametrize("tail", [b"\1\2\3\4" * 300, bytes(2**17), b"\x80" * 5, _WAV[44:144]])
def test_other_bytes_may_not(tail):
    assert _walk(_WAV + tail).problem.reason == "damaged"


@pytest.mark.parametrize(
    "place, code, value",
    [
        (22, "<H", 0),  # channels
        (22, "<H", 3),
        (24, "<I", 16_001),  # rate, which bytes per second contradict
        (32, "<H", 0),  # bytes of a sample
        (32, "<H", 6),
        (34, "<H", 0),  # bits
        (34, "<H", 24),
        (20, "<H", 3),  # floats of 16 bits
    ],
)
def test_a_header_that_contradicts_itself_is_damaged(place, code, value):
    content = bytearray(_WAV)
    content[place : place + struct.calcsize(code)] = struct.pack(code, value)
    assert _walk(bytes(content)).problem.reason == "damaged"


@pytest.mark.parametrize("speed", [0, 16_000 * 2 * 12 // 8])
def test_bytes_per_second_may_be_left_out_or_count_bits(speed):
    content = bytearray(_WAV)
    content[28:32], content[34:36] = struct.pack("<I", speed), struct.pack("<H", 12)
    assert _walk(bytes(content)).problem is None


def test_samples_that_may_lie_on_either_side_are_unsupported():
    content = bytearray(_WAV)
    content[28:32], content[32:36] = struct.pack("<I", 16_000 * 8), struct.pack("<HH", 8, 24)
    problem = _walk(bytes(content)).problem
    assert problem.reason == "unsupported" and "24 bits in 4 bytes" in problem.detail


def test_chunks_without_their_even_byte_are_walked():
    odd = _chunk(b"junk", b"abc")[:-1]
    walk = _walk(_WAV[:12] + odd + _WAV[12:])
    assert walk.problem is None and walk.streams[0].num_frames == 1_000


def test_a_cut_before_the_samples_is_truncated():
    for stop in (9, 12, 20, 40, 43):
        walk = _walk(_WAV[:stop])
        assert not walk.streams and walk.problem.reason in ("truncated", "unsupported")
    assert _walk(_WAV[:20]).problem.reason == "truncated"


def test_a_size_above_4_gib_is_the_lower_half_of_the_file(tmp_path):
    # The file has holes: nothing but its header takes space.
    num_bytes = 2**32 + 4_000
    with open(tmp_path / "long.wav", "wb") as file:
        file.write(_with_size(num_bytes - 2**32)[: _DATA + 4])
        file.truncate(_DATA + 4 + num_bytes)
    with open(tmp_path / "long.wav", "rb") as file:
        walk = walk_lib.walk(file)
    assert walk.problem is None and walk.streams[0].num_frames == num_bytes // 4
    head, data = walk.streams[0].pieces
    assert head.startswith(b"RF64") and len(data) == num_bytes


def test_big_endian_is_read():
    order = {"endian": "BIG"}
    walk = _walk(containers.encoded(_SOUND, 16_000, "WAV", "PCM_16", **order))
    assert walk.problem is None and walk.streams[0].num_frames == 1_000


def test_other_forms_of_riff_are_named():
    assert _walk(b"RIFF\x10\0\0\0AVI LIST").problem.reason == "unsupported"


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "GSM610"])
def test_compressed_samples_are_counted_by_the_decoder(subtype):
    sound = _SOUND[:, :1]
    content = containers.encoded(sound, 16_000, "WAV", subtype)
    assert _walk(content).problem is None and _walk(content).streams[0].num_frames is None
    assert _walk(content[:-100]).problem.reason == "truncated"


def test_mpeg_inside_wav_is_walked_frame_by_frame():
    sound = containers.mp3(_SOUND, 16_000)
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 2, 16_000, 4_000, 1, 0, 12, 1, 2, 576, 1, 0)
    body = b"WAVE" + _chunk(b"fmt ", form) + _chunk(b"data", sound)
    content = b"RIFF" + struct.pack("<I", len(body)) + body
    assert _walk(content).problem is None and _walk(content).streams[0].num_frames == 1_000
    assert _walk(content[:-50]).problem.reason == "truncated"


_W64 = containers.encoded(_SOUND, 16_000, "W64", "PCM_16")


@pytest.mark.parametrize("size", [0, 24, 2**63 - 1, 2**64 - 1])
def test_w64_of_a_pipe_reaches_to_the_end(size):
    at = _W64.index(b"data") + 16
    walk = _walk(_W64[:at] + struct.pack("<Q", size) + _W64[at + 8 :])
    assert walk.problem is None and walk.streams[0].num_frames == 1_000


def test_w64_is_held_to_its_size():
    assert _walk(_W64[:-8]).problem.reason == "truncated"
    assert _walk(_W64 + b"12345678" * 9).problem.reason == "damaged"
    assert _walk(_W64[:5] + b"x" + _W64[6:]).problem.reason == "damaged"


@pytest.mark.parametrize("content", [_WAV, _W64, containers.encoded(_SOUND, 16_000, "RF64")])
def test_joined_files_are_refused(content):
    problem = _walk(content + content).problem
    assert problem.reason == "several_streams" and f"byte {len(content)}" in problem.detail


@pytest.mark.parametrize("name, size", [(b"cue ", 4), (b"levl", 160), (b"PAD ", 440), (b"inst", 7)])
def test_a_chunk_of_zeros_may_follow(name, size):
    chunk = name + struct.pack("<I", size) + bytes(size)
    for content in (_WAV + chunk, _WAV + chunk + b"\0", _WAV + chunk + chunk):
        assert _walk(content).problem is None


def test_a_byte_that_is_forgotten_before_the_samples_does_not_stop_the_decoder():
    at = _WAV.index(b"data")
    for behind in (b"", b"\0"):
        content = _WAV[:at] + b"iXML" + struct.pack("<I", 3) + b"<x>" + behind + _WAV[at:]
        with audio_files.opened(io.BytesIO(content)) as sound:
            assert np.array_equal(np.concatenate(list(sound.blocks)), _SOUND)
