# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Tars that are whole, and those that end early, go on behind their end or are none."""

import gzip
import tarfile

import numpy as np
import pytest

from data_pipelines.inputs import tars as tars_lib
from tests.support import tars


def _names(path) -> list[str]:
    return [member.name for member in tars_lib.members(str(path))]


def _whole(tmp_path):
    return tars.write(
        tmp_path / "a.tar", [(f"{index}.wav", tars.encoded(index)) for index in range(4)]
    )


def _cut(tmp_path, place):
    data = _whole(tmp_path).read_bytes()
    (tmp_path / "a.tar").write_bytes(data[:place])


def _end_of_members(tmp_path) -> int:
    with tarfile.open(_whole(tmp_path)) as tar:
        last = tar.getmembers()[-1]
    return last.offset_data + -(-last.size // 512) * 512


@pytest.mark.parametrize("place", [100, 512, 700, 20_000, -1, "no end mark", "half an end mark"])
def test_a_tar_that_is_cut_is_refused(place, tmp_path):
    if isinstance(place, str):
        place = _end_of_members(tmp_path) + 256 * place.startswith("half")
    elif place < 0:
        place += _end_of_members(tmp_path) - 512
    _cut(tmp_path, place)
    with pytest.raises(ValueError, match="a.tar must be a whole tar, got one that is damaged"):
        _names(tmp_path / "a.tar")


def test_a_tar_cut_anywhere_is_whole_or_refused(tmp_path):
    data, end = _whole(tmp_path).read_bytes(), _end_of_members(tmp_path)
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(data), 200):
        (tmp_path / "a.tar").write_bytes(data[:place])
        if place >= end + 512:  # GNU tar takes one block of zeros for an end, too.
            assert len(_names(tmp_path / "a.tar")) == 4
        else:
            with pytest.raises(ValueError, match="a.tar must be a whole tar"):
                _names(tmp_path / "a.tar")


def test_a_header_that_is_damaged_is_not_the_end(tmp_path):
    with tarfile.open(_whole(tmp_path)) as tar:
        header = tar.getmembers()[2].offset
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[header + 10] ^= 1
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(ValueError, match=f"damaged: what stands at byte {header} is no header"):
        _names(tmp_path / "a.tar")


def test_what_is_no_plain_tar_is_refused_with_what_to_do(tmp_path):
    data = _whole(tmp_path).read_bytes()
    (tmp_path / "joined.tar").write_bytes(data + data)
    (tmp_path / "named.tar").write_bytes(gzip.compress(data))
    (tmp_path / "none.tar").write_bytes(b"not a tar" * 1000)
    (tmp_path / "empty.tar").touch()
    for name, message in (
        ("joined.tar", "got more behind it .* joined by cat"),
        ("named.tar", "got a compressed one: undo it by gunzip .*named.tar"),
        ("none.tar", "must be a whole tar, got one that is damaged: invalid header"),
        ("empty.tar", "must be a whole tar, got one that is damaged: empty file"),
    ):
        with pytest.raises(ValueError, match=message):
            _names(tmp_path / name)
