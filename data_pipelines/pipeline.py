# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Batches by their step: global order, then the slice of one host, prefetched in the background.

The batch of a step is a function of (seed, step) alone, so there is no iterator state to save, and
1, 2 or 4 hosts see the same global batch. As a program it measures itself:

    python -m data_pipelines.pipeline --benchmark --shards=DIR [--output=benchmark.json]
"""

import functools
import hashlib
import json
import threading
from collections.abc import Iterator, Sequence

import grain
import numpy as np
from absl import logging

from data_pipelines import mixture as mixtures
from data_pipelines import sources
from data_pipelines import transforms

_STEPS_PER_BLOCK = 64  # whose records are located together
_MAX_ATTEMPTS = 100  # records tried in place of one that cannot be read


def parse_mixture(text: str) -> tuple[tuple[str, float], ...]:
    """Reads "DIR" or "DIR1=0.7,DIR2=0.3" as ((folder, weight), ...).

    Raises:
        ValueError: if it names no folder, or several without a weight above zero each.
    """
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    if not entries:
        raise ValueError(f"a mixture names at least one shard folder, got {text!r}")
    if len(entries) == 1 and "=" not in entries[0]:
        return ((entries[0], 1.0),)
    parsed = []
    for entry in entries:
        folder, _, weight = entry.rpartition("=")
        try:
            value = float(weight)
        except ValueError:
            value = 0.0
        if not folder or not 0.0 < value < float("inf"):
            raise ValueError(
                f"several shard folders need a weight above 0 each, DIR=0.7, got {entry!r} "
                f"in {text!r}")
        parsed.append((folder, value))
    return tuple(parsed)


class Pipeline:
    """Fixed-length training or evaluation batches from a mixture of shard sets."""

    def __init__(
        self,
        mixture: str | Sequence[tuple[str, float]],
        *,
        sample_rate: int,
        crop_length: int,
        batch_size: int,
        seed: int = 0,
        process_index: int = 0,
        process_count: int = 1,
        gain_db: tuple[float, float] = (0.0, 0.0),
        train: bool = True,
        max_replaced: int = 1000,
        num_threads: int = 2,
        num_prefetched: int = 4,
    ):
        """Opens the shard sets and checks that batches can be formed.

        Args:
            mixture: ((folder, weight), ...) or what `parse_mixture` reads.
            sample_rate: Hz, of the model.
            crop_length: samples of each example.
            batch_size: examples over all hosts.
            seed: of order, crops and gains.
            process_index: which host this is.
            process_count: hosts.
            gain_db: dB, bounds of the uniform random gain, in training.
            train: True shuffles, crops at random and applies the gain; False goes through the
                records in order and takes their beginnings.
            max_replaced: records that may turn out unreadable on this host before it is an error.
            num_threads: that prepare batches in the background.
            num_prefetched: batches that wait ready.

        Raises:
            ValueError: if a set is not whole, has another rate or fewer records than a batch, or
                the numbers do not fit together.
        """
        pairs = parse_mixture(mixture) if isinstance(mixture, str) else tuple(mixture)
        _check_numbers(pairs, crop_length, batch_size, process_index, process_count, gain_db)
        self._sets = [sources.ShardSet(folder, sample_rate=sample_rate) for folder, _ in pairs]
        lengths = [len(shard_set) for shard_set in self._sets]
        weights = [weight for _, weight in pairs]
        self.num_records = sum(lengths)
        if train and self.num_records < batch_size:
            folders = ", ".join(str(folder) for folder, _ in pairs)
            raise ValueError(
                f"{folders} has {self.num_records} records, fewer than the batch of {batch_size}: "
                "add sound or lower batch_size")
        self._mixture = mixtures.Mixture(lengths, weights, seed=seed, shuffle=train)
        self._places_of_block = functools.lru_cache(maxsize=4)(self._locate_block)
        self._crop_length, self._batch_size, self._seed = crop_length, batch_size, seed
        self._gain_db, self._train = tuple(gain_db), train
        self._max_replaced = max_replaced
        self._num_threads, self._num_prefetched = num_threads, num_prefetched
        rows = batch_size // process_count
        self._rows = slice(process_index * rows, (process_index + 1) * rows)
        self._replaced, self._lock = 0, threading.Lock()
        decisive = [
            [shard_set.manifest.fingerprint for shard_set in self._sets], weights, sample_rate,
            crop_length, batch_size, seed, self._gain_db if train else None, train]
        self.fingerprint = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()

    @property
    def batch_spec(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Name -> (shape, dtype) of the global batch; `mask` is True where `waveform` is sound."""
        shape = (self._batch_size, self._crop_length)
        return {"waveform": (shape, np.dtype(np.float32)), "mask": (shape, np.dtype(np.bool_))}

    @property
    def replaced(self) -> int:
        """Records that could not be read on this host so far, each replaced by another."""
        return self._replaced

    def local_batch(self, step: int) -> dict[str, np.ndarray]:
        """Returns this host's rows of the batch of `step`, by `batch_spec`.

        Raises:
            ValueError: if more than `max_replaced` records have been unreadable.
        """
        places = self._places(step)[self._rows]
        positions, gains = (draws[self._rows] for draws in self._draws(step))
        waveform = np.empty((len(places), self._crop_length), np.float32)
        lengths = np.empty((len(places), 1), np.int64)
        for row, (set_index, index) in enumerate(places):
            record = self._read(set_index, index)
            lengths[row] = transforms.fill_row(
                waveform[row], record.waveform, position=positions[row],
                gain_db=gains[row] if self._train else None)
        return {"waveform": waveform, "mask": np.arange(self._crop_length) < lengths}

    def example_keys(self, step: int) -> list[str]:
        """Returns the keys of the records in the global batch of `step`, in its order."""
        return [self._read(set_index, index).key for set_index, index in self._places(step)]

    def iterate(self, start_step: int = 0) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Yields (step, this host's rows) from `start_step` on, prepared by background threads."""
        steps = grain.MapDataset.range(start_step, 2**62)
        batches = steps.map(lambda step: (step, self.local_batch(step)))
        options = grain.ReadOptions(
            num_threads=self._num_threads, prefetch_buffer_size=self._num_prefetched)
        return iter(batches.to_iter_dataset(options))

    def _places(self, step: int) -> list[tuple[int, int]]:
        """(set, record) of every row of the global batch."""
        block, place = divmod(step, _STEPS_PER_BLOCK)
        return self._places_of_block(block)[place * self._batch_size:(place + 1) * self._batch_size]

    def _locate_block(self, block: int) -> list[tuple[int, int]]:
        """(set, record) of every row of many steps, because NumPy is slow on small arrays."""
        size = _STEPS_PER_BLOCK * self._batch_size
        positions = np.arange(block * size, (block + 1) * size, dtype=np.int64)
        set_indices, record_indices = self._mixture.locate(positions)
        return list(zip(set_indices.tolist(), record_indices.tolist()))

    def _draws(self, step: int) -> tuple[list[float], list[float]]:
        """Crop position in [0, 1) and gain in dB of every row of the global batch."""
        if not self._train:
            return [0.0] * self._batch_size, [0.0] * self._batch_size
        # Every host draws for all rows: a batch's numbers must not depend on who holds which row.
        generator = np.random.Generator(np.random.Philox(key=[self._seed, step]))
        uniform = generator.random((2, self._batch_size))
        low, high = self._gain_db
        return uniform[0].tolist(), (low + (high - low) * uniform[1]).tolist()

    def _read(self, set_index: int, index: int):
        """The record, or the next readable one: the same on every replay and every host."""
        shard_set = self._sets[set_index]
        for attempt in range(min(_MAX_ATTEMPTS, len(shard_set))):
            try:
                return shard_set[(index + attempt) % len(shard_set)]
            except sources.Unreadable as error:
                self._count_replaced(error)
        raise ValueError(
            f"{attempt + 1} records in a row cannot be read in {shard_set.folder}: rebuild it")

    def _count_replaced(self, error: sources.Unreadable) -> None:
        with self._lock:
            self._replaced += 1
            replaced = self._replaced
        if replaced > self._max_replaced:
            raise ValueError(
                f"more than max_replaced={self._max_replaced} records could not be read, the last: "
                f"{error}; check the disk or rebuild the set") from None
        logging.warning("%s; the next record takes its place", error)


def _check_numbers(pairs, crop_length, batch_size, process_index, process_count, gain_db) -> None:
    if not pairs:
        raise ValueError("a mixture names at least one shard folder, got none")
    if crop_length < 1 or batch_size < 1:
        raise ValueError(
            f"crop_length and batch_size must be at least 1, got {crop_length} and {batch_size}")
    if not 0 <= process_index < process_count or batch_size % process_count:
        raise ValueError(
            f"batch_size={batch_size} must be a multiple of the {process_count} hosts, and "
            f"process_index={process_index} one of them")
    if not gain_db[0] <= gain_db[1]:
        raise ValueError(f"gain_db must be (lowest, highest), got {tuple(gain_db)}")
