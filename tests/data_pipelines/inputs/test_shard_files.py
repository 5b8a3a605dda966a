# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Files of an input by a folder, a path, a range or a glob; and what is not there."""

import gzip

import pytest

from data_pipelines.inputs import shard_files
from data_pipelines.inputs import webdataset
from tests.support import tars


def test_shards_are_named_by_folder_range_or_glob_and_keys_carry_their_names(tmp_path):
    for shard in range(12):
        tars.write(tmp_path / "in" / f"s-{shard:03d}.tar", [("same.wav", tars.encoded(shard))])
    keys = [f"s-{shard:03d}.tar/same.wav" for shard in range(12)]
    for pattern, expected in (
        ("in", keys),
        ("in/s-{000..011}.tar", keys),
        ("in/s-{003..004}.tar", keys[3:5]),
        ("in/s-{001,010}.tar", [keys[1], keys[10]]),
        ("in/s-00[0-4].tar", keys[:5]),
        ("in/s-{000,00[5-7]}.tar", [keys[0], *keys[5:8]]),
        ("in/s-000.tar", keys[:1]),
    ):
        items = webdataset.Tars(str(tmp_path / pattern)).listed().items
        assert [item.key for item in items] == expected
    # What is there by two names is read once.
    (tmp_path / "in" / "t-000.tar").symlink_to(tmp_path / "in" / "s-000.tar")
    (tmp_path / "in" / ".hidden.tar").touch()
    listed = webdataset.Tars(str(tmp_path / "in")).listed()
    assert listed.skipped == {"hidden file": 1, "link to the same file": 1}
    assert [item.key for item in listed.items] == keys
    tars.write(tmp_path / "in" / "more" / "s-000.tar", [("same.wav", tars.encoded(0))])
    keys = [item.key for item in webdataset.Tars(str(tmp_path / "in")).listed().items]
    assert keys[0] == "more/s-000.tar/same.wav" and len(set(keys)) == 13


def test_what_is_not_there_is_refused_with_what_to_do(tmp_path):
    tars.write(tmp_path / "a.tar", [])
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 10\n"
    (tmp_path / "pointer.tar").write_bytes(pointer)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.wav").touch()
    for name, message in (
        ("pointer.tar", "Git LFS pointer.*git lfs pull"),
        ("no_such.tar", "--input=.*no_such.tar must name files that are there"),
        ("a-{0..2}.tar", "a-0.tar is not"),
        ("*.tgz", r"\*.tgz is not"),
        ("folder", "must name files that end with .tar, .tgz, or a folder of them, got 1 .wav"),
    ):
        with pytest.raises(ValueError, match=message):
            shard_files.find(str(tmp_path / name), (".tar", ".tgz"))


def test_a_compressed_tar_is_found_in_a_folder_and_refused(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"tar"))
    with pytest.raises(ValueError, match="undo it by gunzip .*a.tar.gz"):
        webdataset.Tars(str(tmp_path)).listed()


def test_an_existing_name_wins_over_what_its_braces_mean(tmp_path):
    tars.write(tmp_path / "a{1,2}[3].tar", [])
    found, _ = shard_files.find(str(tmp_path / "a{1,2}[3].tar"), (".tar",))
    assert list(found) == ["a{1,2}[3].tar"]
