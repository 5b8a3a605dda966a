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
from data_pipelines.reading import staged
from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.probing import classifiers
from f3tok_jax.probing import features
from f3tok_jax.probing import maps
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
        num_seeds: of the linear probe.
        pooling: of frames over time, one of classifiers.POOLINGS.
        training: of the linear probe.
        batch_size: sounds encoded at a time.
    """

    labels: Sequence[str]
    exclude: Sequence[Filter] = ()
    only: Sequence[Filter] = ()
    num_seeds: int = 5
    pooling: str = "mean"
    training: classifiers.Training = classifiers.Training()
    batch_size: int = 32

    def __post_init__(self):
        if self.num_seeds < 1 or self.batch_size < 1 or not self.labels:
            raise ValueError(
                f"--label must name a label, --num_seeds and --batch_size must be at least 1, got "
                f"{','.join(self.labels)!r}, {self.num_seeds} and {self.batch_size}"
            )

    def as_results(self) -> dict[str, Any]:
        """What results_lib.Probes says of how they were measured."""
        return dict(
            exclude=["=".join(pair) for pair in self.exclude],
            only=["=".join(pair) for pair in self.only],
            pooling=self.pooling,
            num_seeds=self.num_seeds,
            recipe=vars(self.training),
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


def measure(
    train: features.Examples,
    tests: Mapping[str, features.Examples],
    label: str,
    *,
    seeds: Sequence[int],
    training: classifiers.Training = classifiers.Training(),
) -> results_lib.ProbedLabel:
    """Probes every feature for one label.

    Args:
        train: examples to learn from; those without the label are left out.
        tests: name -> examples to be tested on, likewise.
        label: name.
        seeds: of the linear probe.
        training: of the linear probe.

    Returns:
        Examples of classes that training never saw count as wrong.

    Raises:
        ValueError: if a label has less than two classes to learn, or nothing to test.
    """

    def labelled(examples: features.Examples) -> features.Examples:
        return examples.select([label in labels for labels in examples.labels])

    train, tests = labelled(train), {name: labelled(test) for name, test in tests.items()}
    counts = collections.Counter(labels[label] for labels in train.labels)
    if len(counts) < 2:
        raise ValueError(
            f"the label {label!r} must have at least two values in the training shards, got "
            f"{sorted(counts) or 'none'}: name another label, or build shards with it"
        )
    for name, test in tests.items():
        if not test.labels:
            raise ValueError(f"no record to test in {name} has the label {label!r}")
    classes = {value: index for index, value in enumerate(sorted(counts))}
    wanted = {
        name: np.array([classes.get(labels[label], -1) for labels in test.labels])
        for name, test in tests.items()
    }
    commonest = classes[counts.most_common(1)[0][0]]
    learnt = np.array([classes[labels[label]] for labels in train.labels])
    together = features.join([train, *tests.values()])
    found = {
        feature: _accuracies(
            values, learnt, wanted, num_classes=len(classes), seeds=seeds, training=training
        )
        for feature, values in together.features.items()
    }
    result = {
        name: results_lib.Tested(
            num_examples=len(answers),
            num_unseen=int(np.sum(answers < 0)),
            majority=float(np.mean(answers == commonest)),
            features={feature: accuracies[name] for feature, accuracies in found.items()},
        )
        for name, answers in wanted.items()
    }
    return results_lib.ProbedLabel(classes=list(classes), num_train=len(train.labels), tests=result)


def _accuracies(
    values: np.ndarray, learnt: np.ndarray, wanted: Mapping[str, np.ndarray], **options: Any
) -> dict[str, results_lib.FeatureAccuracy]:
    """For each set of tests; `values` [n, d] are of what is learnt and then of the sets in order."""
    arrays = values[: len(learnt)], learnt, values[len(learnt) :]
    ends = np.cumsum([len(answers) for answers in wanted.values()])[:-1]
    linear = np.split(classifiers.linear_probe(*arrays, **options), ends, axis=1)
    nearest = classifiers.nearest_neighbours(*arrays, num_classes=options["num_classes"])
    return {
        name: results_lib.FeatureAccuracy(
            linear=spread(np.mean(one == answers, axis=1).tolist()),
            neighbours=float(np.mean(other == answers)),
        )
        for (name, answers), one, other in zip(wanted.items(), linear, np.split(nearest, ends))
    }


def spread(values: Sequence) -> results_lib.Spread:
    """Mean and standard deviation of values, one per seed, or a list per run."""
    return results_lib.Spread(mean=float(np.mean(values)), std=float(np.std(values)), values=values)


def read_examples(
    shards: str,
    test_shards: Mapping[str, str],
    models: features.Models,
    *,
    options: Options,
    say: Callable[[str], None] = print,
) -> tuple[features.Examples, dict[str, features.Examples]]:
    """Computes the features of what is learnt and of what is tested.

    Args:
        shards: sets to learn from, with commas between; where there is no other, a fifth of their
            sources is tested.
        test_shards: name -> set to test on.
        models: that make the features.
        options: of the probes.
        say: where messages go.

    Returns:
        The examples to learn from, and name -> those to test on.

    Raises:
        ValueError: if a set does not fit the models, or cannot be read.
    """
    read = functools.partial(
        features.read,
        models=models,
        pooling=options.pooling,
        batch_size=options.batch_size,
        say=say,
    )
    train = features.join([read(folder) for folder in mixture.folders(shards)])
    if test_shards:
        tests = {name: read(folder) for name, folder in test_shards.items()}
    else:
        is_test = [zlib.crc32(group.encode()) % _TEST_SHARE == 0 for group in train.groups]
        tests = {shards: train.select(is_test)}
        train = train.select(~np.array(is_test))
    train = train.select([not _matches(record, options.exclude) for record in train.labels])
    if options.only:
        tests = {
            name: test.select([_matches_all(record, options.only) for record in test.labels])
            for name, test in tests.items()
        }
    return train, tests


def probe(
    workdir: str,
    shards: str,
    output: pathlib.Path,
    *,
    options: Options,
    test_shards: Sequence[str] = (),
    moved: Mapping[str, str] | None = None,
    say: Callable[[str], None] = print,
) -> results_lib.Probe:
    """Probes a run; writes `output`.

    Args:
        workdir: of a run.
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
    models = load_models(workdir, moved=moved, say=say)
    train, tests = read_examples(
        folders[0], {folder: folder for folder in folders[1:]}, models, options=options, say=say
    )
    seeds = range(options.num_seeds)
    results = results_lib.Probe(
        workdir=str(workdir),
        autoencoder=models.tokenizer.fingerprint,
        shards=folders[0],
        **options.as_results(),
        labels={
            label: measure(train, tests, label, seeds=seeds, training=options.training)
            for label in options.labels
        },
        map=maps.draw(features.join(list(tests.values())), options.labels),
    )
    results_lib.write(output, results)
    return results


def format_table(results: results_lib.Probe) -> str:
    """The accuracies as text, a line per label, test set and feature."""
    lines = [f"{'label':12} {'features':20} {'linear probe':>16} {'10 neighbours':>14}  tested on"]
    for label, found in results.labels.items():
        for name, test in found.tests.items():
            unseen = f", {test.num_unseen} of unseen classes" if test.num_unseen else ""
            where = f"{test.num_examples} of {name}{unseen}"
            commonest = results_lib.TITLES[results_lib.COMMONEST]
            lines.append(f"{label:12} {commonest:20} {test.majority:16.3f} {'':>14}  {where}")
            for feature, row in test.features.items():
                linear = f"{row.linear.mean:.3f} ± {row.linear.std:.3f}"
                lines.append(
                    f"{label:12} {results_lib.TITLES.get(feature, feature):20} {linear:>16} "
                    f"{row.neighbours:14.3f}  {where}"
                )
    return "\n".join(lines)


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
