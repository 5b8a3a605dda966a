# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Which sounds are held out: by a hash, whole speakers together, copies never on both sides.

A hash of the key decides, so that a sound more moves no other one; copies go where the first of
their keys goes. Whole values of a label are of very different sizes, so there the hash gives an
order in which those are taken that fit into the fraction, of each stratum of the input by itself.

Of several labels the first decides like that, and each value of the others lies where most of its
sounds do. A sound of which they do not lie on one side is left out of both, so that no value of any
of them is on two. Held out by voices and texts, this loses the texts that many say, and few sounds;
to draw the texts likewise would lose every sound of either that is not of both.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import hashlib

from data_pipelines.building import duplicates
from data_pipelines.building import held_out_values
from data_pipelines.inputs import listing


@dataclasses.dataclass(frozen=True)
class Holdout:
    """What is held out: a fraction of the sounds, and the labels of which whole values go together.

    Attributes:
        fraction: of the sounds, in [0, 1); 0 holds nothing out.
        by: names of labels or of held_out_values.TEXTS, with commas between; "" for single sounds.
    """

    fraction: float = 0.0
    by: str = ""

    def __post_init__(self):
        if not 0.0 <= self.fraction < 1.0:
            raise ValueError(
                f"--holdout={self.fraction} must be a fraction, at least 0 and below 1"
            )
        if self.by and not self.fraction:
            raise ValueError(f"--holdout_by={self.by} needs a fraction: say --holdout=0.1")
        if "" in self.labels or len(set(self.labels)) < len(self.labels):
            raise ValueError(
                f"--holdout_by must be a label, or different ones with commas between, got {self.by!r}"
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """The names; the first is that which meets the fraction."""
        return tuple(name.strip() for name in self.by.split(",")) if self.by else ()

    def settings(self) -> dict:
        """Returns what identifies the split in a manifest."""
        by = {"holdout_by": ",".join(self.labels)} if self.by else {}
        return {"holdout": self.fraction} | by


@dataclasses.dataclass(frozen=True)
class Split:
    """An input that is divided.

    Attributes:
        parts: "" or "train" and "test" -> items in their order, none being empty.
        remarks: sentences about them.
        skipped: kind -> count of sounds that are in no part.
    """

    parts: dict[str, list[listing.Item]]
    remarks: tuple[str, ...] = ()
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)


def split(
    source: listing.Input,
    found: listing.Listing,
    holdout: Holdout,
    *,
    num_workers: int,
    say: Callable[[str], None],
) -> Split:
    """Divides an input.

    Args:
        source: opens sounds whose labels or contents are to be known.
        found: what it lists, at least one sound.
        holdout: what is held out.
        num_workers: processes that open sounds for their labels.
        say: told when many sounds have to be opened first.

    Raises:
        ValueError: if there are not two sounds, or two values, that can lie on different sides, or
            a sound has no value, or several labels leave a side without sounds.
    """
    items, labels = found.items, holdout.labels
    if not holdout.fraction:
        return Split({"": list(items)})
    values = held_out_values.find(source, found, labels, num_workers=num_workers, say=say)
    copies = duplicates.of_bytes(source, items, say)
    # Of each label, which sounds stay together; without any, each stays by itself.
    names = [
        _names(items, values.get(label, {}), [*copies, *found.together.get(label, ())])
        for label in labels or ("",)
    ]
    test = _test(found, holdout, values, names[0])
    held = [name in test for name in names[0]]
    agree = list(map(all, zip(*(_agreeing(held, others) for others in names[1:]), strict=True)))
    parts = {"train": [], "test": []}
    for item, is_held, does_agree in zip(items, held, agree or [True] * len(items), strict=True):
        if does_agree:
            parts["test" if is_held else "train"].append(item)
    num_left_out = len(items) - sum(map(len, parts.values()))
    for part, of_part in parts.items():
        if not of_part:
            raise ValueError(
                f"--holdout_by={holdout.by} must leave sounds on both sides, got none for {part} of "
                f"{len(items)}: what is held out by {labels[0]} shares all its values of "
                f"{' or '.join(labels[1:])} with more that is not; name the label of the fewest values "
                "first, or fewer"
            )
    kind = f"sound on two sides by {' and '.join(labels)}"
    return Split(
        parts,
        tuple(_remarks(parts, copies, values, len(items))),
        {kind: num_left_out} if num_left_out else {},
    )


def _test(
    found: listing.Listing,
    holdout: Holdout,
    values: Mapping[str, Mapping[str, Sequence[str]]],
    names: Sequence[str],
) -> set[str]:
    """The groups of the first label, or of single sounds, that are held out."""
    label = holdout.labels[0] if holdout.labels else ""
    of_label = {key: its for key, its in values.get(label, {}).items() if its}
    counted = set(of_label).union(*found.together.get(label, ()))
    is_any = not label or label in held_out_values.TEXTS
    sizes = collections.Counter(
        name for item, name in zip(found.items, names) if is_any or item.key in counted
    )
    if len(sizes) < 2:
        kind = f"values of {label!r}" if label else "sounds"
        num_values = len(set(of_label.values()))
        has = f"has {num_values} that share sounds" if num_values > 1 else "has one"
        raise ValueError(
            f"--holdout={holdout.fraction} needs two different {kind}, the input of "
            f"{len(found.items)} {has}: leave out --holdout"
        )
    if not label:
        return _single_sounds(sizes, holdout)
    strata, seen = collections.defaultdict(dict), set()
    for item, name in zip(found.items, names, strict=True):
        # A value of two strata, such as a voice of two corpora, is of the first.
        if name in sizes and name not in seen:
            seen.add(name)
            strata[found.stratum(item)][name] = sizes[name]
    test = set().union(*(_whole_values(stratum, holdout) for stratum in strata.values()))
    return test or _whole_values(sizes, holdout, at_least_one=True)


def _agreeing(held: Sequence[bool], names: Sequence[str]) -> list[bool]:
    """Whether each sound lies where most of its group do; of as many here as there, those held out."""
    balance = collections.Counter()
    for name, is_held in zip(names, held, strict=True):
        balance[name] += 1 if is_held else -1
    return [(balance[name] >= 0) == is_held for name, is_held in zip(names, held, strict=True)]


def _remarks(
    parts: Mapping[str, Sequence[listing.Item]],
    copies: Sequence[Sequence[str]],
    values: Mapping[str, Mapping[str, Sequence[str]]],
    num_items: int,
) -> Iterator[str]:
    if copies:
        num_copies = sum(len(group) - 1 for group in copies)
        yield f"{num_copies} sounds are copies, byte by byte: they stay on the side of the first"
    for label, its in values.items():
        train, test = (
            len({value for item in parts[part] for value in its[item.key]})
            for part in ("train", "test")
        )
        yield (
            f"{train} values of {label!r} lie in train, {test} in test: {len(parts['test'])} of "
            f"{num_items} sounds"
        )


def _whole_values(
    sizes: dict[str, int], holdout: Holdout, *, at_least_one: bool = False
) -> set[str]:
    """The groups that are held out: in the order of a hash those that fit, then one that helps."""
    order = sorted(sizes, key=_hash)
    wanted, test = holdout.fraction * sum(sizes.values()), set()
    for name in order:
        if sizes[name] <= wanted:
            test.add(name)
            wanted -= sizes[name]
    rest = [name for name in order if name not in test]
    nearest = min(rest, key=lambda name: abs(sizes[name] - wanted))
    if (at_least_one and not test) or (len(rest) > 1 and abs(sizes[nearest] - wanted) < wanted):
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
    items: Sequence[listing.Item],
    values: Mapping[str, Sequence[str]],
    together: Iterable[Sequence[str]],
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

    of_keys = {item.key: values.get(item.key) or (item.key,) for item in items}
    several = (names for names in of_keys.values() if len(names) > 1)
    for group in (*([of_keys[key][0] for key in keys] for keys in together), *several):
        roots = {find(name) for name in group}
        first.update(dict.fromkeys(roots, min(roots)))
    return [find(names[0]) for names in of_keys.values()]
