# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Texts in files of their own."""

import pytest

from data_pipelines.inputs import sidecars


def _read(folder, content, kind=""):
    path = folder / "u1.lab"
    path.write_text(content)
    (row,) = sidecars.read([str(path)], ".lab", kind).rows
    assert row.file == str(folder / "u1")
    return [(text.kind, text.content) for text in row.texts]


def test_the_lines_of_a_transcript_are_one_text(tmp_path):
    assert _read(tmp_path, "hello\r\n there \n\n") == [("transcript", "hello there")]
    assert _read(tmp_path, "a dog\n", "caption") == [("caption", "a dog")]
    assert _read(tmp_path, " \n") == []


@pytest.mark.parametrize(
    "content, kind, message",
    [
        ("0 1200 sil\n1200 3400 h\n", "", "got labels with times"),
        ("a dog\na cat\n", "caption", "one caption on one line, got 2 lines"),
        ("a\0b", "", "line 1, must be text"),
    ],
)
def test_what_is_no_text_of_one_sound_is_refused(content, kind, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        _read(tmp_path, content, kind)


def test_the_ending_is_what_follows_the_name():
    endings = map(sidecars.ending_of, ("*.txt", "txt/**/*.normalized.txt"))
    assert list(endings) == [".txt", ".normalized.txt"]
