# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A mixture of sources of which batches are made by their step: what every pipeline is.

The batch of a step is a function of (seed, step) alone, so there is no iterator state to save, and
1, 2 or 4 hosts see the same global batch.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import hashlib
import json
from typing import Any

from absl import flags
import grain
import numpy as np

from data_pipelines.reading import coverage
from data_pipelines.reading import mixture as mixtures
from data_pipelines.reading import replaced
from data_pipelines.reading import sources
from data_pipelines.reading import verification

_LAST_STEP = 2**62


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
        self._covered = coverage.Log()

    def replaced_before(self, step: int) -> replaced.Replaced:
        """Rows of this host's batches before `step` that hold another record than theirs.

        Counted from the step on at which `iterate` began, in batches that were made: what is made
        ahead of `step` does not count. Such rows are part of what a model has seen, as the
        fingerprint is; of several hosts, and of what was before `iterate` began, they are added by
        replaced.Replaced.sum. The same damage gives the same sum with any number of hosts.
        """
        return self._replaced.between(self._start_step, step)

    def covered(self, start_step: int, stop_step: int) -> dict[str, float]:
        """What of their records this host's batches hold, from `start_step` on, before `stop_step`.

        Counted in batches that were made, each once; those before `start_step` are forgotten. Empty
        where nothing of the kind is counted; coverage.shares tells it in shares.
        """
        return self._covered.between(start_step, stop_step)

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

    def _read(
        self,
        source: sources.Source,
        index: int,
        step: int,
        row: int,
        *,
        read: Callable[[int], Any] | None = None,
        count: bool = True,
    ) -> Any:
        """The record that belongs in a row of the global batch of `step`.

        Args:
            source: that it is in.
            index: of it there.
            step: of the batch.
            row: of the global batch.
            read: what of the source gives it by its index; None gives all of it.
            count: whether it counts where another takes its place.
        """
        read = read or source.__getitem__
        record, found = self._substitute.read(read, index, len(source), count=count)
        if count and found != index:
            self._replaced.add(step, row, source=source.fingerprint, wanted=index, found=found)
        return record

    def _digest(self, *decisive: Any) -> str:
        """SHA-256 over the sources and all else that decides which example comes when."""
        content = [[source.fingerprint for source in self._sources], *decisive]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()
