# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Shard sets that are whole are read at random; every kind of damage is named."""

import concurrent.futures

import numpy as np
import pytest

from data_pipelines.building import plan as build_plan
from data_pipelines.reading import open_shards
from data_pipelines.reading import sources
from data_pipelines.records import manifest
from tests.support import seals
from tests.support import sounds


@pytest.fixture
def shard_set(tmp_path, monkeypatch):
    monkeypatch.setattr(build_plan, "_MIN_SHARD_BYTES", 30_000)
    return sounds.shard_set(tmp_path)


def _shards(shard_set):
    return sorted(shard_set.glob("*.array_record"))


def _middle_of_record(data: bytes, shard_set) -> int:
    """A place inside the samples of the first record of a shard."""
    samples = sources.ShardSet(shard_set)[0].waveform.tobytes()
    return data.index(samples) + len(samples) // 2


def test_records_are_found_by_their_index(shard_set):
    opened = sources.ShardSet(shard_set, sample_rate=16_000, checksums=True)
    assert len(_shards(shard_set)) > 2
    keys = [opened[index].key for index in range(len(opened))]
    assert len(set(keys)) == len(keys) == opened.manifest.num_records
    assert keys == sorted(keys)  # as the files were listed
    assert [opened[index].key for index in reversed(range(len(opened)))] == keys[::-1]
    for index in (-1, len(opened)):
        with pytest.raises(IndexError):
            opened[index]


def test_threads_share_a_set(shard_set, monkeypatch):
    # So that readers are dropped while in use.
    monkeypatch.setattr(open_shards, "SHARED", open_shards.OpenShards(2))
    opened = sources.ShardSet(shard_set)
    expected = [opened[index].waveform.sum() for index in range(len(opened))]
    order = np.random.default_rng(0).integers(0, len(opened), 400)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        sums = list(threads.map(lambda index: opened[index].waveform.sum(), order))
    assert sums == [expected[index] for index in order]


def test_other_rate_is_refused(shard_set):
    with pytest.raises(ValueError, match="sound at 16000 Hz, the model needs 24000 Hz: build them"):
        sources.ShardSet(shard_set, sample_rate=24_000)


@pytest.mark.reliability("R23")
@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(b""), "has 0 bytes.*it is empty"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "it is damaged"),
        (lambda path: path.write_bytes(path.read_bytes() * 2), "it is damaged"),
    ],
)
def test_missing_empty_and_truncated_shards_are_named(damage, message, shard_set):
    shard = _shards(shard_set)[1]
    damage(shard)
    with pytest.raises(ValueError, match=f"{shard}.*{message}"):
        sources.ShardSet(shard_set)


@pytest.mark.reliability("R23")
def test_zero_shards_are_refused(shard_set):
    seals.change(shard_set / manifest.FILE_NAME, shards=[], num_records=0)
    with pytest.raises(ValueError, match="has no shards"):
        sources.ShardSet(shard_set)


@pytest.mark.reliability("R23")
def test_flipped_bytes_are_found_by_checksum_or_when_they_are_read(shard_set):
    shard = _shards(shard_set)[0]
    data = bytearray(shard.read_bytes())
    data[_middle_of_record(bytes(data), shard_set)] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ValueError, match=f"{shard} differs from its SHA-256"):
        sources.ShardSet(shard_set, checksums=True)
    opened = sources.ShardSet(shard_set)
    with pytest.raises(sources.Unreadable, match=f"record 0 of {shard} cannot be read"):
        opened[0]
    assert opened[1].waveform.size  # The damage is that record's alone.


def test_a_shard_of_another_set_is_found_when_it_is_read(shard_set):
    first, second, third = _shards(shard_set)[:3]
    other = next(shard for shard in (second, third) if shard.stat().st_size == first.stat().st_size)
    other.write_bytes(b"F3" * (other.stat().st_size // 2))
    opened = sources.ShardSet(shard_set)
    place = [shard.name for shard in opened.manifest.shards].index(other.name)
    index = sum(shard.num_records for shard in opened.manifest.shards[:place])
    with pytest.raises(sources.Unreadable, match=str(other)):
        opened[index]


def test_a_shard_that_vanishes_later_is_unreadable(shard_set):
    opened = sources.ShardSet(shard_set)
    _shards(shard_set)[0].unlink()
    with pytest.raises(sources.Unreadable, match="cannot be read"):
        opened[0]


@pytest.mark.parametrize(
    "total, wanted, found",
    [(10, 4, [0, 2, 5, 7]), (3, 3, [0, 1, 2]), (2, 9, [0, 1]), (5, 0, []), (0, 4, [])],
)
def test_spaced_indices_are_spread_evenly_from_the_first_on(total, wanted, found):
    assert sources.spaced(total, wanted) == found
