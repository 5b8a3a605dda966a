# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Batches of sound or latents, with text where it is asked for, by their step: the slice of one host
of what is drawn for all, arranged where examples share rows."""

from collections.abc import Iterable, Sequence
import functools

import numpy as np

from data_pipelines.reading import arrangement
from data_pipelines.reading import batches
from data_pipelines.reading import coverage
from data_pipelines.reading import draws
from data_pipelines.reading import examples
from data_pipelines.reading import mixture_pipeline
from data_pipelines.reading import sources
from data_pipelines.reading import suitability
from data_pipelines.reading import tasks

_CROPS_TRIED = 8  # of a record, where crops must not be too quiet (DAC)
_STEPS_PER_BLOCK = 64  # whose records are located together


class Pipeline(mixture_pipeline.MixturePipeline):
    """Batches of fixed length, to train or to evaluate, from a mixture of sources."""

    def __init__(
        self,
        mixture: str | Sequence[tuple[str, float]],
        options: mixture_pipeline.Options,
        *,
        sample_rate: int,
        crop_length: int,
        gain_db: tuple[float, float] = (0.0, 0.0),
        salient_db: float = 0.0,
        level_db: float = 0.0,
        random_crop: bool = True,
        text: tasks.TextTasks | None = None,
        rows: arrangement.Rows | None = None,
        bound: suitability.Bound = suitability.Bound(),
        autoencoder: str | None = None,
    ):
        """Opens the sources and checks that batches can be formed.

        Args:
            mixture: as in MixturePipeline.
            options: of the batches.
            sample_rate: Hz, of the model.
            crop_length: samples of each example.
            gain_db: dB, bounds of the uniform random gain, in training.
            salient_db: dBFS, in training: a crop of a lower root mean square is drawn again, up to
                seven times, then the loudest is taken; 0 takes each.
            level_db: dBFS, in training, to which crops are brought before the random gain; 0 leaves
                them as they are.
            random_crop: False takes the beginnings of records in training too, as text and latents
                need it.
            text: what each record is asked; adds text to the batches.
            rows: what neighbours in a batch share, by which they are chosen; None where each
                example has a row of its own, and examples come in the order in which they were
                drawn.
            bound: of what may be lost of the sets in training.
            autoencoder: fingerprint of the one that shards of latents must be of; None takes any.

        Raises:
            ValueError: if a source is not whole, has another rate or fewer records than a batch, more
                than `bound` is lost of the sets, or the numbers do not fit together.
        """
        if crop_length < 1:
            raise ValueError(f"crop_length must be at least 1, got {crop_length}")
        if salient_db > 0.0 or level_db > 0.0:
            raise ValueError(
                f"salient_db and level_db must be below 0, or 0 for none, got {salient_db} and "
                f"{level_db}"
            )
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
            self._sources,
            crop_length=crop_length,
            autoencoder=autoencoder,
            salient_db=salient_db,
            level_db=level_db,
        )
        self.sample_rate, self._text, self._shares = sample_rate, text, rows is not None
        self._rows = rows or arrangement.alone(crop_length)
        self._making = examples.Making(layout=self._layout, text=text, rows=self._rows)
        max_tokens = text.max_tokens if text else 0
        longest = -(-crop_length // self._rows.samples_per_frame)
        rows_decide = self._rows.decide(longest, max_tokens)
        has_sound = isinstance(self._layout, batches.Sound)
        self._is_sound_alone = has_sound and text is None and rows is None
        self._group_size = self._rows.group_size(options.batch_size)
        self._draws = draws.Draws(
            seed=options.seed,
            batch_size=options.batch_size,
            train=options.train,
            crops=options.train and random_crop,
            tries=_CROPS_TRIED if salient_db else 1,
            gain_db=tuple(gain_db),
            texts=text is not None,
        )
        has_levels = options.train and (salient_db != 0.0 or level_db != 0.0)
        self._check_beginnings(has_levels)
        if options.train:  # what is held out may lack what is asked
            suitability.check(
                self._making,
                self._sources,
                self._weights,
                batch_size=options.batch_size,
                rows_decide=rows_decide,
                bound=bound,
            )
        self._places_of_block = functools.lru_cache(maxsize=4)(self._locate_block)
        self.fingerprint = self._digest(
            self._weights,
            sample_rate,
            crop_length,
            options.batch_size,
            options.seed,
            self._draws.gain_db if options.train else None,
            options.train,
            *([["levels", salient_db, level_db]] if has_levels else []),
            *(["beginnings"] if options.train and not random_crop else []),
            *([text.fingerprint] if text is not None else []),
            *([self._rows.fingerprint(crop_length, max_tokens)] if rows_decide else []),
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
        own, drawn = self.options.rows, self._draws.of(step)
        batch = self._layout.empty(len(own))
        counts = coverage.Counts(self._rows.room, num_rows=len(own) // self._rows.examples)
        fill = self._fill_alone if self._is_sound_alone else self._fill
        gains_db = fill(step, batch, drawn, counts)
        self._layout.finish(batch, gains_db)
        self._covered.add(step, counts)
        return batch

    def _fill_alone(
        self, step: int, batch: dict, drawn: draws.Drawn, counts: coverage.Counts
    ) -> np.ndarray | None:
        """Fills a batch of sound without text, an example a row: `_fill` with less work per row."""
        own = self.options.rows
        positions = drawn.positions[own.start : own.stop]
        lengths = []
        for row, (source, index) in enumerate(self.places(step)[own.start : own.stop]):
            clip = self._read(source, index, step, own.start + row, read=source.clip)
            self._layout.write(batch, row, source, clip, positions[row])
            lengths.append(len(clip.waveform))
        heard = int(np.minimum(lengths, self._rows.room["sound"]).sum())
        counts.add_alone(
            len(own),
            seconds=sum(lengths) / self.sample_rate,
            heard_seconds=None if self._draws.crops else heard / self.sample_rate,
        )
        counts.use({"sound": heard})
        return None if drawn.gains_db is None else drawn.gains_db[own.start : own.stop]

    def _fill(
        self, step: int, batch: dict, drawn: draws.Drawn, counts: coverage.Counts
    ) -> np.ndarray | None:
        """Fills a batch with what was drawn for its rows, arranged; returns the gains of its rows."""
        own = self.options.rows
        if self._text is not None:
            spec = batches.text_spec(len(own), self._text.max_tokens)
            batch |= {name: np.zeros(*pair) for name, pair in spec.items()}
        gains_db = None if drawn.gains_db is None else np.zeros(len(own))
        for group in self._groups(own):
            for place, example, to in self._arranged(step, group, drawn):
                if place in own:
                    self._count(counts, example, is_left_out=to is None)
                if to not in own:
                    continue
                row = to - own.start
                self._layout.write(
                    batch, row, example.source, example.record, drawn.positions[place]
                )
                if self._text is not None:
                    example.text.write(batch, row)
                if gains_db is not None:
                    gains_db[row] = drawn.gains_db[place]
                counts.use(example.needs)
        return gains_db

    def example_keys(self, step: int) -> list[str]:
        """Returns the keys of the records in the global batch of `step`, in its order.

        In a mixture of several sources each key follows its source's name and a colon. A row that
        was left empty has none: "".
        """
        keys, drawn = [""] * self.options.batch_size, self._draws.of(step)
        for group in self._groups(range(self.options.batch_size)):
            for _, example, to in self._arranged(step, group, drawn, count=False):
                if to is not None:
                    name, key = example.source.name, example.record.key
                    keys[to] = f"{name}:{key}" if len(self._sources) > 1 else key
        return keys

    def places(self, step: int) -> list[tuple[sources.ShardSet, int]]:
        """Returns the source and the index in it of every row of the global batch of `step`.

        In the order in which they were drawn: rows that are shared are arranged after that.
        """
        block, place = divmod(step, _STEPS_PER_BLOCK)
        size = self.options.batch_size
        return self._places_of_block(block)[place * size : (place + 1) * size]

    def _locate_block(self, block: int) -> list[tuple[sources.ShardSet, int]]:
        """The places of all rows of many steps at once, because NumPy is slow on small arrays."""
        size = _STEPS_PER_BLOCK * self.options.batch_size
        positions = np.arange(block * size, (block + 1) * size, dtype=np.int64)
        source_indices, indices = self._mixture.locate(positions)
        return list(zip((self._sources[index] for index in source_indices), indices.tolist()))

    def _groups(self, rows: range) -> list[range]:
        """The rows of the global batch that are arranged together with some of `rows`."""
        size = self._group_size
        numbers = range(rows.start // size, -(-rows.stop // size))
        return [range(number * size, (number + 1) * size) for number in numbers]

    def _arranged(
        self, step: int, group: range, drawn: draws.Drawn, *, count: bool = True
    ) -> Iterable[tuple[int, examples.Example, int | None]]:
        """Reads what was drawn for a group of rows: (row, example, row that it comes to, or None).

        What cannot be read is counted by the host for whose row it was drawn.
        """
        places, own = self.places(step), self.options.rows
        found = []
        for row in group:
            source, index = places[row]
            record = self._read(source, index, step, row, count=count and row in own)
            found.append(self._making.example(source, record, drawn.tasks[row]))
        arranged = self._rows.arrange([example.needs for example in found])
        rows = (None if place is None else group.start + place for place in arranged)
        return zip(group, found, rows)

    def _count(
        self, counts: coverage.Counts, example: examples.Example, *, is_left_out: bool
    ) -> None:
        """Counts an example where it was drawn."""
        counts.add(
            seconds=example.record.num_samples / self.sample_rate,
            heard_seconds=None if self._draws.crops else example.heard / self.sample_rate,
            text=None if self._text is None else example.text,
            is_left_out=is_left_out if self._shares else None,
        )

    def _check_beginnings(self, has_levels: bool) -> None:
        """Refuses crops and gains where a record must be as it was encoded or transcribed."""
        if self._draws.crops and self._text is not None:
            raise ValueError(
                "text belongs to whole records: give random_crop=False with text, got True"
            )
        has_gain = has_levels or (self.options.train and self._draws.gain_db != (0.0, 0.0))
        if isinstance(self._layout, batches.Latents) and (self._draws.crops or has_gain):
            raise ValueError(
                "latents cannot be cropped at random or made louder: give random_crop=False and "
                "gain_db=(0.0, 0.0) with shards of latents"
            )
