# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Files are told apart by what they hold: containers, and what is no sound at all."""

import io

import numpy as np
import pytest

from data_pipelines.containers import content as content_lib
from data_pipelines.containers import walk as walk_lib
from tests.support import containers


@pytest.mark.parametrize(
    "content, reason, said",
    [
        (b"", "empty", "0 bytes"),
        (bytes(70_000), "not_sound", "all of them zero"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git_lfs", "git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "not_sound", "HTML"),
        (b"\xef\xbb\xbf\n <HTML lang=en>", "not_sound", "HTML"),
        (b"<?xml version='1.0'?><Error/>", "not_sound", "XML"),
        (b'{"error": "not found"}', "not_sound", "JSON"),
        ("Zugriff verweigert: für dich nicht".encode(), "not_sound", "text"),
        (b"\0\0\0\x20ftypM4A " + bytes(100), "unsupported", "M4A"),
        (b"\x1a\x45\xdf\xa3" + b"\x9f" * 90, "unsupported", "Matroska"),
        (b"\xff\xf1\x50\x80\x2e\x7f\xfc" + bytes(90), "unsupported", "AAC"),
        (b"#!AMR\n\x3c" + b"\x9f" * 90, "unsupported", "AMR"),
        (b"ajkg\x02" + b"\x9f" * 90, "unsupported", "Shorten"),
        (b"PK\x03\x04" + b"\x9f" * 90, "not_sound", "ZIP"),
        (b"\x1f\x8b\x08" + b"\x9f" * 90, "not_sound", "gzip"),
        (b"ID3\x04\0\0\0\0\0\x0a" + b"t" * 10, "not_sound", "tags"),
        (b"ID3\x04\0\0\0\0\0\x0a" + b"t" * 9, "truncated", "tags"),
        (np.random.default_rng(0).bytes(5_000), "undecodable", "no known header"),
    ],
)
def test_what_is_no_sound_is_named(content, reason, said):
    walk = walk_lib.walk(io.BytesIO(content))
    assert not walk.streams
    assert walk.problem.reason == reason and said in walk.problem.detail


@pytest.mark.parametrize("kind", containers.KINDS)
def test_sound_is_known_behind_a_tag(kind):
    made = containers.KINDS[kind](np.random.default_rng(0))
    walk = walk_lib.walk(io.BytesIO(b"ID3\x04\0\0\0\0\0\x0a" + b"t" * 10 + made.content))
    assert walk.problem is None
    counts = [stream.num_frames for stream in walk.streams]
    assert sum(counts) == made.num_frames
    assert all(stream.pieces for stream in walk.streams)


def test_pieces_are_read_as_one_file():
    file = io.BytesIO(bytes(range(100)))
    pieces = content_lib.PiecesFile(file, (b"ab", range(10, 13), b"c", range(50, 52)))
    assert pieces.read() == b"ab\x0a\x0b\x0cc\x32\x33"
    assert pieces.seek(0, 2) == 8 and pieces.read() == b""
    assert pieces.seek(-3, 1) == 5 and pieces.read(2) == b"c\x32"
    assert pieces.seek(3) == 3 and pieces.read(1) == b"\x0b"


def test_bytes_that_the_system_does_not_give_are_an_end_with_a_reason():
    class Broken(io.BytesIO):
        def readinto(self, buffer):
            raise OSError(5, "Input/output error")

    pieces = content_lib.PiecesFile(Broken(b"1234"), (b"ab", range(0, 4)))
    assert pieces.read(6) == b"ab" and pieces.read(6) == b""
    assert pieces.error.errno == 5


def test_patterns_are_found_across_windows(monkeypatch):
    monkeypatch.setattr(content_lib, "_WINDOW", 8)
    content = content_lib.Content(io.BytesIO(b"..fLaC.fLaC....fLaC"))
    assert list(content.find(b"fLaC", 0, 19)) == [2, 7, 15]
    assert list(content.find(b"fLaC", 3, 18)) == [7]
