# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What probes find: every feature, for one label, on sets that are held out or group by group."""

import collections
from collections.abc import Callable, Mapping, Sequence
import functools
from typing import Any, TypeVar

import numpy as np

from f3tok_jax.probing import classifiers
from f3tok_jax.probing import features as features_lib
from f3tok_jax.probing import held_out
from f3tok_jax.probing import logistic_probe
from f3tok_jax.probing import xares_probe
from f3tok_jax.runs import probe_results

_T = TypeVar("_T")


def measure(
    train: features_lib.Examples,
    tests: Mapping[str, features_lib.Examples],
    label: str,
    *,
    seeds: Sequence[int],
    recipe: classifiers.Recipe = logistic_probe.Recipe(),
    group: str = "",
    leave_out: str = "",
) -> probe_results.ProbedLabel:
    """Probes every feature for one label.

    Args:
        train: examples to learn from; those without the label are left out.
        tests: name -> examples to be tested on, likewise.
        label: name.
        seeds: of the linear probe, if it has any, and of shuffled labels.
        recipe: of the linear probe.
        group: label by which clips are alike; see held_out.groups_of.
        leave_out: label whose values are each left out of training in turn and tested; "" for none.

    Returns:
        Examples of classes that training never saw count as wrong.

    Raises:
        ValueError: if a label has less than two classes to learn, or nothing to test; or something
            is learnt and tested.
        xares_probe.Undertrained: if probes were not trained to their ends; with as many epochs as
            suffice for all.
    """
    train, tests = _labelled(train, tests, label)
    check(train, tests, label, group=group, leave_out=leave_out)
    group_options = dict(group=group, others=[leave_out] if leave_out else [])
    alike, groups = held_out.groups_of(train, label, **group_options)
    options = dict(label=label, seeds=seeds, recipe=recipe, **group_options)
    if leave_out:
        work = {
            value: functools.partial(_split, *sets, **options)
            for value, *sets in held_out.left_out(train, tests, leave_out)
        }
        found = each(work)
        tested = {
            name: _over_groups({value: one[name] for value, one in found.items() if name in one})
            for name in tests
        }
    else:
        tested = _split(train, tests, **options)
    return probe_results.ProbedLabel(
        classes=sorted({labels[label] for labels in train.labels}),
        num_train=len(train.labels),
        alike=alike,
        num_groups=len(set(groups.tolist())),
        tests=tested,
    )


def check(
    train: features_lib.Examples,
    tests: Mapping[str, features_lib.Examples],
    label: str,
    *,
    group: str = "",
    leave_out: str = "",
) -> None:
    """Raises the ValueErrors of `measure` that need no features."""
    if leave_out == label:
        raise ValueError(
            f"--leave_out must be another label than what is predicted, got {label!r} for both: "
            "nobody can know a class that was never learnt"
        )
    train, tests = _labelled(train, tests, label)
    _count_classes(train, label)
    for name, test in tests.items():
        if not test.labels:
            raise ValueError(f"no record to test in {name} has the label {label!r}")
    held_out.groups_of(train, label, group)
    sides = [(train, tests)]
    if leave_out:
        sides = [sets for _, *sets in held_out.left_out(train, tests, leave_out)]
    for learnt, tested in sides:
        held_out.check(learnt, tested)
        _count_classes(learnt, label)


def spread(values: Sequence) -> probe_results.Spread:
    """Mean and standard deviation of values, one per seed, or a list per run."""
    return probe_results.Spread(
        mean=float(np.mean(values)), std=float(np.std(values)), values=values
    )


def _labelled(
    train: features_lib.Examples, tests: Mapping[str, features_lib.Examples], label: str
) -> tuple[features_lib.Examples, dict[str, features_lib.Examples]]:
    """The examples that have a label."""

    def having(examples: features_lib.Examples) -> features_lib.Examples:
        return examples.select([label in labels for labels in examples.labels])

    return having(train), {name: having(test) for name, test in tests.items()}


def _count_classes(train: features_lib.Examples, label: str) -> collections.Counter[str]:
    counts = collections.Counter(labels[label] for labels in train.labels)
    if len(counts) < 2:
        raise ValueError(
            f"the label {label!r} must have at least two values in the training shards, got "
            f"{sorted(counts) or 'none'}: name another label, or build shards with it"
        )
    return counts


def each(work: Mapping[str, Callable[[], _T]]) -> dict[str, _T]:
    """What all of it gives; of probes that need more epochs the one that needs the most is raised."""
    done, undertrained = {}, []
    for name, do in work.items():
        try:
            done[name] = do()
        except xares_probe.Undertrained as error:
            undertrained.append(error)
    if undertrained:
        raise max(undertrained, key=lambda error: error.needed or float("inf"))
    return done


def _split(
    train: features_lib.Examples,
    tests: Mapping[str, features_lib.Examples],
    *,
    label: str,
    group: str,
    others: Sequence[str],
    **options: Any,
) -> dict[str, probe_results.Tested]:
    """What was learnt of one set of examples, tested on others: name -> figures."""
    counts = _count_classes(train, label)
    classes = {value: index for index, value in enumerate(sorted(counts))}
    commonest = classes[counts.most_common(1)[0][0]]
    answers = {
        name: np.array([classes.get(labels[label], -1) for labels in test.labels])
        for name, test in tests.items()
    }
    learnt = np.array([classes[labels[label]] for labels in train.labels])
    _, groups = held_out.groups_of(train, label, group, others)
    together = features_lib.join([train, *tests.values()])
    work = {
        row: functools.partial(
            _accuracies,
            probe_results.title_of(row),
            classifiers.Learnt(values[: len(learnt)], learnt, len(classes), groups),
            values[len(learnt) :],
            answers,
            **options,
        )
        for row, values in together.features.items()
    }
    found = each(work)
    return {
        name: probe_results.Tested(
            num_examples=len(wanted),
            num_unseen=int(np.sum(wanted < 0)),
            unseen_classes=sorted({one[label] for one in tests[name].labels} - set(classes)),
            num_train=len(learnt),
            majority=float(np.mean(wanted == commonest)),
            chance=1 / len(classes),
            features={row: accuracies[name] for row, accuracies in found.items()},
        )
        for name, wanted in answers.items()
    }


def _accuracies(
    title: str,
    learnt: classifiers.Learnt,
    test: np.ndarray,
    wanted: Mapping[str, np.ndarray],
    *,
    recipe: classifiers.Recipe,
    seeds: Sequence[int],
) -> dict[str, probe_results.FeatureAccuracy]:
    """Of one feature, for each set of tests; `test` [m, ...] are the sets in order."""
    try:
        linear, fit = recipe.predict(learnt, test, seeds=seeds)
    except xares_probe.Undertrained as error:
        raise xares_probe.Undertrained(error.curve, error.needed, of=title) from error
    shuffled = recipe.predict_shuffled(learnt, test, seeds=seeds, fit=fit)
    is_plain = test.ndim == 2  # no neighbours where the pooling itself is learnt
    nearest = classifiers.nearest_neighbours(learnt, test) if is_plain else None
    found, start = {}, 0
    for name, answers in wanted.items():
        some = slice(start, start := start + len(answers))

        def right(given: np.ndarray) -> list[float]:
            return np.mean(given[..., some] == answers, axis=-1).tolist()

        found[name] = probe_results.FeatureAccuracy(
            linear=spread(right(linear)),
            neighbours=right(nearest) if is_plain else None,
            shuffled=spread(right(shuffled)),
            fit=fit,
        )
    return found


def _over_groups(groups: Mapping[str, probe_results.Tested]) -> probe_results.Tested:
    """Every group counts alike, however many examples it has."""
    all_of = list(groups.values())
    rows = [row for row in all_of[0].features if all(row in one.features for one in all_of)]
    return probe_results.Tested(
        num_examples=sum(one.num_examples for one in all_of),
        num_unseen=sum(one.num_unseen for one in all_of),
        unseen_classes=sorted({name for one in all_of for name in one.unseen_classes}),
        majority=float(np.mean([one.majority for one in all_of])),
        chance=float(np.mean([one.chance for one in all_of])),
        features={row: _mean_accuracy([one.features[row] for one in all_of]) for row in rows},
        groups=dict(groups),
    )


def _mean_accuracy(found: Sequence[probe_results.FeatureAccuracy]) -> probe_results.FeatureAccuracy:
    """Of one feature over groups."""
    means = [one.linear.mean for one in found]
    neighbours = [one.neighbours for one in found if one.neighbours is not None]
    has_seeds = len(found[0].linear.values) > 1
    return probe_results.FeatureAccuracy(
        linear=probe_results.Spread(
            mean=float(np.mean(means)),
            std=float(np.std(means)),
            values=[one.linear.values for one in found],
        ),
        neighbours=float(np.mean(neighbours)) if neighbours else None,
        shuffled=spread([one.shuffled.values for one in found]),
        seeds_std=float(np.mean([one.linear.std for one in found])) if has_seeds else None,
    )
