# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""FLAC with totals that are unknown or lie, cut, joined and damaged."""

import io

import numpy as np
import pytest

from data_pipelines.containers import walk as walk_lib
from data_pipelines.sound import audio_files
from tests.support import containers

_SOUND = containers.noise(np.random.default_rng(0), 10_000, 2)
_FLAC = containers.encoded(_SOUND, 16_000, "FLAC", "PCM_16")


def _walk(content: bytes):
    return walk_lib.walk(io.BytesIO(content))


def _total(piece: bytes) -> int:
    return int.from_bytes(piece[18:26], "big") & 2**36 - 1


def test_a_whole_file_is_read_as_it_is():
    walk = _walk(_FLAC)
    assert walk.problem is None and walk.kind == "flac"
    assert walk.streams[0].num_frames == 10_000 and walk.streams[0].pieces is None


@pytest.mark.parametrize("total", [0, 1, 9_999])
def test_a_total_that_is_unknown_or_too_small_is_set_right(total):
    walk = _walk(containers.with_flac_total(_FLAC, total))
    assert walk.problem is None and walk.streams[0].num_frames == 10_000
    assert _total(walk.streams[0].pieces[0]) == 10_000


def test_a_total_that_is_too_large_is_truncated():
    walk = _walk(containers.with_flac_total(_FLAC, 10_001))
    assert walk.problem.reason == "truncated" and walk.streams[0].num_frames == 10_000
    assert walk.problem.detail == "10000 of 10001 samples are there"


@pytest.mark.parametrize("total", [10_000, 0])
def test_a_cut_is_truncated_wherever_it_is(total):
    content = containers.with_flac_total(_FLAC, total)
    for stop in [*range(5, 100, 7), len(content) // 2, len(content) - 1]:
        assert _walk(content[:stop]).problem.reason == "truncated"


def test_tags_and_padding_are_no_sound():
    id3 = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)
    for content in (id3 + _FLAC, _FLAC + b"TAG" + b"x" * 125, _FLAC + bytes(3_000)):
        walk = _walk(content)
        assert walk.problem is None and walk.streams[0].num_frames == 10_000


@pytest.mark.parametrize("tail", [b"TAG" + b"x" * 125, bytes(3_000)])
def test_what_follows_the_sound_is_not_shown_to_the_decoder(tail):
    with audio_files.opened(io.BytesIO(_FLAC + tail)) as sound:
        assert np.array_equal(np.concatenate(list(sound.blocks)), _SOUND)


def test_samples_of_more_than_24_bits_are_named():
    packed = int.from_bytes(_FLAC[18:26], "big") | 31 << 36
    problem = _walk(_FLAC[:18] + packed.to_bytes(8, "big") + _FLAC[26:]).problem
    assert problem.reason == "unsupported" and "32 bits" in problem.detail


def test_bytes_behind_the_last_frame_are_refused():
    assert _walk(_FLAC + b"garbage").problem.reason == "truncated"


def test_joined_files_are_streams_of_their_own():
    walk = _walk(_FLAC + _FLAC)
    assert walk.problem is None
    assert [stream.num_frames for stream in walk.streams] == [10_000, 10_000]
    assert walk.streams[1].pieces == (range(len(_FLAC), 2 * len(_FLAC)),)


@pytest.mark.parametrize("place", [18, 19, 20])
def test_a_header_that_its_frames_contradict_is_damaged(place):
    content = bytearray(_FLAC)
    content[place] ^= 0x08  # of rate, channels or bits
    assert _walk(bytes(content)).problem.reason == "damaged"


def test_blocks_of_other_sizes_are_measured():
    for num_frames in (4_096, 4_097, 8_192, 12_288, 15, 17):
        content = containers.encoded(_SOUND[:num_frames], 16_000, "FLAC", "PCM_24")
        content = containers.with_flac_total(content, 0)
        assert _walk(content).streams[0].num_frames == min(num_frames, 10_000)
