# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Batches by their step: global order, then the slice of one host, prefetched in the background.

The batch of a step is a function of (seed, step) alone, so there is no iterator state to save, and
1, 2 or 4 hosts see the same global batch. As a program it measures itself:

    python -m data_pipelines.reading.pipeline --benchmark --shards=DIR [--output=benchmark.json]
"""

from collections.abc import Callable, Iterator, Sequence
import functools
import hashlib
import json
import pathlib
import time

from absl import app
from absl import flags
import grain
import numpy as np

from data_pipelines.reading import batches
from data_pipelines.reading import mixture as mixtures
from data_pipelines.reading import sources
from data_pipelines.reading import tasks
from data_pipelines.records import atomic
from data_pipelines.records import manifest

_LAST_STEP = 2**62
_STEPS_PER_BLOCK = 64  # whose records are located together
_TASK_STREAM = 1 << 64  # where the random numbers begin that choose text tasks


def parse_mixture(text: str) -> tuple[tuple[str, float], ...]:
    """Reads "DIR" or "DIR1=0.7,DIR2=0.3" as ((name, weight), ...), for sources.open_source.

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
                f"in {text!r}"
            )
        parsed.append((folder, value))
    return tuple(parsed)


def prefetched(
    local_batch: Callable[[int], dict[str, np.ndarray]],
    start_step: int,
    stop_step: int | None,
    *,
    num_threads: int,
    num_prefetched: int,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yields (step, local_batch(step)) in order, prepared by background threads.

    Args:
        local_batch: step -> batch; called by several threads.
        start_step: the first.
        stop_step: where to end, before that step; None never ends.
        num_threads: that prepare batches.
        num_prefetched: batches that wait ready.
    """
    steps = grain.MapDataset.range(start_step, _LAST_STEP if stop_step is None else stop_step)
    made = steps.map(lambda step: (step, local_batch(step)))
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_prefetched)
    return iter(made.to_iter_dataset(options))


class Pipeline:
    """Batches of fixed length, to train or to evaluate, from a mixture of sources."""

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
        random_crop: bool = True,
        text: tasks.TextTasks | None = None,
        autoencoder: str | None = None,
        max_replaced: int = 1000,
        num_threads: int = 1,
        num_prefetched: int = 4,
    ):
        """Opens the sources and checks that batches can be formed.

        Args:
            mixture: ((name, weight), ...) or what `parse_mixture` reads; the names are those of
                sources.open_source.
            sample_rate: Hz, of the model.
            crop_length: samples of each example.
            batch_size: examples over all hosts.
            seed: of order, crops and gains.
            process_index: which host this is.
            process_count: hosts.
            gain_db: dB, bounds of the uniform random gain, in training.
            train: True shuffles, crops at random and applies the gain; False goes through the
                records in order and takes their beginnings.
            random_crop: False takes the beginnings of records in training too, as text and latents
                need it.
            text: what each record is asked; adds text to the batches.
            autoencoder: fingerprint of the one that shards of latents must be of; None takes any.
            max_replaced: records that may turn out unreadable on this host before it is an error.
            num_threads: that prepare batches in the background. More than one pay where reading
                waits for storage; Python decodes in one at a time.
            num_prefetched: batches that wait ready.

        Raises:
            ValueError: if a source is not whole, has another rate or fewer records than a batch, a
                text is missing or too long, or the numbers do not fit together.
        """
        pairs = parse_mixture(mixture) if isinstance(mixture, str) else tuple(mixture)
        _check_numbers(pairs, crop_length, batch_size, seed, process_index, process_count, gain_db)
        names, weights = zip(*pairs)
        self._sources = [sources.open_source(name, sample_rate=sample_rate) for name in names]
        lengths = [len(source) for source in self._sources]
        self.num_records = sum(lengths)
        if train and self.num_records < batch_size:
            raise ValueError(
                f"{', '.join(map(str, names))} has {self.num_records} records, fewer than the "
                f"batch of {batch_size}: add sound or lower batch_size"
            )
        self._layout = batches.layout_of(
            self._sources, crop_length=crop_length, autoencoder=autoencoder
        )
        self._check_beginnings(train and random_crop, train and tuple(gain_db) != (0.0, 0.0), text)
        self._text = text
        if text is not None:
            batches.check_texts(text, self._sources, self._layout, train=train)
        self._mixture = mixtures.Mixture(lengths, weights, seed=seed, shuffle=train)
        self._places_of_block = functools.lru_cache(maxsize=4)(self._locate_block)
        self.sample_rate = sample_rate
        self._crop_length, self._batch_size, self._seed = crop_length, batch_size, seed
        self._gain_db, self._train, self._random_crop = tuple(gain_db), train, random_crop
        self._substitute = sources.Substitute(max_replaced)
        self._num_threads, self._num_prefetched = num_threads, num_prefetched
        rows = batch_size // process_count
        self._rows = slice(process_index * rows, (process_index + 1) * rows)
        decisive = [
            [source.fingerprint for source in self._sources],
            weights,
            sample_rate,
            crop_length,
            batch_size,
            seed,
            self._gain_db if train else None,
            train,
        ]
        if train and not random_crop:
            decisive.append("beginnings")
        if text is not None:
            decisive.append(text.fingerprint)
        self.fingerprint = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()

    @property
    def batch_spec(self) -> batches.Spec:
        """Name -> (shape, dtype) of the global batch.

        "waveform" or "latents", and "mask", True where they are valid; with text also "text", token
        ids, "text_mask", True where there is one, and "answer", True where it is to be predicted.
        """
        spec = self._layout.spec(self._batch_size)
        if self._text is not None:
            spec |= batches.text_spec(self._batch_size, self._text.max_tokens)
        return spec

    @property
    def replaced(self) -> int:
        """Records that could not be read on this host so far, each replaced by another."""
        return self._substitute.num_replaced

    def local_batch(self, step: int) -> dict[str, np.ndarray]:
        """Returns this host's rows of the batch of `step`, by `batch_spec`.

        Raises:
            ValueError: if more than `max_replaced` records have been unreadable.
        """
        places = self._places(step)[self._rows]
        positions, gains_db = self._draws(step)
        batch = self._layout.empty(len(places))
        if self._text is None:
            for row, (source, index) in enumerate(places):
                read = functools.partial(self._layout.read, source)
                content = self._substitute.read(read, index, len(source))
                self._layout.write(batch, row, content, positions[row])
        else:
            self._write_with_text(batch, places, step)
        self._layout.finish(batch, gains_db)
        return batch

    def _write_with_text(self, batch: dict, places: list, step: int) -> None:
        """Fills a batch from whole records, and adds the text that goes with each."""
        spec = batches.text_spec(len(places), self._text.max_tokens)
        batch |= {name: np.zeros(*pair) for name, pair in spec.items()}
        draws = self._philox(step, _TASK_STREAM).random(self._batch_size)[self._rows]
        for row, (source, index) in enumerate(places):
            record = self._substitute.read(source.__getitem__, index, len(source))
            self._layout.write(batch, row, self._layout.content(record), 0.0)
            is_whole = source.is_whole(record) and self._layout.fits(record)
            self._text.write_row(record, draws[row], is_whole=is_whole, batch=batch, row=row)

    def example_keys(self, step: int) -> list[str]:
        """Returns the keys of the records in the global batch of `step`, in its order.

        In a mixture of several sources each key follows its source's name and a colon.
        """
        keys = []
        for source, index in self._places(step):
            record = self._substitute.read(source.__getitem__, index, len(source), count=False)
            keys.append(f"{source.name}:{record.key}" if len(self._sources) > 1 else record.key)
        return keys

    def iterate(
        self, start_step: int = 0, stop_step: int | None = None
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Yields (step, this host's rows), prepared by background threads.

        Args:
            start_step: the first.
            stop_step: where to end, before that step; None never ends.
        """
        return prefetched(
            self.local_batch,
            start_step,
            stop_step,
            num_threads=self._num_threads,
            num_prefetched=self._num_prefetched,
        )

    def _places(self, step: int) -> list[tuple[sources.ShardSet, int]]:
        """The source and the index in it of every row of the global batch."""
        block, place = divmod(step, _STEPS_PER_BLOCK)
        return self._places_of_block(block)[
            place * self._batch_size : (place + 1) * self._batch_size
        ]

    def _locate_block(self, block: int) -> list[tuple[sources.ShardSet, int]]:
        """The places of all rows of many steps at once, because NumPy is slow on small arrays."""
        size = _STEPS_PER_BLOCK * self._batch_size
        positions = np.arange(block * size, (block + 1) * size, dtype=np.int64)
        source_indices, indices = self._mixture.locate(positions)
        return list(zip((self._sources[index] for index in source_indices), indices.tolist()))

    def _draws(self, step: int) -> tuple[list[float], np.ndarray | None]:
        """Crop position in [0, 1) and gain in dB of each of this host's rows."""
        if not self._train:
            return [0.0] * self._batch_size, None
        # Every host draws for all rows: a batch's numbers must not depend on who holds which row.
        positions, share = self._philox(step).random((2, self._batch_size))[:, self._rows]
        low, high = self._gain_db
        positions = positions.tolist() if self._random_crop else [0.0] * self._batch_size
        return positions, low + (high - low) * share

    def _philox(self, step: int, stream: int = 0) -> np.random.Generator:
        """Random numbers of one step; streams are far apart and never overlap."""
        return np.random.Generator(np.random.Philox(key=[self._seed, step], counter=stream))

    def _check_beginnings(self, crops: bool, has_gain: bool, text: object) -> None:
        """Refuses crops and gains where a record must be as it was encoded or transcribed."""
        if crops and text is not None:
            raise ValueError(
                "text belongs to whole records: give random_crop=False with text, got True"
            )
        if isinstance(self._layout, batches.Latents) and (crops or has_gain):
            raise ValueError(
                "latents cannot be cropped at random or made louder: give random_crop=False and "
                "gain_db=(0.0, 0.0) with shards of latents"
            )


def _check_numbers(
    pairs, crop_length, batch_size, seed, process_index, process_count, gain_db
) -> None:
    if not pairs:
        raise ValueError("a mixture names at least one shard folder, got none")
    if crop_length < 1 or batch_size < 1:
        raise ValueError(
            f"crop_length and batch_size must be at least 1, got {crop_length} and {batch_size}"
        )
    if not 0 <= process_index < process_count or batch_size % process_count:
        raise ValueError(
            f"batch_size={batch_size} must be a multiple of the {process_count} hosts, and "
            f"process_index={process_index} one of them"
        )
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed must be at least 0 and below 2**63, got {seed}")
    if not gain_db[0] <= gain_db[1]:
        raise ValueError(f"gain_db must be (lowest, highest), got {tuple(gain_db)}")


def benchmark(loader: Pipeline, *, num_steps: int, num_rounds: int = 3) -> dict[str, float]:
    """Measures how fast batches are made, beside the ceiling: decoding the same records alone.

    Speeds are per second of processor time, summed over threads: per core, and little moved by what
    else the machine does. Of several rounds in turn the fastest counts. The ceiling decodes whole
    records, with keys and labels; batches need the samples only.

    Args:
        loader: what to measure; of a single host.
        num_steps: batches per round.
        num_rounds: of each kind.

    Returns:
        Valid seconds of sound in the batches per core-second: "ceiling", "batches" made in turn,
        "prefetched" by background threads; the last two as shares of the ceiling; and
        "prefetched_wall", valid seconds per second on the wall.
    """
    if "waveform" not in loader.batch_spec:
        raise ValueError("the benchmark counts seconds of sound: give shards of sound, not latents")
    spec = loader.batch_spec["waveform"][0]
    valid = sum(int(loader.local_batch(step)["mask"].sum()) for step in range(num_steps))
    audio_seconds = valid / loader.sample_rate

    def decode_records() -> None:
        for step in range(num_steps):
            for source, index in loader._places(step):
                source[index]

    def make_batches() -> None:
        for step in range(num_steps):
            loader.local_batch(step)

    def prefetch_batches() -> None:
        for _ in loader.iterate(0, num_steps):
            pass

    works = {"ceiling": decode_records, "batches": make_batches, "prefetched": prefetch_batches}
    core, wall = dict.fromkeys(works, float("inf")), dict.fromkeys(works, float("inf"))
    for _ in range(num_rounds):
        for name, work in works.items():
            core_start, wall_start = time.process_time(), time.perf_counter()
            work()
            core[name] = min(core[name], time.process_time() - core_start)
            wall[name] = min(wall[name], time.perf_counter() - wall_start)
    return {
        **{name: audio_seconds / core[name] for name in works},
        "batches_share": core["ceiling"] / core["batches"],
        "prefetched_share": core["ceiling"] / core["prefetched"],
        "prefetched_wall": audio_seconds / wall["prefetched"],
        "batch_size": spec[0],
        "crop_seconds": spec[1] / loader.sample_rate,
        "num_steps": num_steps,
    }


def _define_flags() -> None:
    """Defines the flags of this program; on import they would collide with those of others."""
    flags.DEFINE_bool("benchmark", False, "Measure the pipeline beside its ceiling.")
    flags.DEFINE_string("shards", None, "Shard folder, or DIR=weight,DIR=weight.", required=True)
    flags.DEFINE_string("output", "", "File for the figures, JSON.")
    flags.DEFINE_integer("sample_rate", 0, "Hz; 0 for that of the first folder.", lower_bound=0)
    flags.DEFINE_integer("batch_size", 64, "Examples per batch.", lower_bound=1)
    flags.DEFINE_float("crop_seconds", 1.28, "Length of an example, s.", lower_bound=0.001)
    flags.DEFINE_integer("num_steps", 500, "Batches per round.", lower_bound=1)
    flags.DEFINE_integer("num_threads", 1, "That prepare batches.", lower_bound=0)


def main(argv: Sequence[str]) -> None:
    """Prints the benchmark of a shard set."""
    values = flags.FLAGS
    if len(argv) > 1 or not values.benchmark:
        raise app.UsageError("use --benchmark --shards=DIR [--output=FILE]")
    try:
        mixture = parse_mixture(values.shards)
        sample_rate = values.sample_rate or manifest.read(mixture[0][0]).sample_rate
        loader = Pipeline(
            mixture,
            sample_rate=sample_rate,
            crop_length=round(values.crop_seconds * sample_rate),
            batch_size=values.batch_size,
            gain_db=(-6.0, 6.0),
            num_threads=values.num_threads,
        )
        figures = benchmark(loader, num_steps=values.num_steps)
    except ValueError as error:
        raise SystemExit(f"pipeline: {error}") from None
    print("valid seconds of sound per second of one core:")
    print(f"  ceiling, the same records decoded and nothing else  {figures['ceiling']:10.0f}")
    for name, what in (
        ("batches", "batches, one after another"),
        ("prefetched", f"batches, {values.num_threads} background threads"),
    ):
        print(f"  {what:50}  {figures[name]:10.0f}  {figures[name + '_share']:.2f} of the ceiling")
    print(f"valid seconds per second on the wall, prefetched: {figures['prefetched_wall']:.0f}")
    if values.output:
        atomic.write_text(
            pathlib.Path(values.output), json.dumps(figures | {"shards": values.shards}) + "\n"
        )


if __name__ == "__main__":
    _define_flags()
    app.run(main)
