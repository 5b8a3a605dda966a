# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Seals: every changed bit of what a file says is noticed."""

import json

import pytest

from data_pipelines.records import sealed

_CONTENT = {"mean": [0.1, -2.5e-7], "name": "whitening", "steps": {"of": (1, 2)}, "none": None}


def test_sealed_content_is_read_as_it_was():
    text = json.dumps(sealed.seal(_CONTENT), indent=2)
    found = sealed.opened(json.loads(text), "frozen.json", required=True)
    assert found == json.loads(json.dumps(_CONTENT))


def test_every_flipped_bit_is_noticed_or_changes_nothing():
    data = json.dumps(sealed.seal(_CONTENT)).encode()
    wanted = json.loads(json.dumps(_CONTENT))
    for place in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        try:
            content = json.loads(flipped.decode())
            found = sealed.opened(content, "frozen.json", required=True)
        except (ValueError, TypeError):
            continue
        assert found == wanted


def test_a_file_without_a_seal_is_of_an_earlier_version_unless_it_must_have_one():
    assert sealed.opened(_CONTENT, "frozen.json") == _CONTENT
    with pytest.raises(sealed.Broken, match="frozen.json must have the seal .*, got none"):
        sealed.opened(_CONTENT, "frozen.json", required=True)


def test_a_file_is_read_by_what_every_version_has():
    kinds, content = {"step": int, "measured": dict}, {"step": 3, "measured": {}}
    sealed_bytes = json.dumps(sealed.seal(content | {"new": 1})).encode()
    assert sealed.read(json.dumps(content).encode(), "it", kinds) == content
    assert sealed.read(sealed_bytes, "it", kinds) == content | {"new": 1}
    for damaged in (
        sealed_bytes.replace(b'"seal"', b'"seam"'),
        json.dumps(content | {"new": 1}).encode(),
        json.dumps({"step": True, "measured": {}}).encode(),
        json.dumps({"step": 3}).encode(),
        b"[" * 10**5,
        b"[]",
        b"\xff{",
    ):
        with pytest.raises(sealed.Broken, match="^it must .* copy it from where it is whole$"):
            sealed.read(damaged, "it", kinds)
