# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a stage is: `Definition` before a config is given, `Stage` once it is.

A new stage is a file in stages/ that ends in its `Definition`, a line in stages/registry.py and a
recipe in configs/; whatever trains, checks, measures or reports finds there what it needs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
from typing import Any, Protocol

import jax
import ml_collections
import numpy as np

from f3tok_jax.runs import lineage
from f3tok_jax.training import state as train_state

# Name -> (sum, weight), float32 scalars. The ratio is formed once, on the host, after all sums.
Metrics = Mapping[str, tuple[jax.Array, jax.Array]]
Batch = Mapping[str, jax.Array]

AUDIO_SECONDS = "audio_seconds"
# Metric of every train step: the share of its batch that is no padding.
FILLED = "train/filled"


class Data(Protocol):
    """Batches by their step, as the loop reads them; see data_pipelines.reading.mixture_pipeline."""

    fingerprint: str  # of everything that decides which example comes when
    num_records: int
    sets: Sequence[str]  # a line for each set of shards: which, how much, how often
    copy: str  # the same on two hosts that read one copy of the shards

    @property
    def batch_spec(self) -> Mapping[str, tuple[tuple[int, ...], np.dtype]]:
        """Name -> (shape, dtype) of the global batch."""

    def local_batch(self, step: int) -> dict[str, np.ndarray]:
        """This host's rows of the batch of `step`."""

    def iterate(
        self, start_step: int = 0, stop_step: int | None = None
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """(step, this host's rows) from `start_step` on, prepared in the background."""

    def verify(self, *, index: int, count: int, say: Callable[[str], None]) -> None:
        """Compares every byte of each `count`-th shard from `index` on with its checksum.

        Raises:
            ValueError: naming the first that differs.
        """

    def replaced_before(self, step: int) -> tuple[int, int]:
        """Rows before `step` that hold another record than theirs, which could not be read.

        Of this host's batches since the step at which `iterate` began: how many, and the sum modulo
        2**64 of a number for each of them, so that hosts and stretches of a run can be added, and
        the same damage gives the same sum however a run was cut up.
        """

    def covered(self, start_step: int, stop_step: int) -> Mapping[str, float]:
        """What of their records this host's batches hold, from `start_step` on, before `stop_step`.

        Sums, of which data_pipelines.reading.coverage.shares makes shares.
        """

    def example_keys(self, step: int) -> list[str]:
        """Where the rows of the global batch of `step` came from."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watched:
    """A metric that stays above 0, of which a spike is named.

    Attributes:
        metric: of the train step.
        lever: what to do where spikes come again, after "if it comes again".
        factor: above the median of the steps before, at least, that makes a spike.
    """

    metric: str
    lever: str
    factor: float = 1.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sign:
    """What a step's metrics look like when something has collapsed.

    Attributes:
        metrics: of the train step; a step that lacks one of them, without weight, does not tell.
        shows: their values, in this order, to a sentence that says what is wrong and which lever
            helps; "" where nothing is.
        steps: in a row of which it must hold before it is said.
    """

    metrics: Sequence[str]
    shows: Callable[..., str]
    steps: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statistics:
    """Numbers that are taken from the training data once, before the first step; a run keeps them.

    Every device hears one example at a time, and every process reads its share: neither a batch nor
    a data set is ever too large, and all meshes find the same numbers. See training.statistics.

    Attributes:
        num_examples: that are heard, the first of the training data; all, where it has fewer.
        example: name -> shape and dtype of every array of one, without an axis of examples.
        open_data: (batch_size=, process_index=, process_count=) -> batches of so many examples.
        reads: names in `abstract_frozen` of what `sums` reads.
        load: (shardings of those) -> the arrays.
        sums: (those arrays, a batch of one example) -> arrays that add over examples; pure.
        finish: (the sums, float64) -> the numbers, ready for JSON; refuses too few by ValueError.
    """

    num_examples: int
    example: Mapping[str, jax.ShapeDtypeStruct]
    open_data: Callable[..., Data]
    reads: Sequence[str] = ()
    load: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda shardings: {}
    sums: Callable[[Any, Batch], Sequence[jax.Array]]
    finish: Callable[[Sequence[np.ndarray]], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of training, as pure functions and what they expect.

    Attributes:
        batch_spec: name -> global shape and dtype of every array in a batch.
        init_state: key -> initial state; traceable.
        open_data: (what config.data.train or config.data.heldout names, train=, process_index=,
            process_count=) -> batches of `batch_spec`.
        abstract_frozen: shapes and dtypes of the arrays that the step reads and nothing trains:
            neither differentiated, donated nor saved.
        load_frozen: (shardings, measured) -> the arrays, placed by `shardings`, a tree like
            `abstract_frozen`; `measured` is what `statistics` gave when the run began.
        frozen_fingerprints: name -> fingerprint of each model in `abstract_frozen`; a run goes on
            with the ones it began with.
        statistics: what is measured before the first step; None for nothing.
        read_exported: reads an exported folder that config.init_from may name in the place of a
            run; None where there is no such format.
        train_step: (state, frozen, batch) -> (state, metrics); pure, compiled once, `state`
            donated.
        eval_step: (state, frozen, batch) -> metrics, with the averaged weights and no noise.
        sample: (state, frozen, batch) -> name -> waveforms [b, n] in [-1, 1] to listen to; None
            where a stage makes no sound.
        best_metric: the metric of `eval_step` by which the best checkpoint is kept; lower is
            better.
        best_from: step after which it counts: before, not all that learns had begun to.
        watched: metrics of `train_step` of which a spike is named.
        signs: what its metrics look like when something has collapsed.
        sample_rate: Hz, of the waveforms in batches and samples; 0 where there are none.
        per_batch: in a global batch, of `unit`, where it is full.
        unit: what speed is told in.
        valid: batch -> bool array, True where it is no padding; speed counts that alone.
        model_flops: of the products that no implementation of a step can do without: nothing twice,
            no pair that is not allowed, no padding; 0 where they are not known.
    """

    batch_spec: Mapping[str, jax.ShapeDtypeStruct]
    init_state: Callable[[jax.Array], train_state.TrainState]
    open_data: Callable[..., Data]
    abstract_frozen: Any = dataclasses.field(default_factory=dict)
    load_frozen: Callable[[Any, Mapping[str, Any]], Any] = lambda shardings, measured: {}
    frozen_fingerprints: Mapping[str, str] = dataclasses.field(default_factory=dict)
    statistics: Statistics | None = None
    read_exported: Callable[[str], lineage.Lineage] | None = None
    train_step: Callable[
        [train_state.TrainState, Any, Batch], tuple[train_state.TrainState, Metrics]
    ]
    eval_step: Callable[[train_state.TrainState, Any, Batch], Metrics]
    sample: Callable[[train_state.TrainState, Any, Batch], Mapping[str, jax.Array]] | None = None
    best_metric: str
    best_from: int = 0
    watched: Sequence[Watched] = ()
    signs: Sequence[Sign] = ()
    sample_rate: int = 0
    per_batch: float
    unit: str = AUDIO_SECONDS
    valid: Callable[[Batch], jax.Array] = lambda batch: batch["mask"]
    model_flops: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """What a finished run does again and again on one chip, by shapes alone.

    Attributes:
        lowered: to be compiled.
        per_batch: made at a time, of `unit`.
        unit: what speed is told in.
        model_flops: of the products that it needs, nothing computed twice.
    """

    lowered: jax.stages.Lowered
    per_batch: float
    unit: str = AUDIO_SECONDS
    model_flops: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Words:
    """What a report says of a stage.

    Attributes:
        title: of a page about its runs alone.
        introduction: what the stage does and what there is to see, for who has never heard of it.
        curves: quantity, as in "train/<quantity>" or "train/<quantity>/<part>" -> what it is, in a
            sentence, "" where its name says it; those to be looked at first come first.
        together: quantity whose parts share a chart -> what a line of it is.
        program: which measures a finished run, a module of f3tok_jax; "" for none.
        results: pattern of the files that it leaves in the folder of the run.
    """

    title: str
    introduction: str = ""
    curves: Mapping[str, str] = dataclasses.field(default_factory=dict)
    together: Mapping[str, str] = dataclasses.field(default_factory=dict)
    program: str = ""
    results: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Definition:
    """One of the stages, as all programs know it.

    Attributes:
        name: what its recipes give in config.stage.
        make: config -> the stage; reads configs of finished runs, no weights. The run as its own
            folder tells may follow, where it goes on or what it names has moved.
        validate: refuses a config whose values cannot work together, by ValueError; what holds for
            every stage is checked before.
        derived: (config, run=None) -> what follows from it, by name with unit; `run` as in `make`.
        scopes: names of the model's parts in jax.named_scope, to which costs are credited.
        step_parts: name of a part of the train step -> changes a config so that the step is that
            part alone.
        programs: name of a program of finished runs -> (config, device) -> the program, for a
            device that need not exist.
        evaluation: module of f3tok_jax.evaluation that measures finished runs; "" for none.
        words: for reports.
    """

    name: str
    make: Callable[..., Stage]
    validate: Callable[[ml_collections.ConfigDict], None] = lambda config: None
    derived: Callable[..., Mapping[str, float]] = lambda config, run=None: {}
    scopes: tuple[str, ...]
    step_parts: Mapping[str, Callable[[ml_collections.ConfigDict], None]] = dataclasses.field(
        default_factory=dict
    )
    programs: Mapping[str, Callable[[ml_collections.ConfigDict, Any], Program]] = dataclasses.field(
        default_factory=dict
    )
    evaluation: str = ""
    words: Words
