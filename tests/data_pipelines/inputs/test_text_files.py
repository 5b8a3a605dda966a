# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Text is read in the encoding that it is in, or refused with the line."""

import codecs

import pytest

from data_pipelines.inputs import text_files


@pytest.mark.parametrize(
    "data",
    [
        "a\n\u00fc\n".encode(),
        codecs.BOM_UTF8 + "a\n\u00fc\n".encode(),
        "a\n\u00fc\n".encode("utf-16"),
        codecs.BOM_UTF16_BE + "a\n\u00fc\n".encode("utf-16-be"),
        "a\n\u00fc\n".encode("utf-32"),
        "a\r\u00fc\r".encode(),
    ],
)
def test_encodings_with_a_mark_and_utf_8_are_read(data, tmp_path):
    (tmp_path / "a.csv").write_bytes(data)
    assert text_files.read(tmp_path / "a.csv") == "a\n\u00fc\n"


@pytest.mark.parametrize(
    "data, message",
    [
        (b"a\nb\n\xfc\n", "a.csv, line 3, must be in UTF-8 .*iconv -f LATIN1 -t UTF-8 .*a.csv"),
        (b"a\n\0\n", "a.csv, line 2, must be text, got a zero byte"),
        ("a\nb".encode("utf-16-le"), "line 1, must be text"),
        ("a\n\u00fc\n".encode("utf-16")[:-1], "line 2, must be in UTF-8 or"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_other_bytes_are_refused_by_line(data, message, tmp_path):
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        text_files.read(tmp_path / "a.csv")
