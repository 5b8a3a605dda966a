# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Records that could not be read and were replaced: which rows of which batches hold others."""

from collections.abc import Sequence
import hashlib
import json
import threading
from typing import NamedTuple


class Replaced(NamedTuple):
    """Rows of batches that hold another record than theirs.

    Attributes:
        count: how many.
        digest: the sum, modulo 2**64, of a number for each of them: the same rows with the same
            records in their places have the same digest, whoever read them, and in whatever order.
    """

    count: int = 0
    digest: int = 0

    @classmethod
    def sum(cls, parts: Sequence[tuple[int, int]]) -> "Replaced":
        """Of several hosts, or of stretches of a run one after another."""
        return cls(sum(count for count, _ in parts), sum(digest for _, digest in parts) % 2**64)

    @property
    def hexadecimal(self) -> str:
        """The digest, for who writes it down or compares two by eye."""
        return f"{self.digest:016x}"

    def __str__(self) -> str:
        """What it means, in a sentence."""
        what = "record" if self.count == 1 else "records"
        return (
            f"{self.count} {what} could not be read and the next took their place "
            f"(digest {self.hexadecimal}): the batches are not those of whole shards; check these "
            "with --verify_data, and copy what is damaged again"
        )


class Log:
    """The replaced rows of one host, by their batch. Safe to share between threads."""

    def __init__(self):
        self._lock = threading.Lock()
        self._rows: dict[tuple[int, int], int] = {}  # (step, row): digest

    def add(self, step: int, row: int, *, source: str, wanted: int, found: int) -> None:
        """Notes that a row holds the record `found` of a source; nothing if it is the one wanted.

        Batches are made ahead, and some more than once: a row counts once.

        Args:
            step: of the batch.
            row: of the global batch, whichever host has it.
            source: fingerprint of the set.
            wanted: index in it of the record that belongs there.
            found: index of the one that is there.
        """
        if found != wanted:
            content = json.dumps([step, row, source, wanted, found]).encode()
            digest = hashlib.blake2b(content, digest_size=8).digest()
            with self._lock:
                self._rows[step, row] = int.from_bytes(digest, "big")

    def between(self, start_step: int, stop_step: int) -> Replaced:
        """Of the batches from `start_step` on and before `stop_step`."""
        with self._lock:
            rows = list(self._rows.items())
        return Replaced.sum(
            [(1, digest) for (step, _), digest in rows if start_step <= step < stop_step]
        )
