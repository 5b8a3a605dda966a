# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Shards against their checksums: what is whole passes, what is not is named, and parts are all."""

import shutil

import pytest

from data_pipelines.building import plan as build_plan
from data_pipelines.reading import sources
from data_pipelines.reading import verification
from tests.support import sounds


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """A set of several shards, opened."""
    monkeypatch.setattr(build_plan, "_MIN_SHARD_BYTES", 30_000)
    opened = sources.ShardSet(sounds.shard_set(tmp_path))
    assert len(opened.manifest.shards) > 2
    return opened


def _flip(path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_whole_shards_pass_and_are_counted(shards):
    said = []
    verification.verify([shards, shards], say=said.append)
    count = 2 * len(shards.manifest.shards)
    assert len(said) == 1 and said[0].startswith(f"{count} of {count} shards")


@pytest.mark.reliability("R23")
@pytest.mark.parametrize("place", [0, 40_000, -1])
def test_a_flipped_bit_is_refused_by_the_name_of_its_shard(shards, place):
    name = shards.manifest.shards[1].name
    _flip(shards.folder / name, place)
    sources.ShardSet(shards.folder)  # whose sizes are right
    with pytest.raises(ValueError, match=f"shard .*{name} differs from its SHA-256"):
        verification.verify([shards], say=print)


def test_parts_are_all_of_the_shards(shards, tmp_path):
    damaged = shards.manifest.shards[2].name
    _flip(shards.folder / damaged, 100)
    refused = []
    for index in range(3):
        try:
            verification.verify([shards], index=index, count=3, say=lambda text: None)
        except ValueError as error:
            refused.append((index, damaged in str(error)))
    assert refused == [(2, True)]


def test_one_copy_is_told_from_two(shards, tmp_path):
    shutil.copytree(shards.folder, tmp_path / "other")
    again, other = sources.ShardSet(shards.folder), sources.ShardSet(tmp_path / "other")
    assert other.fingerprint == shards.fingerprint
    assert verification.copy_of([again]) == verification.copy_of([shards])
    assert verification.copy_of([other]) != verification.copy_of([shards])
    assert verification.copy_of([shards, other]) != verification.copy_of([shards])
