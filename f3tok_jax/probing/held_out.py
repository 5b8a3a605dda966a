# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is held out: groups that are left out in turn, and that nothing tested was learnt from."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from f3tok_jax.probing import features as features_lib

SOURCE = "source"  # in place of a label: the file that a sound was cut from
_USUAL = "speaker"  # whose clips are alike, where nothing else is named


def check(train: features_lib.Examples, tests: Mapping[str, features_lib.Examples]) -> None:
    """Raises ValueError where a source or a sound, sample by sample, is learnt and tested."""
    for name, test in tests.items():
        for what, learnt, tested in (
            ("source", train.sources, test.sources),
            ("sound", train.sounds, test.sounds),
        ):
            known = set(learnt) - {""}
            shared = [index for index, one in enumerate(tested) if one in known]
            if shared:
                where = test.sources[shared[0]].partition(":")[2]
                raise ValueError(
                    f"what is tested must be held out of what is learnt, got {len(shared)} of "
                    f"{len(tested)} records of {name} whose {what} is among those learnt from, such "
                    f"as {where!r}: name sets that share nothing, as build_shards --holdout makes "
                    "them, or keep one side apart by --exclude and --only"
                )


def groups_of(
    examples: features_lib.Examples, label: str, group: str, others: Sequence[str] = ()
) -> tuple[str, np.ndarray]:
    """By what clips are alike, and the group of each.

    Args:
        examples: that are learnt from.
        label: that is predicted.
        group: name of the label whose values are groups, or SOURCE; "" for the first that serves:
            `others`, the speaker, the source.
        others: names of labels that are tried first.

    Returns:
        The name, and [n] str.

    Raises:
        ValueError: where `group` is predicted itself, or a record does not have it.
    """
    if group == label:
        raise ValueError(
            f"--group must be another label than what is predicted, got {label!r} for both: other "
            "groups have none of its values"
        )
    for name in [group] if group else [*others, _USUAL]:
        if name == SOURCE:
            break
        values = [labels.get(name) for labels in examples.labels]
        missing = values.count(None)
        if group and missing:
            raise ValueError(
                f"--group={group} must be a label of every record that is learnt from, got "
                f"{missing} of {len(values)} without it: name another, or --group={SOURCE}"
            )
        if name != label and not missing and (group or len(set(values)) > 1):
            return name, np.array(values)
    return SOURCE, np.array(list(examples.sources))


def left_out(
    train: features_lib.Examples, tests: Mapping[str, features_lib.Examples], by: str
) -> Iterator[tuple[str, features_lib.Examples, dict[str, features_lib.Examples]]]:
    """Each value of a label in turn: it, what is learnt without it, and what is tested of it.

    Args:
        train: examples to learn from.
        tests: name -> examples to test on.
        by: name of the label.

    Raises:
        ValueError: where a record has no such label, or less than two values are tested.
    """
    for name, examples in {"what is learnt": train, **tests}.items():
        missing = sum(by not in labels for labels in examples.labels)
        if missing:
            raise ValueError(
                f"--leave_out={by} needs the label of every record, got {missing} of "
                f"{len(examples.labels)} without it in {name}: whose they are is unknown; build "
                "shards with it or leave them out"
            )
    values = sorted({labels[by] for test in tests.values() for labels in test.labels})
    if len(values) < 2:
        raise ValueError(
            f"--leave_out={by} needs at least two values to leave out in turn, got {values or 'none'}"
        )
    for value in values:
        apart = {
            name: test.select([labels[by] == value for labels in test.labels])
            for name, test in tests.items()
        }
        apart = {name: test for name, test in apart.items() if test.labels}
        yield value, train.select([labels[by] != value for labels in train.labels]), apart
