# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What every input offers: a list of its sounds, and one of them by its key, in any process.

An input is small and picklable; workers open sounds themselves. Keys are stable: they name the same
sound on every rebuild, and the held-out part is chosen by them.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
from typing import BinaryIO, Protocol

from data_pipelines.records import sound as sound_records
from data_pipelines.sound import audio_files

NO_ROW = "sounds without row"  # counted beside the rows, and no row itself


@dataclasses.dataclass(frozen=True)
class Item:
    """One sound to read, and what is known of it before it is opened.

    Attributes:
        key: unique within the input.
        num_bytes: its size, perhaps guessed.
        index: its place in the input.
        texts: transcripts and captions that the input keeps apart from the sound.
        labels: likewise.
    """

    key: str
    num_bytes: int
    index: int
    texts: tuple[sound_records.Text, ...] = ()
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)


@dataclasses.dataclass(frozen=True)
class Listing:
    """All that an input offers.

    Attributes:
        items: in a fixed order.
        skipped: kind -> count of what was passed over: every entry that is no item.
        rows: what became of the rows of tables -> count, such as "matched" or "without sound", and NO_ROW.
        remarks: sentences for the console.
        labels_inside: whether sounds have labels that are known only when they are opened.
        licences: what sounds come from -> "licence" and what else is to be known of it.
        together: label -> groups of keys that may be of one value of it, though not all have one:
            each stays on one side of a hold-out by it.
        stratum: of an item; of each, a hold-out by labels takes its fraction.
    """

    items: tuple[Item, ...]
    skipped: dict[str, int]
    rows: dict[str, int] = dataclasses.field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    labels_inside: bool = False
    licences: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    together: dict[str, tuple[tuple[str, ...], ...]] = dataclasses.field(default_factory=dict)
    stratum: Callable[[Item], str] = lambda item: ""


def counted(kinds: Mapping[str, int]) -> str:
    """Returns "3 .txt, 1 hidden file" of kind -> count, in their order."""
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


class OfFiles:
    """What an input does whose items are files; `_path` of an item is the kind's own."""

    @contextlib.contextmanager
    def opened(self, item: Item) -> Iterator[audio_files.Sound]:
        """Opens the file of `item`, with its texts and labels."""
        with audio_files.opened(self._path(item)) as sound:
            yield dataclasses.replace(sound, texts=item.texts, labels=dict(item.labels))

    def encoded(self, item: Item) -> BinaryIO:
        """Opens the bytes of a file."""
        return open(self._path(item), "rb")


class Input(Protocol):
    """What a builder of shards reads.

    An input of encoded sound also has `encoded(item)`, which opens the `num_bytes` of an item as a
    seekable binary stream: equal ones are told before they are decoded.
    """

    def settings(self) -> dict:
        """Returns what identifies the input in a manifest, ready for JSON."""

    def listed(self) -> Listing:
        """Lists all sounds; the same list in every process and on every day."""

    def opened(self, item: Item) -> contextlib.AbstractContextManager[audio_files.Sound]:
        """Opens one sound, with all that `item` knows; raises refusals.Refused if it cannot be."""
