# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Random access to records: of a set of sound or of latents, or of a TFDS data set directly."""

import bisect
import collections
from collections.abc import Callable
import contextlib
import functools
import hashlib
import itertools
import json
import os
import threading
from typing import Any

from absl import logging
import numpy as np

from data_pipelines.inputs import tfds
from data_pipelines.reading import open_shards
from data_pipelines.reading import staged
from data_pipelines.records import latents as latent_records
from data_pipelines.records import manifest
from data_pipelines.records import sound as sound_records
from data_pipelines.sound import conversion
from data_pipelines.sound import refusals

_MAX_ATTEMPTS = 100  # records tried in place of one that cannot be read
TFDS_PREFIX = "tfds:"
_NUM_MEASURED = 16  # examples of a data set from which its length is estimated


def open_source(name: str, *, sample_rate: int | None) -> "ShardSet | LatentSet | TfdsExamples":
    """Opens a folder of shards, or a TFDS data set by `tfds:NAME@SPLIT#FEATURE`.

    The manifest of a folder says whether its shards hold sound or latents.

    Args:
        name: of the folder, or its URL, from which staged copies it; or, of a data set, its name
            as TFDS writes it or the folder where it was prepared, the split ("train" if not said),
            and which feature is the sound, if several could be.
        sample_rate: Hz that the records have, or to which the data set is resampled; None takes a
            folder at its own rate.

    Raises:
        ValueError: if it is not whole, has another rate or cannot be read.
    """
    if not str(name).startswith(TFDS_PREFIX) and manifest.read(staged.local(name)).latents:
        return LatentSet(name, sample_rate=sample_rate)
    return open_sound(name, sample_rate=sample_rate)


def open_sound(name: str, *, sample_rate: int | None) -> "ShardSet | TfdsExamples":
    """Opens what `open_source` does, but latents: ValueError for those."""
    if not str(name).startswith(TFDS_PREFIX):
        return ShardSet(name, sample_rate=sample_rate)
    if sample_rate is None:
        raise ValueError(
            f"what is read at its own sample rate must be a folder of shards, got {name}: build "
            "shards of it"
        )
    rest, _, feature = str(name).removeprefix(TFDS_PREFIX).partition("#")
    data_set, _, split = rest.partition("@")
    return TfdsExamples(
        tfds.Tfds(data_set, split=split or "train", audio_feature=feature),
        sample_rate=sample_rate,
    )


def spaced(total: int, wanted: int) -> list[int]:
    """Returns `wanted` indices evenly spaced over `total`, from the first on, or all there are."""
    count = min(wanted, total)
    return [total * place // count for place in range(count)]


class Unreadable(ValueError):
    """A record that cannot be read: its bytes are damaged or are not a record of this set."""


class _RecordFiles:
    """The records of a folder of shards, by their index. Safe to share between threads."""

    _decode: Callable[[bytes], Any]  # of a whole record

    def __init__(
        self, folder: str | os.PathLike, *, sample_rate: int | None = None, checksums: bool = False
    ):
        """Opens the set and compares its files with its manifest.

        Args:
            folder: of the set, or its URL.
            sample_rate: Hz that the records must have; None takes any.
            checksums: compare every byte of every shard too, which reads the whole set.

        Raises:
            ValueError: if the set is not whole or has another rate.
        """
        self.folder = staged.local(folder)
        self.manifest = manifest.read(self.folder)
        self._check_kind()
        if sample_rate is not None and self.manifest.sample_rate != sample_rate:
            raise ValueError(
                f"the shards in {folder} hold sound at {self.manifest.sample_rate} Hz, the model "
                f"needs {sample_rate} Hz: build them with --sample_rate={sample_rate} or change "
                "the config"
            )
        manifest.verify(self.manifest, self.folder, checksums=checksums)
        self.name, self.fingerprint = str(folder), self.manifest.fingerprint
        self._shards = self.manifest.shards
        self._starts = [0, *itertools.accumulate(shard.num_records for shard in self._shards)]

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def seconds(self) -> float:
        """Of sound in all records."""
        return self.manifest.seconds

    def __getitem__(self, index: int) -> Any:
        """Returns the record at `index`.

        Raises:
            Unreadable: if its bytes are damaged.
            IndexError: if there is no such index.
        """
        return self._read(index, self._decode)

    def clip(self, index: int) -> Any:
        """Returns of the record at `index` what a batch without text needs; raises likewise."""
        return self._read(index, self._decode_clip)

    def _read(self, index: int, decode: Callable[[bytes], Any]) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)} in {self.folder}")
        shard_index = bisect.bisect_right(self._starts, index) - 1
        place = int(index) - self._starts[shard_index]
        shard = self._shards[shard_index]
        path = os.fspath(self.folder / shard.name)
        try:
            reader = open_shards.SHARED.reader(self, path, shard.num_records)
            (data,) = reader.read([place])
            return decode(data)
        except open_shards.TooManyFilesError:
            raise
        except (RuntimeError, ValueError, OSError) as error:
            message = f"record {place} of {path} cannot be read: {str(error)[:300]}"
            raise Unreadable(message) from None

    def begins(self, record: Any) -> bool:
        """Whether a record begins where its source does."""
        return record.offset == 0

    def ends(self, record: Any) -> bool:
        """Whether a record ends where its source does.

        One of version 1 that is exactly as long as a segment counts as cut there: nothing tells.
        """
        if record.ends is None:
            return record.num_samples < self.manifest.segment_length
        return record.ends

    def is_whole(self, record: Any) -> bool:
        """Whether a record is all of its source, rather than a part of something longer."""
        return self.begins(record) and self.ends(record)

    def may_have_lost_text(self, record: Any) -> bool:
        """Whether a record is a part, in a set of which sounds lost their transcripts to cutting."""
        return self.manifest.lost_transcripts > 0 and not self.is_whole(record)

    def _check_kind(self) -> None:
        """Raises ValueError where the records are of another kind."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {len(self)} records)"


class ShardSet(_RecordFiles):
    """The records of one set of sound, by their index; items are sound.Record."""

    _decode = staticmethod(sound_records.decode)
    _decode_clip = staticmethod(sound_records.decode_clip)

    def _check_kind(self) -> None:
        if self.manifest.latents is not None:
            raise ValueError(
                f"the shards in {self.folder} hold latents, and sound is needed: give the shards "
                "that were encoded"
            )


class LatentSet(_RecordFiles):
    """The records of one set of latents; items are latent_records.LatentRecord."""

    def check_autoencoder(self, fingerprint: str) -> None:
        """Raises ValueError unless the autoencoder of that fingerprint made these latents."""
        found = self.manifest.latents.autoencoder
        if found != fingerprint:
            raise ValueError(
                f"the latents in {self.folder} were made by autoencoder {found}, the run uses "
                f"{fingerprint}: encode the shards again with python -m f3tok_jax.encode_shards, "
                "or name the autoencoder that made them"
            )

    @property
    def _dim(self) -> int:
        return self.manifest.latents.latent_dim

    def _decode(self, data: bytes) -> latent_records.LatentRecord:
        return latent_records.decode(data, latent_dim=self._dim)

    _decode_clip = _decode

    def _check_kind(self) -> None:
        if self.manifest.latents is None:
            raise ValueError(
                f"the shards in {self.folder} hold sound, and latents are needed: encode them "
                "with python -m f3tok_jax.encode_shards"
            )


class TfdsExamples:
    """The examples of a TFDS data set, decoded, mixed down and resampled each time they are read.

    For data sets that are not worth a build: shards hold the same sound ready to be read.
    """

    def __init__(self, data_set: tfds.Tfds, *, sample_rate: int):
        """Opens one split; sounds are resampled to `sample_rate`, Hz."""
        self._data_set, self._items = data_set, data_set.listed().items
        self._conversion = conversion.Conversion(
            sample_rate=sample_rate,
            segment_length=sound_records.MAX_SAMPLES,
            mono="mean",
            min_seconds=0.0,
            max_seconds=sound_records.MAX_SAMPLES / sample_rate,
        )
        self.name = f"{TFDS_PREFIX}{data_set.name}@{data_set.split}#{data_set.audio_feature}"
        content = [data_set.settings(), len(self._items), sample_rate]
        self.fingerprint = hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._items)

    @functools.cached_property
    def seconds(self) -> float:
        """Of sound in all examples, about: a few are read, and those that can be are counted."""
        lengths = []
        for index in spaced(len(self), _NUM_MEASURED):
            with contextlib.suppress(Unreadable):
                lengths.append(self[index].num_samples)
        mean = np.mean(lengths) if lengths else 0.0
        return float(mean * len(self) / self._conversion.sample_rate)

    def __getitem__(self, index: int) -> sound_records.Record:
        """Returns the example at `index`; raises Unreadable if it would be refused by a build."""
        item = self._items[index]
        try:
            with self._data_set.opened(item) as sound:
                blocks = conversion.pcm16_blocks(sound, self._conversion, collections.Counter())
                waveform = np.concatenate(list(blocks))
        except (refusals.Refused, RuntimeError, ValueError, OSError) as error:
            raise Unreadable(f"example {item.key} cannot be read: {str(error)[:300]}") from None
        return sound_records.Record(
            key=item.key,
            waveform=waveform,
            sample_rate=self._conversion.sample_rate,
            source=item.key,
            ends=True,
            texts=sound.texts,
            labels=sound.labels,
        )

    def clip(self, index: int) -> sound_records.Record:
        """The same: an example is decoded whole."""
        return self[index]

    def begins(self, record: sound_records.Record) -> bool:
        """Whether a record begins where its source does: examples are never cut."""
        return True

    def ends(self, record: sound_records.Record) -> bool:
        """Whether a record ends where its source does; likewise."""
        return True

    def is_whole(self, record: sound_records.Record) -> bool:
        """Whether a record is all of its source; likewise."""
        return True

    def may_have_lost_text(self, record: sound_records.Record) -> bool:
        """Whether a record is a part of what had a transcript; likewise."""
        return False

    def __repr__(self) -> str:
        return f"TfdsExamples({self.name!r}, {len(self)} examples)"


Source = ShardSet | LatentSet | TfdsExamples


class Substitute:
    """Reads the next record where one cannot be read: counted, and within a budget."""

    def __init__(self, max_replaced: int):
        """Allows for `max_replaced` unreadable records."""
        self._max_replaced = max_replaced
        self._lock = threading.Lock()  # Several threads read.
        self.num_replaced = 0

    def read(
        self, read: Callable[[int], Any], index: int, length: int, *, count: bool = True
    ) -> tuple[Any, int]:
        """Returns `read(index)` and `index`, or of the next that can be read: so on every replay.

        Args:
            read: of a source; raises Unreadable.
            index: of the record that is wanted.
            length: of the source; after the last record comes the first.
            count: whether this reading counts.

        Raises:
            ValueError: if the budget is used up, or a long run of records cannot be read.
        """
        for attempt in range(_MAX_ATTEMPTS):
            found = (index + attempt) % length
            try:
                return read(found), found
            except Unreadable as error:
                last = error
                if count:
                    self._count(error)
        raise ValueError(f"{_MAX_ATTEMPTS} records in a row cannot be read, the last: {last}")

    def _count(self, error: Unreadable) -> None:
        with self._lock:
            self.num_replaced += 1
            num_replaced = self.num_replaced
        if num_replaced > self._max_replaced:
            raise ValueError(
                f"more than max_replaced={self._max_replaced} records could not be read, the last: "
                f"{error}; check the disk or rebuild the set"
            ) from None
        logging.warning("%s; the next record takes its place", error)
