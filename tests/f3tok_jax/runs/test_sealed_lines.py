# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Lines that say whether they are whole: no flipped bit changes what is read."""

import io
import json

import pytest

from f3tok_jax.runs import sealed_lines

_CONTENTS = [{"step": step, "train/loss": 1 / step, "text": "gr\u00fcn"} for step in (1, 2, 3)]
_FILE = b"".join(map(sealed_lines.make, _CONTENTS))


def _read(data: bytes) -> list:
    return [line.content for line in sealed_lines.read(io.BytesIO(data))]


def test_lines_come_back_with_the_step_first_and_the_sum_last():
    assert _read(_FILE) == _CONTENTS
    first = json.loads(_FILE.splitlines()[0])
    assert [*first] == ["step", "train/loss", "text", "sum"] and len(first["sum"]) == 8
    assert b"".join(line.data for line in sealed_lines.read(io.BytesIO(_FILE))) == _FILE


def test_no_flipped_bit_is_silent():
    num_found = 0
    for bit in range(8 * len(_FILE)):
        data = bytearray(_FILE)
        data[bit // 8] ^= 1 << bit % 8
        read = _read(bytes(data))
        num_found += None in read
        for content in filter(None, read):  # A flip in "sum" itself leaves a line of before.
            said = {name: value for name, value in content.items() if name in _CONTENTS[0]}
            assert said in _CONTENTS and len(content) - len(said) <= 1
        assert len(read) in (2, 3, 4) and len(read) - read.count(None) >= 1
    assert num_found > 0.95 * 8 * len(_FILE)


def test_lines_of_earlier_versions_are_taken_as_they_are():
    assert _read(b'{"step": 1}\n{"step": 2, "a": null}') == [{"step": 1}, {"step": 2, "a": None}]


@pytest.mark.parametrize(
    "damaged",
    [
        *(b"", b"\xff", b"\0", b"[1]", b"3", b'{"step": 1', b"[" * 100_000, b'{"sum": []}'),
        *(b"\xef\xbb\xbf{}", '{"a": 1}'.encode("utf-16"), b"{" + b'"a": 1,' * 700_000 + b"}"),
        *(_FILE.splitlines()[0].replace(b"1.0", b"1.5"), b"1" * 10_000, b"\0" * 9_000_000),
    ],
)
def test_damaged_lines_are_told_from_their_neighbours(damaged):
    good = sealed_lines.make({"step": 1})
    assert _read(good + damaged + b"\n" + good) == [{"step": 1}, None, {"step": 1}]


def test_numbers_that_json_lacks_are_refused():
    with pytest.raises(ValueError):
        sealed_lines.make({"step": 1, "loss": float("nan")})
