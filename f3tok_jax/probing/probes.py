# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Probes of a run's features: what simple classifiers read off them."""

import collections
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import pathlib
from typing import Any
import zlib

import numpy as np

from data_pipelines.reading import mixture
from data_pipelines.reading import sources
from data_pipelines.reading import staged
from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.probing import classifiers
from f3tok_jax.probing import features
from f3tok_jax.probing import logistic_probe
from f3tok_jax.probing import maps
from f3tok_jax.probing import measurement
from f3tok_jax.probing import poolings as poolings_lib
from f3tok_jax.runs import probe_results
from f3tok_jax.runs import results as results_lib

_TEST_SHARE = 5  # one source in this many is tested where there is no test set
Filter = tuple[str, str]  # label and value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How features are probed.

    Attributes:
        labels: names of what to predict.
        exclude: label and value of what is kept out of training.
        only: label and value of what alone is tested; values of one label are alternatives.
        num_seeds: of the linear probe, if it has any, and of shuffled labels.
        poolings: of frames over time, of poolings.POOLINGS.
        recipe: of the linear probe.
        group: label by which clips are alike; see held_out.groups_of.
        leave_out: label whose values are each left out and tested in turn; "" for none.
        batch_size: sounds encoded at a time.
    """

    labels: Sequence[str]
    exclude: Sequence[Filter] = ()
    only: Sequence[Filter] = ()
    num_seeds: int = 5
    poolings: Sequence[str] = ("mean_std",)
    recipe: classifiers.Recipe = logistic_probe.Recipe()
    group: str = ""
    leave_out: str = ""
    batch_size: int = 32

    def __post_init__(self):
        if self.num_seeds < 1 or self.batch_size < 1 or not self.labels:
            raise ValueError(
                f"--label must name a label, --num_seeds and --batch_size must be at least 1, got "
                f"{','.join(self.labels)!r}, {self.num_seeds} and {self.batch_size}"
            )
        poolings_lib.check(self.poolings)
        if (
            poolings_lib.ATTENTIVE in self.poolings
            and self.recipe.name == logistic_probe.Recipe.name
        ):
            raise ValueError(
                "attentive pooling is learnt with the classifier, got --pooling="
                f"{','.join(self.poolings)} with --recipe={self.recipe.name}, which learns from "
                "vectors alone: give --recipe=xares"
            )

    def as_results(self) -> dict[str, Any]:
        """What probe_results.Probe says of how it was measured."""
        return dict(
            exclude=["=".join(pair) for pair in self.exclude],
            only=["=".join(pair) for pair in self.only],
            leave_out=self.leave_out,
            pooling=",".join(self.poolings),
            num_seeds=self.num_seeds,
            recipe={"name": self.recipe.name, **vars(self.recipe)},
        )

    def measure(
        self, train: features.Examples, tests: Mapping[str, features.Examples]
    ) -> dict[str, probe_results.ProbedLabel]:
        """Every label; see measurement.measure."""
        options = dict(seeds=range(self.num_seeds), recipe=self.recipe)
        options |= dict(group=self.group, leave_out=self.leave_out)
        return measurement.each(
            {
                label: functools.partial(measurement.measure, train, tests, label, **options)
                for label in self.labels
            }
        )


def load_models(
    workdir: str,
    *,
    moved: Mapping[str, str] | None = None,
    say: Callable[[str], None] = print,
) -> features.Models:
    """The models of a run; see F3Tokenizer.from_pretrained.

    Raises:
        ValueError: where the folder is no such run, or its autoencoder is not that of its training.
        checkpoint.CheckpointError: where it has no whole checkpoint.
    """
    tokenizer = tokenizer_lib.F3Tokenizer.from_pretrained(workdir, moved=moved, say=say)
    encoders = {}
    if tokenizer.run.stage != "autoencoder":
        encoders[features.REPRESENTATIONS] = tokenizer.representer.represent
    return features.Models(tokenizer, encoders)


def read_examples(
    shards: str,
    test_shards: Mapping[str, str],
    models: features.Models,
    *,
    options: Options,
    poolings: Sequence[str] | None = None,
    say: Callable[[str], None] = print,
) -> tuple[features.Examples, dict[str, features.Examples]]:
    """Computes the features of what is learnt and of what is tested.

    Args:
        shards: sets to learn from, with commas between; where there is no other, a fifth of their
            sources is tested, or every group that is left out.
        test_shards: name -> set to test on.
        models: that make the features.
        options: of the probes.
        poolings: in place of those of the options; see features.read.
        say: where messages go.

    Returns:
        The examples to learn from, and name -> those to test on.

    Raises:
        ValueError: if a set does not fit the models, or cannot be read.
    """
    read = functools.partial(
        features.read,
        models=models,
        poolings=options.poolings if poolings is None else poolings,
        batch_size=options.batch_size,
        say=say,
    )
    train = features.join([read(folder) for folder in mixture.folders(shards)])
    if test_shards:
        tests = {name: read(folder) for name, folder in test_shards.items()}
    elif options.leave_out:
        tests = {shards: train}
    else:
        is_test = [zlib.crc32(source.encode()) % _TEST_SHARE == 0 for source in train.sources]
        tests = {shards: train.select(is_test)}
        train = train.select(~np.array(is_test))
    train = train.select([not _matches(record, options.exclude) for record in train.labels])
    if options.only:
        tests = {
            name: test.select([_matches_all(record, options.only) for record in test.labels])
            for name, test in tests.items()
        }
    return train, tests


def check(
    shards: str, test_shards: Mapping[str, str], *, sample_rate: int, options: Options
) -> None:
    """Raises, before anything is computed, what `Options.measure` would of sets; reads every record.

    Args:
        shards: see `read_examples`.
        test_shards: likewise.
        sample_rate: Hz that they must have.
        options: of the probes.

    Raises:
        ValueError: where labels are missing, or something is learnt and tested.
    """
    models = features.Models(None, {}, sample_rate=sample_rate)
    quiet = dict(poolings=(), say=lambda line: None)
    train, tests = read_examples(shards, test_shards, models, options=options, **quiet)
    for label in options.labels:
        measurement.check(train, tests, label, group=options.group, leave_out=options.leave_out)


def probe(
    workdir: str,
    shards: str,
    output: pathlib.Path,
    *,
    options: Options,
    test_shards: Sequence[str] = (),
    moved: Mapping[str, str] | None = None,
    say: Callable[[str], None] = print,
) -> probe_results.Probe:
    """Probes a run; writes `output`.

    Args:
        workdir: of a run; "" for spectra alone.
        shards: set to learn from; with no `test_shards`, a folder with the sets `train` and `test`,
            or one set of which a fifth of the sources, by a hash, is tested.
        output: JSON file to write.
        options: of the probes.
        test_shards: sets to test on.
        moved: where what the run names lies now; see F3Tokenizer.from_pretrained.
        say: where messages go.

    Returns:
        What was written.

    Raises:
        ValueError: if the run, the data and the labels do not fit together.
        checkpoint.CheckpointError: where the run has no whole checkpoint.
    """
    folders = _folders(shards, test_shards)
    if workdir:
        models = load_models(workdir, moved=moved, say=say)
    else:
        rate = sources.open_sound(
            mixture.folders(folders[0])[0], sample_rate=None
        ).manifest.sample_rate
        models = features.Models(None, {}, sample_rate=rate)
    train, tests = read_examples(
        folders[0], {folder: folder for folder in folders[1:]}, models, options=options, say=say
    )
    results = probe_results.Probe(
        workdir=str(workdir),
        autoencoder=models.tokenizer.fingerprint if models.tokenizer else None,
        shards=folders[0],
        **options.as_results(),
        labels=options.measure(train, tests),
        map=maps.draw(features.join(list(tests.values())), options.labels),
    )
    results_lib.write(output, results)
    return results


def _matches(labels: Mapping[str, str], filters: Sequence[Filter]) -> bool:
    """Whether any filter holds."""
    return any(labels.get(label) == value for label, value in filters)


def _matches_all(labels: Mapping[str, str], filters: Sequence[Filter]) -> bool:
    """Whether for every label that is filtered one of its values holds."""
    allowed = collections.defaultdict(set)
    for label, value in filters:
        allowed[label].add(value)
    return all(labels.get(label) in values for label, values in allowed.items())


def _folders(shards: str, test_shards: Sequence[str]) -> list[str]:
    """The set to learn from, and those to test on, if they are sets of their own."""
    sets = staged.sets(shards)
    if not test_shards and len(sets) == 2:
        return list(sets.values())
    return [shards, *test_shards]
