# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Random access to the records of a shard set."""

import bisect
import itertools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from array_record.python import array_record_module

from data_pipelines import manifest
from data_pipelines import records

# Records are read one at a time and far apart, so reading ahead would only cost.
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_MAX_OPEN_SHARDS = 512  # half of the usual limit of open files per process


class Unreadable(ValueError):
    """A record that cannot be read: its bytes are damaged or are not a record of this set."""


class ShardSet:
    """The records of one shard set, by their index. Safe to share between threads."""

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        sample_rate: int | None = None,
        checksums: bool = False,
    ):
        """Opens the set and compares its files with its manifest.

        Args:
            folder: of the set.
            sample_rate: Hz that the records must have; None takes any.
            checksums: compare every byte of every shard too, which reads the whole set.

        Raises:
            ValueError: if the set is not whole or has another rate.
        """
        self.folder = pathlib.Path(folder)
        self.manifest = manifest.read(folder)
        if sample_rate is not None and self.manifest.sample_rate != sample_rate:
            raise ValueError(
                f"the shards in {folder} hold sound at {self.manifest.sample_rate} Hz, the model "
                f"needs {sample_rate} Hz: build them with --sample_rate={sample_rate} or change "
                "the config")
        manifest.verify(self.manifest, folder, checksums=checksums)
        self._shards = self.manifest.shards
        self._starts = [0, *itertools.accumulate(shard.num_records for shard in self._shards)]
        self._readers = {}

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> records.Record:
        """Returns the record at `index`.

        Raises:
            Unreadable: if its bytes are damaged.
            IndexError: if there is no such index.
        """
        return self._read(index, records.decode)

    def waveform(self, index: int) -> np.ndarray:
        """Returns the samples of the record at `index` alone, [num_samples] int16; raises likewise."""
        return self._read(index, records.decode_waveform)

    def __repr__(self) -> str:
        return f"ShardSet({str(self.folder)!r}, {len(self)} records)"

    def _read(self, index: int, decode: Callable[[bytes], Any]) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)} in {self.folder}")
        shard_index = bisect.bisect_right(self._starts, index) - 1
        place = int(index) - self._starts[shard_index]
        try:
            (data,) = self._reader(shard_index).read([place])
            return decode(data)
        except (RuntimeError, ValueError, OSError) as error:
            shard = self.folder / self._shards[shard_index].name
            message = f"record {place} of {shard} cannot be read: {str(error)[:300]}"
            raise Unreadable(message) from None

    def _reader(self, shard_index: int) -> array_record_module.ArrayRecordReader:
        reader = self._readers.get(shard_index)
        if reader is None:
            shard = self._shards[shard_index]
            path = str(self.folder / shard.name)
            reader = array_record_module.ArrayRecordReader(path, _READER_OPTIONS)
            num_records = reader.num_records()
            if num_records != shard.num_records:
                raise ValueError(f"the shard has {num_records} records, not {shard.num_records}")
            while len(self._readers) >= _MAX_OPEN_SHARDS:
                # Dropped, not closed: another thread may be reading from it.
                self._readers.pop(next(iter(self._readers)), None)
            self._readers[shard_index] = reader
        return reader
