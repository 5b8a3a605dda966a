# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Ogg: pages by sum and number, streams by their flags, lengths by their granules."""

import io

import numpy as np
import pytest

from data_pipelines.containers import walk as walk_lib
from data_pipelines.sound import audio_files
from tests.support import containers

_SOUND = containers.noise(np.random.default_rng(0), 60_000, 1)
_VORBIS = containers.encoded(_SOUND, 16_000, "OGG", "VORBIS")
_OPUS = containers.encoded(_SOUND, 16_000, "OGG", "OPUS")


def _walk(content: bytes):
    return walk_lib.walk(io.BytesIO(content))


def _pages(content: bytes) -> list[bytes]:
    places, place = [], 0
    while place < len(content):
        places.append(place)
        lacing = content[place + 27 : place + 27 + content[place + 26]]
        place += 27 + len(lacing) + sum(lacing)
    return [content[start:stop] for start, stop in zip(places, [*places[1:], len(content)])]


def _again(page: bytes, **changes) -> bytes:
    """The page with changed fields, and the sum of what it is now."""
    fields = dict(
        flags=page[5],
        granule=int.from_bytes(page[6:14], "little", signed=True),
        number=int.from_bytes(page[18:22], "little"),
    )
    lacing = page[27 : 27 + page[26]]
    return containers.ogg_page(page[27 + len(lacing) :], lacing, **(fields | changes))


def _same_stream(content: bytes) -> list[bytes]:
    return [_again(page) for page in _pages(content)]


@pytest.mark.parametrize("content", [_VORBIS, _OPUS])
def test_a_whole_file_is_read_as_it_is(content):
    walk = _walk(content)
    assert walk.problem is None and walk.kind == "ogg"
    assert walk.streams[0].num_frames == 60_000 and walk.streams[0].pieces is None


@pytest.mark.parametrize("content", [_VORBIS, _OPUS])
def test_every_page_has_its_sum(content):
    place = 0
    for page in _pages(content):
        changed = bytearray(content)
        changed[place + len(page) - 1] ^= 1
        problem = _walk(bytes(changed)).problem
        assert problem.reason == "damaged" and f"byte {place} differs" in problem.detail
        place += len(page)


def test_a_missing_or_repeated_page_is_damage():
    pages = _same_stream(_VORBIS)
    assert len(pages) > 6 and _walk(b"".join(pages)).problem is None
    for changed in (pages[:4] + pages[5:], pages[:5] + pages[4:]):
        problem = _walk(b"".join(changed)).problem
        assert problem.reason == "damaged" and "follows page" in problem.detail


def test_a_stream_without_its_end_flag_is_truncated():
    pages = _same_stream(_VORBIS)
    walk = _walk(b"".join(pages[:-1]))
    assert walk.problem.reason == "truncated" and "end flag" in walk.problem.detail
    assert 0 < walk.streams[0].num_frames < 60_000
    assert _walk(_VORBIS[:-1]).problem.reason == "truncated"


def test_streams_one_after_the_other_are_read_one_after_the_other():
    walk = _walk(_VORBIS + _VORBIS + _VORBIS)
    assert walk.problem is None
    assert [stream.num_frames for stream in walk.streams] == [60_000] * 3
    size = len(_VORBIS)
    assert walk.streams[1].pieces == (range(size, 2 * size),)


def test_streams_of_other_rates_or_channels_are_refused():
    for other in (
        containers.encoded(_SOUND, 24_000, "OGG", "VORBIS"),
        containers.encoded(np.tile(_SOUND, (1, 2)), 16_000, "OGG", "VORBIS"),
    ):
        assert _walk(_VORBIS + other).problem.reason == "several_streams"


def test_streams_at_the_same_time_are_refused():
    first, *others = _pages(_VORBIS)
    content = first + _pages(_OPUS)[0] + b"".join(others)
    assert _walk(content).problem.reason == "several_streams"


def test_pages_of_no_stream_are_damage():
    pages = _pages(_VORBIS)
    foreign = containers.ogg_packet(b"?", 0, 0, 9)
    assert _walk(b"".join([*pages[:4], foreign, *pages[4:]])).problem.reason == "damaged"
    assert _walk(b"".join(pages[1:])).problem.reason == "damaged"
    assert _walk(_VORBIS + pages[-1]).problem.reason == "damaged"


def test_another_stream_before_the_end_of_the_first_is_truncation():
    content = b"".join(_pages(_VORBIS)[:-1]) + _VORBIS
    problem = _walk(content).problem
    assert problem.reason == "truncated" and "another stream begins" in problem.detail


@pytest.mark.parametrize("tail", [bytes(4_000), b"TAG" + b"x" * 125])
def test_padding_and_tags_may_follow(tail):
    assert _walk(_VORBIS + tail).problem is None


def test_other_bytes_may_not_follow():
    assert _walk(_VORBIS + b"garbage").problem.reason == "damaged"


def test_headers_alone_hold_no_sound():
    pages = _same_stream(_VORBIS)
    headers = b"".join(page for page in pages if page[6:14] == bytes(8))
    assert _walk(headers).problem.reason == "truncated"
    assert not _walk(headers).streams


@pytest.mark.parametrize("head, name", [(b"\x80theora", "theora"), (b"Speex   1.2", "Speex")])
def test_other_codecs_are_named(head, name):
    problem = _walk(containers.ogg_packet(head, 2, 0, 0)).problem
    assert problem.reason == "unsupported" and name in problem.detail


@pytest.mark.parametrize("content, step", [(_VORBIS, 1), (_OPUS, 3)])
def test_sound_cut_out_of_a_longer_stream_starts_where_it_did(content, step):
    # A recording of a broadcast keeps the granules that it had.
    pages = [
        page
        if int.from_bytes(page[6:14], "little", signed=True) <= 0
        else _again(page, granule=int.from_bytes(page[6:14], "little") + step * 10**7)
        for page in _same_stream(content)
    ]
    walk = _walk(b"".join(pages))
    assert walk.problem is None
    # Of Vorbis, only the decoder knows how long its packets are.
    assert walk.streams[0].num_frames == (None if content is _VORBIS else 60_000)


def test_opus_that_does_not_say_its_rate_is_decoded_at_the_highest():
    first, *others = _same_stream(_OPUS)
    head = first[27 + first[26] :]
    unknown = containers.ogg_packet(head[:12] + bytes(4) + head[16:], 2, 0, 0)
    content = unknown + b"".join(others)
    assert _walk(content).problem is None
    assert _walk(content).streams[0].layout == (48_000, 1)
    with audio_files.opened(io.BytesIO(content)) as sound:
        assert sum(map(len, sound.blocks)) == 180_000
