# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sounds that are there more than once: equal bytes before a build, equal samples after it."""

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
import hashlib
import zlib

import numpy as np

from data_pipelines.inputs import listing
from data_pipelines.sound import levels
from data_pipelines.sound import refusals

_PARTIAL_BYTES = 4096  # in the middle of a sound: most that are as long differ there
_MANY = 10_000  # sounds that take a second or more to compare


class Digest:
    """A hash of PCM16 samples, of each of them and its place, in half of SHA-256's time.

    It is of each record's CRC-32, sum and sum of squares, which are known anyway.
    """

    def __init__(self):
        """Of no records."""
        self._records = hashlib.sha256()

    def add(self, pcm: np.ndarray, sums: levels.Sums) -> None:
        """Adds a record, [samples] int16, and its sums."""
        checked = (zlib.crc32(pcm), sums.num_samples, sums.total, sums.squares)
        self._records.update(repr(checked).encode())

    def hexdigest(self) -> str:
        """Returns 32 digits."""
        return self._records.hexdigest()[:32]


def of_bytes(
    source: listing.Input, items: Sequence[listing.Item], say: Callable[[str], None]
) -> list[list[str]]:
    """Groups of keys of equal bytes, of an input that has them: by size, a few bytes, then all."""
    if not hasattr(source, "encoded"):
        return []
    groups = collections.defaultdict(list)
    for item in items:
        groups[item.num_bytes].append(item)
    groups.pop(0, None)
    for digest in (_partial_digest, _whole_digest):
        candidates = [item for group in groups.values() if len(group) > 1 for item in group]
        if len(candidates) > _MANY:
            say(f"comparing {len(candidates)} sounds of equal sizes")
        groups = collections.defaultdict(list)
        # In the order of the input, in which it is read the fastest.
        for item in sorted(candidates, key=lambda item: item.index):
            try:
                groups[item.num_bytes, digest(source, item)].append(item)
            except (OSError, refusals.Refused):
                continue  # The build says which and why.
    return [[item.key for item in group] for group in groups.values() if len(group) > 1]


def _partial_digest(source: listing.Input, item: listing.Item) -> bytes:
    with source.encoded(item) as file:
        file.seek(item.num_bytes // 2)
        return hashlib.sha256(file.read(_PARTIAL_BYTES)).digest()


def _whole_digest(source: listing.Input, item: listing.Item) -> bytes:
    with source.encoded(item) as file:
        return hashlib.file_digest(file, "sha256").digest()


def across(parts: Mapping[str, Iterable[dict]]) -> dict[str, str]:
    """What must leave its part: the samples stay where the first of the keys that have them lies.

    Args:
        parts: part -> results of its tasks, with "digests", key -> digest of the samples.

    Returns:
        Key that is to be left out -> why.
    """
    found = [
        (key, part, digest)
        for part, results in parts.items()
        for result in results
        for key, digest in result["digests"].items()
    ]
    first = {}
    for key, part, digest in sorted(found):
        first.setdefault(digest, (key, part))
    return {
        key: f"the same sound as {first[digest][0]} in {first[digest][1]}, in another file"
        for key, part, digest in found
        if part != first[digest][1]
    }


def num_within(results: Iterable[dict]) -> int:
    """How many used sounds of a part have the samples of another one before them."""
    digests = [digest for result in results for digest in result["digests"].values()]
    return len(digests) - len(set(digests))
