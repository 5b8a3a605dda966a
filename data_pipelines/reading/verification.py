# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Shards compared, byte by byte, with the checksums of their manifests; several hosts share them."""

from collections.abc import Callable, Sequence
import concurrent.futures
import hashlib
import json
import os
import time

from data_pipelines.reading import sources
from data_pipelines.records import manifest

_THREADS = 8  # more than one disk or network card feeds
_SAY_EVERY = 20.0  # seconds


def copy_of(sets: Sequence[sources.ShardSet | sources.TfdsExamples]) -> str:
    """What is the same for two hosts where they read one copy of the files, not two equal ones.

    Inodes of a shared disk are the same on every host; those of two copies never all are.
    """
    found = []
    for one in filter(_has_shards, sets):
        for shard in one.manifest.shards:
            status = (one.folder / shard.name).stat()
            found.append([status.st_ino, status.st_mtime_ns])
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def verify(
    sets: Sequence[sources.ShardSet | sources.TfdsExamples],
    *,
    index: int = 0,
    count: int = 1,
    say: Callable[[str], None] = print,
) -> None:
    """Reads every byte of every shard, or of every `count`-th from `index` on.

    Args:
        sets: that are open; examples of TFDS have no checksums, which is said.
        index: of this part.
        count: of parts.
        say: where progress goes.

    Raises:
        ValueError: naming the first shard that is not what its manifest says.
        OSError: where one cannot be read.
    """
    for one in sets:
        if not _has_shards(one):
            say(f"{one.name} has no checksums: nothing is compared")
    pairs = [
        (one.folder, shard) for one in sets if _has_shards(one) for shard in one.manifest.shards
    ]
    mine = pairs[index::count]
    total, done, last = sum(shard.num_bytes for _, shard in mine), 0, time.monotonic()
    started = last
    with concurrent.futures.ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
        checks = [threads.submit(manifest.verify_shard, shard, folder) for folder, shard in mine]
        try:
            for (_, shard), check in zip(mine, checks):
                check.result()
                done += shard.num_bytes
                if time.monotonic() - last > _SAY_EVERY:
                    last = time.monotonic()
                    say(f"compared {done / 1e9:.1f} of {total / 1e9:.1f} GB with their SHA-256")
        finally:
            threads.shutdown(cancel_futures=True)
    say(
        f"{len(mine)} of {len(pairs)} shards ({total / 1e9:.3f} GB) are as their SHA-256 says, "
        f"compared in {time.monotonic() - started:.1f} s"
        + (f"; {count} processes share them" if count > 1 else "")
    )


def _has_shards(one: sources.ShardSet | sources.TfdsExamples) -> bool:
    return not isinstance(one, sources.TfdsExamples)
