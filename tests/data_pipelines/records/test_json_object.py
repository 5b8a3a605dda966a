# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""JSON objects of others: read, or refused in a sentence."""

import pytest

from data_pipelines.records import json_object


def test_an_object_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [{"b": 1}, {"b": 2}], "c": {"a": "ä"}}', encoding="utf-8")
    assert json_object.read(path) == {"a": [{"b": 1}, {"b": 2}], "c": {"a": "ä"}}


@pytest.mark.parametrize(
    "content,message",
    [
        (b"", "must be a JSON object, got: Expecting value"),
        (b"[]", "must be a JSON object, got list"),
        (b'{"a": "\xff"}', "must be a JSON object, got: .*decode"),
        (b"[" * 10**5, "must be a JSON object, got: "),
        (b'{"c": {"b": 2, "a": 1, "b": 3}}', "got: the name 'b' twice in one object"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ],
)
def test_what_is_none_is_refused(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"a.json .*{message}"):
        json_object.read(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "a.json"
    with open(path, "wb") as file:
        file.truncate(2**26 + 1)
    with pytest.raises(ValueError, match="must be a small file, got 67108865 bytes"):
        json_object.read(path)
