# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sets behind a URL: copied once, whole or not at all, shared, and read like any other."""

import concurrent.futures
import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys

from fsspec.implementations import memory
import numpy as np
import pytest

from data_pipelines.building import plan as build_plan
from data_pipelines.reading import mixture
from data_pipelines.reading import remote
from data_pipelines.reading import sources
from data_pipelines.reading import staged
from data_pipelines.records import manifest
from data_pipelines.records import sealed
from tests.support import sounds

_ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture
def cache(tmp_path, monkeypatch) -> pathlib.Path:
    """The folder of copies, and a process that has asked for none yet."""
    monkeypatch.setenv(remote.VARIABLE, str(tmp_path / "cache"))
    staged._copy_of.cache_clear()
    yield tmp_path / "cache"
    staged._copy_of.cache_clear()


@pytest.fixture
def shard_set(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.setattr(build_plan, "_MIN_SHARD_BYTES", 30_000)
    return sounds.shard_set(tmp_path)


@pytest.fixture
def bucket(shard_set) -> str:
    """The URL of a bucket with the set as `train`."""
    files = memory.MemoryFileSystem()
    for path in shard_set.iterdir():
        files.pipe(f"/bucket/train/{path.name}", path.read_bytes())
    yield "memory://bucket"
    files.rm("/bucket", recursive=True)


def _again() -> None:
    """What another process would find."""
    staged._copy_of.cache_clear()


def _copied(monkeypatch) -> list[str]:
    """The names of what is copied from now on."""
    names, get_file = [], memory.MemoryFileSystem.get_file

    def counted(self, remote, local, **options):
        names.append(remote.split("/")[-1])
        return get_file(self, remote, local, **options)

    monkeypatch.setattr(memory.MemoryFileSystem, "get_file", counted)
    return names


def test_a_set_on_a_bucket_is_copied_once_and_read_as_where_it_was_built(
    bucket, shard_set, cache, monkeypatch, caplog
):
    names = _copied(monkeypatch)
    there, here = (
        sources.open_source(f"{bucket}/train", sample_rate=None),
        sources.ShardSet(shard_set),
    )
    assert there.name == f"{bucket}/train" and there.fingerprint == here.fingerprint
    for index in range(len(here)):
        np.testing.assert_array_equal(there[index].waveform, here[index].waveform)
    assert sorted(names) == sorted(shard.name for shard in here.manifest.shards)
    size = sum(shard.num_bytes for shard in here.manifest.shards) / 1e6
    said = [record.message for record in caplog.records]
    assert said == [
        f"copying {len(names)} of the {len(names)} shards of {bucket}/train, {size:.1f} MB, to "
        f"{cache} (${remote.VARIABLE} names another folder)"
    ]
    _again()
    sources.ShardSet(f"{bucket}/train/", checksums=True)
    assert len(names) == len(here.manifest.shards) and not list(cache.rglob("*.partial"))


def test_every_mixture_takes_urls(bucket, shard_set, cache):
    opened, turned, both = (
        sounds.open_pipeline(mixture, sample_rate=16_000, crop_length=800, batch_size=4)
        for mixture in (
            f"{bucket}/train=0.5,{shard_set}=0.5",
            f"{shard_set}=0.5,{bucket}/train=0.5",
            f"{shard_set}=0.5,{shard_set}/=0.5",
        )
    )
    assert opened.fingerprint == turned.fingerprint == both.fingerprint
    np.testing.assert_array_equal(
        opened.local_batch(3)["waveform"], both.local_batch(3)["waveform"]
    )


def test_a_url_with_a_weight_in_its_name_is_the_set_that_is_there(bucket, cache):
    files = memory.MemoryFileSystem()
    files.copy("/bucket/train", "/bucket/lr=0.1", recursive=True)
    assert mixture.parse(f"{bucket}/lr=0.1") == ((f"{bucket}/lr=0.1", 1.0),)
    assert mixture.parse(f"{bucket}/train=0.1") == ((f"{bucket}/train", 0.1),)
    parsed = mixture.parse(f"{bucket}/lr=0.1=0.7,{bucket}/train=0.3")
    assert dict(parsed) == {f"{bucket}/lr=0.1": 0.7, f"{bucket}/train": 0.3}


def test_an_interrupted_copy_goes_on(bucket, shard_set, cache, monkeypatch):
    shards = manifest.read(shard_set).shards
    assert len(shards) > 2
    get_file = memory.MemoryFileSystem.get_file

    def cut(self, remote, local, **options):
        if remote.endswith(shards[-1].name):
            pathlib.Path(local).write_bytes(b"half")
            raise ConnectionError("the line is cut")
        return get_file(self, remote, local, **options)

    with monkeypatch.context() as patch:
        patch.setattr(memory.MemoryFileSystem, "get_file", cut)
        patch.setattr(remote, "_STREAMS", 1)
        with pytest.raises(OSError, match=f"{shards[-1].name} cannot be read: .*the line is cut"):
            sources.ShardSet(f"{bucket}/train")
    assert not (cache / "sets").exists() and not list(cache.rglob("*.partial"))
    names = _copied(monkeypatch)
    sources.ShardSet(f"{bucket}/train", checksums=True)
    assert names == [shards[-1].name]


def _change_manifest(path: str, before: str, after: str) -> None:
    """Puts one text for another in a manifest in the bucket, with the seal that belongs to it."""
    files = memory.MemoryFileSystem()
    fields = json.loads(files.cat_file(path).decode().replace(before, after))
    del fields[sealed.NAME]
    files.pipe(path, json.dumps(sealed.seal(fields)).encode())


def test_sets_with_equal_shards_share_them(bucket, cache, monkeypatch):
    files = memory.MemoryFileSystem()
    files.copy("/bucket/train", "/bucket/moved", recursive=True)
    _change_manifest("/bucket/moved/manifest.json", '"skipped": {}', '"skipped": {"a": 1}')
    first = sources.ShardSet(f"{bucket}/train")
    names = _copied(monkeypatch)
    second = sources.ShardSet(f"{bucket}/moved", checksums=True)
    assert not names and first.fingerprint == second.fingerprint
    assert second.manifest.skipped == {"a": 1} and not first.manifest.skipped


def test_what_was_deleted_from_the_cache_is_copied_again(bucket, cache, monkeypatch):
    sources.ShardSet(f"{bucket}/train")
    lost = sorted((cache / "shards").iterdir())
    lost[0].unlink()
    lost[1].write_bytes(b"other")
    names = _copied(monkeypatch)
    _again()
    sources.ShardSet(f"{bucket}/train", checksums=True)
    assert len(names) == 2


def test_a_shard_that_differs_from_its_checksum_is_refused(bucket, shard_set, cache):
    shard = manifest.read(shard_set).shards[0]
    data = bytearray((shard_set / shard.name).read_bytes())
    data[len(data) // 2] ^= 1
    memory.MemoryFileSystem().pipe(f"/bucket/train/{shard.name}", bytes(data))
    for _ in range(2):
        with pytest.raises(
            ValueError, match=f"{bucket}/train/{shard.name} differs from its SHA-256"
        ):
            sources.ShardSet(f"{bucket}/train")
    assert not (cache / "shards" / shard.sha256).exists() and not list(cache.rglob("*.partial"))


def test_a_disk_without_room_is_refused_before_anything_is_copied(bucket, cache, monkeypatch):
    names = _copied(monkeypatch)
    usage = shutil.disk_usage(cache.parent)._replace(free=10)
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"needs 0.\d MB, 0.0 MB are free; free some, or") as raised:
        sources.ShardSet(f"{bucket}/train")
    assert raised.value.errno == errno.ENOSPC and not names


@pytest.mark.parametrize(
    "url, kind, words",
    [
        ("memory://bucket", ValueError, "memory://bucket is not a finished.*; its sets are train"),
        ("memory://bucket/none", ValueError, "is not a finished shard set.*build one with"),
        ("nowhere://bucket/train", ValueError, "nowhere://bucket/train cannot be read.*nowhere"),
    ],
)
def test_what_is_no_set_is_refused_as_a_folder_would_be(url, kind, words, bucket, cache):
    with pytest.raises(kind, match=words):
        sources.open_source(url, sample_rate=None)


def test_an_absent_package_is_named(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ImportError, match="gs://bucket/train cannot be read without .*gcsfs"):
        sources.open_source("gs://bucket/train", sample_rate=None)
    # A launcher without it still reads what the workers are to open.
    parsed = mixture.parse("gs://bucket/a=0.7,gs://bucket/b=0.3")
    assert parsed == (("gs://bucket/a", 0.7), ("gs://bucket/b", 0.3))


def test_a_manifest_does_not_lead_out_of_the_cache(bucket, shard_set, cache):
    sha = manifest.read(shard_set).shards[0].sha256
    _change_manifest("/bucket/train/manifest.json", sha, "../" * 21 + "x")
    with pytest.raises(ValueError, match="has no size or checksum"):
        sources.ShardSet(f"{bucket}/train")
    assert not cache.exists()


_PROGRAM = """
import sys
from data_pipelines.reading import sources
from fsspec.implementations import local
get_file = local.LocalFileSystem.get_file
def counted(self, remote, *rest, **options):
    print("copied " + remote.split("/")[-1] + chr(10), end="", flush=True)
    return get_file(self, remote, *rest, **options)
local.LocalFileSystem.get_file = counted
print(len(sources.ShardSet(sys.argv[1], checksums=True)))
"""


def test_processes_of_a_host_copy_nothing_twice(shard_set, cache):
    """A `file` URL is a bucket like any other: so a slow mount gets a fast copy."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    command = [sys.executable, "-c", _PROGRAM, f"file://{shard_set}"]

    def run(_) -> str:
        return subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True, timeout=120
        ).stdout

    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        lines = [line for out in threads.map(run, range(3)) for line in out.splitlines()]
    shards = manifest.read(shard_set).shards
    copied = sorted(line.split()[1] for line in lines if line.startswith("copied"))
    assert copied == sorted(shard.name for shard in shards)
    assert lines.count(str(manifest.read(shard_set).num_records)) == 3


def test_a_folder_stays_where_it_is(shard_set, cache):
    assert staged.local(shard_set) == shard_set
    assert staged.is_set(shard_set) and not staged.is_set(shard_set.parent)
    assert not cache.exists()
