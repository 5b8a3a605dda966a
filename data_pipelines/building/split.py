# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Which sounds are held out: by a hash, whole speakers together, copies never on both sides.

A hash of the key decides, so that a sound more moves no other one; copies go where the first of
their keys goes. Whole values of a label are of very different sizes, so there the hash gives an
order in which those are taken that fit into the fraction.
"""

import collections
from collections.abc import Callable, Iterable, Sequence
import dataclasses
import functools
import hashlib

from data_pipelines.building import duplicates
from data_pipelines.building import workers
from data_pipelines.inputs import listing

_OPENED_AT_A_TIME = 64  # sounds that a worker is given to ask for their labels


@dataclasses.dataclass(frozen=True)
class Holdout:
    """What is held out: a fraction of the sounds, and the label of which whole values go together.

    Attributes:
        fraction: of the sounds, in [0, 1); 0 holds nothing out.
        label: its name, "" for single sounds.
    """

    fraction: float = 0.0
    label: str = ""

    def __post_init__(self):
        if not 0.0 <= self.fraction < 1.0:
            raise ValueError(
                f"--holdout={self.fraction} must be a fraction, at least 0 and below 1"
            )
        if self.label and not self.fraction:
            raise ValueError(f"--holdout_by={self.label} needs a fraction: say --holdout=0.1")

    def settings(self) -> dict:
        """Returns what identifies the split in a manifest."""
        return {"holdout": self.fraction} | ({"holdout_by": self.label} if self.label else {})


def split(
    source: listing.Input,
    found: listing.Listing,
    holdout: Holdout,
    *,
    num_workers: int,
    say: Callable[[str], None],
) -> tuple[dict[str, list[listing.Item]], tuple[str, ...]]:
    """Divides an input.

    Args:
        source: opens sounds whose labels or contents are to be known.
        found: what it lists, at least one sound.
        holdout: what is held out.
        num_workers: processes that open sounds for their labels.
        say: told when many sounds have to be opened first.

    Returns:
        "" or "train" and "test" -> items in their order, neither being empty; remarks about them.

    Raises:
        ValueError: if there are not two sounds, or two values, that can lie on different sides, or
            a sound has no value.
    """
    items = found.items
    if not holdout.fraction:
        return {"": list(items)}, ()
    values = _values(source, found, holdout, num_workers, say) if holdout.label else {}
    copies = duplicates.of_bytes(source, items, say)
    together = found.together.get(holdout.label, ())
    names = _names(items, values, [*copies, *together])
    counted = set(values).union(*together)
    sizes = collections.Counter(
        name for item, name in zip(items, names) if not holdout.label or item.key in counted
    )
    if len(sizes) < 2:
        kind = f"values of {holdout.label!r}" if holdout.label else "sounds"
        num_values = len(set(values.values()))
        has = f"has {num_values} that share sounds" if num_values > 1 else "has one"
        raise ValueError(
            f"--holdout={holdout.fraction} needs two different {kind}, the input of {len(items)} "
            f"{has}: leave out --holdout"
        )
    test = _whole_values(sizes, holdout) if holdout.label else _single_sounds(sizes, holdout)
    parts = {"train": [], "test": []}
    for item, name in zip(items, names):
        parts["test" if name in test else "train"].append(item)
    remarks = []
    if copies:
        num_copies = sum(len(group) - 1 for group in copies)
        remarks.append(
            f"{num_copies} sounds are copies, byte by byte: they stay on the side of the first"
        )
    if holdout.label:
        sides = {part: {values.get(item.key) for item in parts[part]} - {None} for part in parts}
        remarks.append(
            f"{len(sides['train'])} values of {holdout.label!r} lie in train, "
            f"{len(sides['test'])} in test: {len(parts['test'])} of {len(items)} sounds"
        )
    return parts, tuple(remarks)


def _whole_values(sizes: dict[str, int], holdout: Holdout) -> set[str]:
    """The groups that are held out: in the order of a hash those that fit, then one that helps."""
    order = sorted(sizes, key=_hash)
    wanted, test = holdout.fraction * sum(sizes.values()), set()
    for name in order:
        if sizes[name] <= wanted:
            test.add(name)
            wanted -= sizes[name]
    rest = [name for name in order if name not in test]
    nearest = min(rest, key=lambda name: abs(sizes[name] - wanted))
    if not test or (len(rest) > 1 and abs(sizes[nearest] - wanted) < wanted):
        test.add(nearest)
    return test


def _single_sounds(sizes: dict[str, int], holdout: Holdout) -> set[str]:
    """The groups that are held out: those below a threshold, except that neither part is empty."""
    places = {name: _hash(name) for name in sizes}
    lowest, highest = min(places.values()), max(places.values())
    threshold = min(max(int(holdout.fraction * 2**64), lowest + 1), highest)
    return {name for name, place in places.items() if place < threshold}


def _hash(name: str) -> int:
    """A number below 2**64 that is the same on every machine and in every version of Python."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big")


def _names(
    items: Sequence[listing.Item], values: dict[str, str], copies: Iterable[Sequence[str]]
) -> list[str]:
    """Names the group of every item: the first key or value of those that stay together."""
    first = {}

    def find(name: str) -> str:
        root = name
        while first.get(root, root) != root:
            root = first[root]
        while first.get(name, name) != root:
            first[name], name = root, first[name]
        return root

    for group in copies:
        roots = {find(values.get(key, key)) for key in group}
        first.update(dict.fromkeys(roots, min(roots)))
    return [find(values.get(item.key, item.key)) for item in items]


def _values(
    source: listing.Input,
    found: listing.Listing,
    holdout: Holdout,
    num_workers: int,
    say: Callable[[str], None],
) -> dict[str, str]:
    """Key -> value of the label; sounds that cannot be opened, which the build refuses, have none."""
    label, items = holdout.label, found.items
    known = {item.key: item.labels.get(label, "") for item in items}
    if found.labels_inside and not all(known.values()):
        asked = [item for item in items if not known[item.key]]
        say(f"opening {len(asked)} sounds for their label {label!r}")
        starts = range(0, len(asked), _OPENED_AT_A_TIME)
        tasks = [asked[start : start + _OPENED_AT_A_TIME] for start in starts]
        work = functools.partial(_labels, source=source, label=label)
        for _, values in workers.run(
            work, tasks, num_workers=num_workers, on_item=lambda key: None
        ):
            known.update(values)
    missing = [key for key, value in known.items() if value == ""]
    if len(missing) < len(items):
        unsure = set().union(*found.together.get(label, ()))
        missing = [key for key in missing if key not in unsure]
    if missing:
        raise ValueError(
            f"--holdout_by={label} needs a label {label!r} of every sound, {len(missing)} of "
            f"{len(items)} have none, such as {missing[0]}: give it (--label_pattern, --metadata) "
            "or leave them out (--exclude)"
        )
    return {key: value for key, value in known.items() if value}


def _labels(
    items: Sequence[listing.Item],
    *,
    source: listing.Input,
    label: str,
    crashed: dict[str, str],
    report: Callable[[str], None],
) -> dict[str, str | None]:
    """Key -> value of a label, "" where a sound has none, None where it cannot be opened."""
    values = {}
    for item in items:
        report(item.key)
        values[item.key] = None
        if item.key not in crashed:
            try:
                with source.opened(item) as sound:
                    values[item.key] = sound.labels.get(label, "")
            except Exception:  # The build says which and why.
                continue
    return values
