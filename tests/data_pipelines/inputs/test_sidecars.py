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


def test_the_times_of_a_whole_sound_are_no_part_of_its_text(tmp_path):
    said = [("transcript", "She had your dark suit.")]
    assert _read(tmp_path, "0 46797 She had your dark suit. \n") == said  # TIMIT
    assert _read(tmp_path, "0.000000\t2.924812\tShe had your dark suit.\n") == said


@pytest.mark.parametrize("text", ["3 1 4", "1 2 3 go", "0 0 7", "0 1 2 3", "0 5 hello", "0 46797"])
def test_figures_that_are_said_are_a_text(text, tmp_path):
    assert _read(tmp_path, text) == [("transcript", text)]


@pytest.mark.parametrize(
    "content, kind, message",
    [
        ("0 1200 sil\n1200 3400 h\n", "", "got labels with times"),
        ("0.5\t1.25\thello\n1.5\t2.0\tthere\n", "", "got labels with times"),  # Audacity
        ("0 0.3 hello\n0.3 0.6\n", "", "got labels with times"),
        ("u1 1 0.00 0.31 hello\nu1 1 0.31 0.60 there\n", "", "got labels with times"),  # CTM
        ("A 1 ann 0.10 0.25 <o,f0> hello\n", "", "got labels with times"),  # STM
        ("1\n00:00:00,000 --> 00:00:01,500\nhello\n", "", "got times, '00:00:00,000 -->"),
        ("WEBVTT\n\n00:00.000 --> 00:01.500\nhello\n", "", "got times"),
        ("[00:12.34]hello\n", "", "got times, .\\[00:12.34"),
        ('{"text": " hello", "segments": []}', "", "got JSON: give it by --metadata, with"),
        ('[\n{"text": "hello"}\n]\n', "", "got JSON"),
        ("start\tend\ttext\n0\t200\thello\n", "", "got labels with times"),  # Whisper
        ('File type = "ooTextFile"\nObject class = "TextGrid"\n', "", "got a TextGrid"),
        ("<?xml version='1.0'?>\n<a/>\n", "", "got XML"),
        ("{\\rtf1\\ansi hello}", "", "got RTF"),
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
