# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""AIFF, AU, CAF and NIST SPHERE as pipes, copies and other programs leave them."""

import io
import struct

import numpy as np
import pytest

from data_pipelines.containers import walk as walk_lib
from tests.support import containers

_SOUND = containers.noise(np.random.default_rng(0), 1_000, 2)
_FORMS = {
    form: containers.encoded(_SOUND, 16_000, form, "PCM_16")
    for form in ("AIFF", "AU", "CAF", "NIST")
}


def _walk(content: bytes):
    return walk_lib.walk(io.BytesIO(content))


def _changed(form: str, name: bytes, skip: int, code: str, value: int) -> bytes:
    content = _FORMS[form]
    at = content.index(name) + skip
    return content[:at] + struct.pack(code, value) + content[at + struct.calcsize(code) :]


@pytest.mark.parametrize("form", _FORMS)
def test_a_whole_file_is_read_as_it_is(form):
    walk = _walk(_FORMS[form])
    assert walk.problem is None
    assert walk.streams[0].num_frames == 1_000 and walk.streams[0].pieces is None


@pytest.mark.parametrize("form", _FORMS)
def test_a_missing_byte_is_truncated(form):
    content = _FORMS[form]
    start = content.index(b"SSND") + 16 if form == "AIFF" else len(content) - 4_000
    walk = _walk(content[: start + 3_999])
    assert walk.problem.reason == "truncated" and walk.streams[0].num_frames == 999


@pytest.mark.parametrize("form", _FORMS)
def test_bytes_behind_the_samples_are_damage_but_for_padding(form):
    content = _FORMS[form]
    assert _walk(content + bytes(1_000)).problem is None
    assert _walk(content + b"\1\2\3\4" * 100).problem.reason == "damaged"


@pytest.mark.parametrize("form", _FORMS)
def test_a_header_alone_is_truncated(form):
    for stop in (16, 21):
        walk = _walk(_FORMS[form][:stop])
        assert not walk.streams and walk.problem.reason in ("truncated", "damaged")


@pytest.mark.parametrize(
    "form, name, skip, code, value",
    [
        ("AIFF", b"COMM", 8, ">H", 0),  # channels
        ("AIFF", b"COMM", 10, ">I", 999),  # samples, which the bytes contradict
        ("AIFF", b"COMM", 14, ">H", 40),  # bits
        ("AIFF", b"SSND", 8, ">I", 2**20),  # where samples start
        ("AU", b".snd", 4, ">I", 8),
        ("AU", b".snd", 20, ">I", 0),  # channels
        ("CAF", b"desc", 12 + 16, ">I", 6),  # bytes of a sample
        ("CAF", b"desc", 12 + 24, ">I", 0),  # channels
        ("CAF", b"desc", 12 + 28, ">I", 33),  # bits
        ("NIST", b"channel_count -i ", 17, "c", b"0"),
        ("NIST", b"sample_count", 0, "c", b"x"),
    ],
)
def test_a_header_that_contradicts_itself_is_damaged(form, name, skip, code, value):
    assert _walk(_changed(form, name, skip, code, value)).problem.reason == "damaged"


@pytest.mark.parametrize(
    "form, name, skip, code, value",
    [
        *(("AIFF", b"SSND", 4, ">I", size) for size in (0, 2**32 - 1, 2**31 - 1, 0x7F000008)),
        *(("AU", b".snd", 8, ">I", size) for size in (0, 2**32 - 1, 2**31 - 1)),
        *(("CAF", b"data", 4, ">q", size) for size in (-1, 0)),
    ],
)
def test_a_size_of_a_pipe_reaches_to_the_end(form, name, skip, code, value):
    walk = _walk(_changed(form, name, skip, code, value))
    assert walk.problem is None and walk.streams[0].num_frames == 1_000


def test_little_endian_au_is_walked():
    content = containers.encoded(_SOUND, 16_000, "AU", "PCM_16", endian="LITTLE")
    assert content.startswith(b"dns.") and _walk(content).streams[0].num_frames == 1_000


@pytest.mark.parametrize("coding", [b"pcm,embedded-shorten-v2.00", b"wavpack"])
def test_sphere_that_is_compressed_is_named(coding):
    head = b"NIST_1A\n   1024\nsample_coding -s%d %s\nend_head\n" % (len(coding), coding)
    problem = _walk(head.ljust(1_024) + bytes(100)).problem
    assert problem.reason == "unsupported" and coding.decode() in problem.detail


def test_other_forms_are_named():
    assert _walk(b"FORM\0\0\0\x20ILBMBMHD").problem.reason == "unsupported"


@pytest.mark.parametrize("form", _FORMS)
def test_joined_files_are_refused(form):
    problem = _walk(_FORMS[form] * 2).problem
    assert problem.reason == ("several_streams" if form == "AIFF" else "damaged")


def test_a_count_beyond_all_files_is_truncated():
    head = (
        b"NIST_1A\n   1024\nsample_count -i %d\nchannel_count -i 1\nsample_n_bytes -i 2\nend_head\n"
    )
    problem = _walk((head % 10**30).ljust(1_024) + bytes(100)).problem
    assert problem.reason == "truncated"
    assert _walk(_changed("CAF", b"data", 4, ">q", 2**63 - 1)).problem.reason == "truncated"
