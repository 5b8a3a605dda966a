# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Batches by their step: global order, then the slice of one host, prefetched in the background.

The batch of a step is a function of (seed, step) alone, so there is no iterator state to save, and
1, 2 or 4 hosts see the same global batch.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
import hashlib
import json
from typing import Any

from absl import flags
import grain
import numpy as np

from data_pipelines.reading import batches
from data_pipelines.reading import mixture as mixtures
from data_pipelines.reading import replaced
from data_pipelines.reading import sources
from data_pipelines.reading import tasks
from data_pipelines.reading import verification

_LAST_STEP = 2**62
_STEPS_PER_BLOCK = 64  # whose records are located together
_TASK_STREAM = 1 << 64  # where the random numbers begin that choose text tasks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which rows a pipeline makes, whatever they hold.

    Attributes:
        batch_size: rows over all hosts.
        seed: of order and of all that is drawn.
        train: True shuffles and draws; False goes through the records in order, as they are.
        process_index: which host this is.
        process_count: hosts.
        max_replaced: records that may turn out unreadable on this host before it is an error.
        num_threads: that prepare batches in the background. More than one pay where reading waits
            for storage; Python decodes in one at a time.
        num_prefetched: batches that wait ready.

    Raises:
        ValueError: where the numbers do not fit together.
    """

    batch_size: int
    seed: int = 0
    train: bool = True
    process_index: int = 0
    process_count: int = 1
    max_replaced: int = 1000
    num_threads: int = 1
    num_prefetched: int = 4

    def __post_init__(self):
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if not 0 <= self.process_index < self.process_count or self.batch_size % self.process_count:
            raise ValueError(
                f"batch_size={self.batch_size} must be a multiple of the {self.process_count} "
                f"hosts, and process_index={self.process_index} one of them"
            )
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be at least 0 and below 2**63, got {self.seed}")

    @property
    def rows(self) -> range:
        """This host's rows of the global batch."""
        count = self.batch_size // self.process_count
        return range(self.process_index * count, (self.process_index + 1) * count)


class MixturePipeline:
    """A mixture of sources of which batches are made: what every pipeline is."""

    def __init__(
        self,
        mixture: str | Sequence[tuple[str, float]],
        options: Options,
        *,
        sample_rate: int | None,
    ):
        """Opens the sources.

        Args:
            mixture: ((name, weight), ...) or what mixtures.parse reads; the names are those of
                sources.open_source.
            options: of the batches.
            sample_rate: Hz that all must have; None takes any.

        Raises:
            ValueError: if there is no source, or one is not whole or has another rate.
        """
        pairs = mixtures.parse(mixture) if isinstance(mixture, str) else tuple(mixture)
        if not pairs:
            raise ValueError("a mixture names at least one shard folder, got none")
        names, self._weights = zip(*pairs)
        self.options = options
        self._sources = [sources.open_source(name, sample_rate=sample_rate) for name in names]
        lengths = [len(source) for source in self._sources]
        self.num_records = sum(lengths)
        self._mixture = mixtures.Mixture(
            lengths, self._weights, seed=options.seed, shuffle=options.train
        )
        self._substitute = sources.Substitute(options.max_replaced)
        self._replaced, self._start_step = replaced.Log(), 0

    def replaced_before(self, step: int) -> replaced.Replaced:
        """Rows of this host's batches before `step` that hold another record than theirs.

        Counted from the step on at which `iterate` began, in batches that were made: what is made
        ahead of `step` does not count. Such rows are part of what a model has seen, as the
        fingerprint is; of several hosts, and of what was before `iterate` began, they are added by
        replaced.Replaced.sum. The same damage gives the same sum with any number of hosts.
        """
        return self._replaced.between(self._start_step, step)

    @property
    def sets(self) -> list[str]:
        """A line for each source: its name, hours, weight, and its fingerprint's first digits."""
        return [
            f"{source.name}, {source.seconds / 3600:.3f} h, weight {weight:g}, fingerprint "
            f"{source.fingerprint[:12]}"
            for source, weight in zip(self._sources, self._weights)
        ]

    @property
    def copy(self) -> str:
        """The same on two hosts that read one copy of the shards; see verification.copy_of."""
        return verification.copy_of(self._sources)

    def verify(self, *, index: int = 0, count: int = 1, say: Callable[[str], None] = print) -> None:
        """Compares every byte of a part of the shards with the manifests; see verification."""
        verification.verify(self._sources, index=index, count=count, say=say)

    def local_batch(self, step: int) -> dict[str, np.ndarray]:
        """Returns this host's rows of the batch of `step`."""
        raise NotImplementedError

    def iterate(
        self, start_step: int = 0, stop_step: int | None = None
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Yields (step, this host's rows), prepared by background threads.

        Args:
            start_step: the first.
            stop_step: where to end, before that step; None never ends.
        """
        if not flags.FLAGS.is_parsed():  # Grain reads absl flags even where no absl program runs
            flags.FLAGS.mark_as_parsed()
        self._start_step = start_step
        steps = grain.MapDataset.range(start_step, _LAST_STEP if stop_step is None else stop_step)
        made = steps.map(lambda step: (step, self.local_batch(step)))
        options = grain.ReadOptions(
            num_threads=self.options.num_threads, prefetch_buffer_size=self.options.num_prefetched
        )
        return iter(made.to_iter_dataset(options))

    def _read(self, source: sources.Source, index: int, step: int, row: int) -> Any:
        """The record that belongs in a row of the global batch of `step`."""
        record, found = self._substitute.read(source.__getitem__, index, len(source))
        self._replaced.add(step, row, source=source.fingerprint, wanted=index, found=found)
        return record

    def _digest(self, *decisive: Any) -> str:
        """SHA-256 over the sources and all else that decides which example comes when."""
        content = [[source.fingerprint for source in self._sources], *decisive]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class Pipeline(MixturePipeline):
    """Batches of fixed length, to train or to evaluate, from a mixture of sources."""

    def __init__(
        self,
        mixture: str | Sequence[tuple[str, float]],
        options: Options,
        *,
        sample_rate: int,
        crop_length: int,
        gain_db: tuple[float, float] = (0.0, 0.0),
        random_crop: bool = True,
        text: tasks.TextTasks | None = None,
        autoencoder: str | None = None,
    ):
        """Opens the sources and checks that batches can be formed.

        Args:
            mixture: as in MixturePipeline.
            options: of the batches.
            sample_rate: Hz, of the model.
            crop_length: samples of each example.
            gain_db: dB, bounds of the uniform random gain, in training.
            random_crop: False takes the beginnings of records in training too, as text and latents
                need it.
            text: what each record is asked; adds text to the batches.
            autoencoder: fingerprint of the one that shards of latents must be of; None takes any.

        Raises:
            ValueError: if a source is not whole, has another rate or fewer records than a batch, a
                text is missing or too long, or the numbers do not fit together.
        """
        if crop_length < 1:
            raise ValueError(f"crop_length must be at least 1, got {crop_length}")
        if not gain_db[0] <= gain_db[1]:
            raise ValueError(f"gain_db must be (lowest, highest), got {tuple(gain_db)}")
        super().__init__(mixture, options, sample_rate=sample_rate)
        if options.train and self.num_records < options.batch_size:
            names = ", ".join(source.name for source in self._sources)
            raise ValueError(
                f"{names} has {self.num_records} records, fewer than the batch of "
                f"{options.batch_size}: add sound or lower batch_size"
            )
        self._layout = batches.layout_of(
            self._sources, crop_length=crop_length, autoencoder=autoencoder
        )
        self.sample_rate, self._text = sample_rate, text
        self._gain_db, self._crops = tuple(gain_db), options.train and random_crop
        self._check_beginnings()
        if text is not None:
            batches.check_texts(text, self._sources, self._layout, train=options.train)
        self._places_of_block = functools.lru_cache(maxsize=4)(self._locate_block)
        self.fingerprint = self._digest(
            self._weights,
            sample_rate,
            crop_length,
            options.batch_size,
            options.seed,
            self._gain_db if options.train else None,
            options.train,
            *(["beginnings"] if options.train and not random_crop else []),
            *([text.fingerprint] if text is not None else []),
        )

    @property
    def batch_spec(self) -> batches.Spec:
        """Name -> (shape, dtype) of the global batch.

        "waveform" or "latents", and "mask", True where they are valid; "begins" and "ends", True
        where a row does so where its recording does; with text also "text", token ids, "text_mask",
        True where there is one, and "answer", True where it is to be predicted.
        """
        spec = self._layout.spec(self.options.batch_size)
        if self._text is not None:
            spec |= batches.text_spec(self.options.batch_size, self._text.max_tokens)
        return spec

    def local_batch(self, step: int) -> dict[str, np.ndarray]:
        """Returns this host's rows of the batch of `step`, by `batch_spec`.

        Raises:
            ValueError: if more than `max_replaced` records have been unreadable.
        """
        places = self.places(step)[self._rows]
        positions, gains_db = self._draws(step)
        batch = self._layout.empty(len(places))
        if self._text is not None:
            spec = batches.text_spec(len(places), self._text.max_tokens)
            batch |= {name: np.zeros(*pair) for name, pair in spec.items()}
            draws = self._philox(step, _TASK_STREAM).random(self.options.batch_size)[self._rows]
        for row, (source, index) in enumerate(places):
            record = self._read(source, index, step, self._rows.start + row)
            self._layout.write(batch, row, source, record, positions[row])
            if self._text is not None:
                self._text.write_row(
                    record,
                    draws[row],
                    is_whole=batch["begins"][row] and batch["ends"][row],
                    lost_text=source.may_have_lost_text(record),
                    batch=batch,
                    row=row,
                )
        self._layout.finish(batch, gains_db)
        return batch

    def example_keys(self, step: int) -> list[str]:
        """Returns the keys of the records in the global batch of `step`, in its order.

        In a mixture of several sources each key follows its source's name and a colon.
        """
        keys = []
        for source, index in self.places(step):
            read = source.__getitem__
            record, _ = self._substitute.read(read, index, len(source), count=False)
            keys.append(f"{source.name}:{record.key}" if len(self._sources) > 1 else record.key)
        return keys

    def places(self, step: int) -> list[tuple[sources.ShardSet, int]]:
        """Returns the source and the index in it of every row of the global batch of `step`."""
        block, place = divmod(step, _STEPS_PER_BLOCK)
        size = self.options.batch_size
        return self._places_of_block(block)[place * size : (place + 1) * size]

    def _locate_block(self, block: int) -> list[tuple[sources.ShardSet, int]]:
        """The places of all rows of many steps at once, because NumPy is slow on small arrays."""
        size = _STEPS_PER_BLOCK * self.options.batch_size
        positions = np.arange(block * size, (block + 1) * size, dtype=np.int64)
        source_indices, indices = self._mixture.locate(positions)
        return list(zip((self._sources[index] for index in source_indices), indices.tolist()))

    def _draws(self, step: int) -> tuple[list[float], np.ndarray | None]:
        """Crop position in [0, 1) and gain in dB of each of this host's rows."""
        size = self.options.batch_size
        if not self.options.train:
            return [0.0] * size, None
        # Every host draws for all rows: a batch's numbers must not depend on who holds which row.
        positions, share = self._philox(step).random((2, size))[:, self._rows]
        low, high = self._gain_db
        return positions.tolist() if self._crops else [0.0] * size, low + (high - low) * share

    def _philox(self, step: int, stream: int = 0) -> np.random.Generator:
        """Random numbers of one step; streams are far apart and never overlap."""
        key = [self.options.seed, step]
        return np.random.Generator(np.random.Philox(key=key, counter=stream))

    @property
    def _rows(self) -> slice:
        rows = self.options.rows
        return slice(rows.start, rows.stop)

    def _check_beginnings(self) -> None:
        """Refuses crops and gains where a record must be as it was encoded or transcribed."""
        if self._crops and self._text is not None:
            raise ValueError(
                "text belongs to whole records: give random_crop=False with text, got True"
            )
        has_gain = self.options.train and self._gain_db != (0.0, 0.0)
        if isinstance(self._layout, batches.Latents) and (self._crops or has_gain):
            raise ValueError(
                "latents cannot be cropped at random or made louder: give random_crop=False and "
                "gain_db=(0.0, 0.0) with shards of latents"
            )
