# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The shards that are open: as many as a process may have, whichever sets they are of."""

import errno
import os
import resource
import shutil

import pytest

from data_pipelines.reading import open_shards
from data_pipelines.reading import sources
from tests.support import sounds


@pytest.fixture
def sets(tmp_path):
    """Three sets of a shard each."""
    first = sounds.labelled_set(tmp_path / "0")
    folders = [first]
    for number in (1, 2):
        folders.append(shutil.copytree(first, tmp_path / str(number) / "set"))
    return [sources.ShardSet(folder) for folder in folders]


def _read_all(sets) -> None:
    for one in sets:
        for index in range(len(one)):
            one[index]


def _num_open() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_all_sets_share_what_may_be_open(sets, monkeypatch):
    monkeypatch.setattr(open_shards, "SHARED", open_shards.OpenShards(1))
    before = _num_open()
    _read_all(sets)
    assert _num_open() <= before + 1


def test_a_set_that_is_gone_keeps_no_file_open(sets, monkeypatch):
    monkeypatch.setattr(open_shards, "SHARED", open_shards.OpenShards(512))
    before = _num_open()
    for _ in range(5):
        sources.ShardSet(sets[0].folder)[0]
    assert _num_open() <= before + 1


def test_at_most_half_of_what_a_process_may_open_is_kept(monkeypatch):
    for limit, most in ((1024, 512), (256, 128), (10**6, 512), (resource.RLIM_INFINITY, 512)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert open_shards._most_open() == most


def test_a_process_that_can_open_no_more_says_so_and_replaces_nothing(sets, monkeypatch):
    monkeypatch.setattr(open_shards, "SHARED", open_shards.OpenShards(512))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(open_shards.TooManyFilesError, match="ulimit -n"):
            sets[0][0]
        substitute = sources.Substitute(max_replaced=100)
        with pytest.raises(open_shards.TooManyFilesError):
            substitute.read(sets[0].__getitem__, 0, len(sets[0]))
        assert substitute.num_replaced == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in taken:
            os.close(number)
    assert sets[0][0].key


def test_a_machine_that_can_open_no_more_is_not_taken_for_the_process(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(open_shards.TooManyFilesError, match="this machine .* fs.file-max"):
        open_shards._check_opens("a shard")


def test_a_set_that_is_opened_again_reads_the_files_that_are_there_now(sets):
    folder = sets[0].folder
    key = sets[0][0].key
    name = sets[0].manifest.shards[0].name
    damaged = folder / "damaged"
    damaged.write_bytes(b"\0" * (folder / name).stat().st_size)
    damaged.replace(folder / name)
    assert sets[0][0].key == key  # it has that shard open
    with pytest.raises(sources.Unreadable):
        sources.ShardSet(folder)[0]
