# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What every input offers: a list of its sounds, and one of them by its key, in any process.

An input is small and picklable; workers open sounds themselves. Keys are stable: they name the same
sound on every rebuild, and the held-out part is chosen by them.
"""

import contextlib
import dataclasses
from typing import Protocol

from data_pipelines.sound import audio_files


@dataclasses.dataclass(frozen=True)
class Item:
    """One sound to read: its key, its size in bytes, perhaps guessed, its place in the input."""

    key: str
    num_bytes: int
    index: int


@dataclasses.dataclass(frozen=True)
class Listing:
    """All that an input offers: sounds in a fixed order, kind -> count of what was passed over."""

    items: tuple[Item, ...]
    skipped: dict[str, int]


class Input(Protocol):
    """What a builder of shards reads."""

    def settings(self) -> dict:
        """Returns what identifies the input in a manifest, ready for JSON."""

    def listed(self) -> Listing:
        """Lists all sounds; the same list in every process and on every day."""

    def opened(self, item: Item) -> contextlib.AbstractContextManager[audio_files.Sound]:
        """Opens one sound; raises audio_files.Refused if it cannot be."""
