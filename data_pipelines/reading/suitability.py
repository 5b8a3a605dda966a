# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Whether sets can teach what is asked of them: how much is lost before a model sees it.

Estimated before anything runs, from evenly spaced records and from what manifests say. Records that
never had a text lose nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import math
from typing import NamedTuple

import numpy as np

from data_pipelines.reading import arrangement
from data_pipelines.reading import examples
from data_pipelines.reading import sources
from data_pipelines.reading import tasks
from data_pipelines.records import sound as sound_records

_MAX_RECORDS = 1000  # per source, that are looked at
_NUM_ARRANGED = 1024  # examples, at least, by which it is tried how rows fill
_TURN = (math.sqrt(5.0) - 1.0) / 2.0  # its multiples, modulo 1, are spread evenly
_LANES = 128  # of a TPU: long rows are multiples of them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bound:
    """How much may be lost, and what those keys are called that decide it.

    Attributes:
        max_lost: share of transcripts cut, of texts too long, of sound and of texts without room in
            a row, each.
        names: "max_lost", "crop_length", in frames of rows that are shared, "max_tokens",
            "examples" and what rows have room for -> how a user calls them.
    """

    max_lost: float = 0.05
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def name(self, key: str) -> str:
        return self.names.get(key, key)

    def is_beyond(self, lost: float, kept: float) -> bool:
        return lost > self.max_lost * (lost + kept)


class _Seen(NamedTuple):
    """What is remembered of a record, which counts for `weight` of the mixture."""

    weight: float
    key: str
    num_samples: int
    is_whole: bool  # of its source
    fits: bool
    transcript: bool  # whether there is one, heard or not
    num_tokens: int  # of its text, too long or not; 0 where there is none
    lost: str
    needs: Mapping[str, int]


def check(
    making: examples.Making,
    opened: Sequence[sources.Source],
    weights: Sequence[float],
    *,
    batch_size: int,
    rows_decide: bool,
    bound: Bound,
) -> None:
    """Refuses sets of which more than a bound is lost.

    Args:
        making: how records become examples.
        opened: the sources.
        weights: of them in the mixture.
        batch_size: over all hosts.
        rows_decide: whether what is heard depends on the rows; see arrangement.Rows.decide.
        bound: of what may be lost.

    Raises:
        ValueError: naming the task that nothing answers; or the figure, what decides it, and what to
            change.
    """
    text = making.text
    manifests = [getattr(source, "manifest", None) for source in opened]
    if text is not None and None not in manifests:  # a TFDS data set does not say what it holds
        text.check(manifests)
    if text is None and not rows_decide:
        return
    seen = [one for source, weight in zip(opened, weights) for one in _look(making, source, weight)]
    where = ", ".join(source.name for source in opened)
    if text is not None:
        _check_cuts(making, opened, weights, seen, bound, where)
        _check_lengths(text, seen, bound, where)
    if seen and rows_decide:
        _check_rows(making.rows, seen, batch_size, bound, where)


def _look(making: examples.Making, source: sources.Source, weight: float) -> Iterator[_Seen]:
    """What is remembered of some evenly spaced records."""
    indices = sources.spaced(len(source), _MAX_RECORDS)
    for number, index in enumerate(indices):
        try:
            record = source[index]
        except sources.Unreadable:
            continue  # Counted when its turn comes.
        example = making.example(source, record, number * _TURN % 1.0)
        yield _Seen(
            weight=weight / len(indices),
            key=record.key,
            num_samples=record.num_samples,
            is_whole=source.is_whole(record),
            fits=making.layout.fits(record),
            transcript=any(text.kind == sound_records.TRANSCRIPT for text in record.texts),
            num_tokens=example.text.num_tokens,
            lost=example.text.lost,
            needs=example.needs,
        )


def _check_cuts(making, opened, weights, seen, bound, where) -> None:
    """Refuses where transcripts are lost with a part of their sound, in shards or in rows."""
    if not making.text.needs_whole:
        return
    at_crop = [one for one in seen if one.transcript and one.is_whole and not one.fits]
    kept = sum(one.weight for one in seen if one.transcript and one.is_whole and one.fits)
    lost_here = sum(one.weight for one in at_crop)
    in_shards, longest = 0.0, 0.0
    for source, weight in zip(opened, weights):
        if manifest := getattr(source, "manifest", None):
            in_shards += weight * manifest.lost_transcripts / len(source)
            longest = max(longest, manifest.lost_seconds)
    if not bound.is_beyond(in_shards + lost_here, kept):
        return
    remedies = []
    if in_shards:
        remedies.append(
            f"build the shards with --segment_seconds={math.ceil(longest)}, as sounds of up to "
            f"{longest:.1f} s were cut there"
        )
    if at_crop:
        enough = max(one.num_samples for one in at_crop)
        frames = -(-enough // making.rows.samples_per_frame)
        remedies.append(
            f"set {bound.name('crop_length')}={frames}, as longer records are cut there"
        )
    share = (in_shards + lost_here) / (in_shards + lost_here + kept)
    raise ValueError(
        f"{share:.0%} of the transcripts of {where} are lost with a part of their sound, more than "
        f"{bound.name('max_lost')}={bound.max_lost:g}: {'; and '.join(remedies)}"
    )


def _check_lengths(text, seen, bound, where) -> None:
    """Refuses where texts have more tokens than there is room for."""
    told = [one for one in seen if one.num_tokens and one.lost != tasks.CUT]
    too_long = [one for one in told if one.lost == tasks.TOO_LONG]
    lost, whole = (sum(one.weight for one in some) for some in (too_long, told))
    if not bound.is_beyond(lost, whole - lost):
        return
    longest = max(too_long, key=lambda one: one.num_tokens)
    raise ValueError(
        f"{lost / whole:.0%} of the texts of {where} have more than {bound.name('max_tokens')}="
        f"{text.max_tokens} tokens with their instruction and are left out, more than "
        f"{bound.name('max_lost')}={bound.max_lost:g}: raise the former; the longest, of record "
        f"{longest.key!r}, has {longest.num_tokens}"
    )


def _check_rows(rows, seen, batch_size, bound, where) -> None:
    """Refuses where rows that are shared have no room for what is drawn."""
    weights = np.array([one.weight for one in seen])
    group = rows.group_size(batch_size)
    count = -(-_NUM_ARRANGED // group) * group
    drawn = np.random.Generator(np.random.Philox(0)).choice(
        len(seen), count, p=weights / weights.sum()
    )
    drawn = [seen[index] for index in drawn]
    lost = _lost(rows, drawn, group)
    if lost <= bound.max_lost:
        return
    remedies = [
        *_more_room(rows, drawn, group, bound),
        *_fewer_examples(rows, drawn, batch_size, bound),
    ]
    if 1 < rows.examples == group < batch_size:
        remedies.append(f"a batch whose number of rows, now {batch_size // group}, has divisors")
    room = ", ".join(f"{bound.name(name)}={rows.room[name]}" for name in rows.room)
    raise ValueError(
        f"rows have no room for {lost:.0%} of what is in {where}, more than "
        f"{bound.name('max_lost')}={bound.max_lost:g}: with {bound.name('examples')}="
        f"{rows.examples} and {room} whole examples are left out; set {' or '.join(remedies)}"
    )


def _lost(rows: arrangement.Rows, drawn: Sequence[_Seen], group: int) -> float:
    """The share of sound, or of texts if that is more, that finds no room."""
    seconds, texts = np.zeros(2), np.zeros(2)
    for start in range(0, len(drawn) - group + 1, group):
        some = drawn[start : start + group]
        for one, place in zip(some, rows.arrange([one.needs for one in some])):
            amounts = np.array([place is None, 1.0])
            seconds += amounts * one.num_samples
            texts += amounts * bool(one.num_tokens and not one.lost)
    return max(float(lost / max(whole, 1.0)) for lost, whole in (seconds, texts))


def _more_room(rows, drawn, group, bound) -> Iterator[str]:
    """Room that would do: each resource no larger than it must be."""
    most = {name: rows.examples * max(one.needs[name] for one in drawn) for name in rows.room}
    room = dict(rows.room)
    while _lost(dataclasses.replace(rows, room=room), drawn, group) > bound.max_lost:
        larger = {name: min(_rounded(room[name] * 1.1 + 1), _rounded(most[name])) for name in room}
        larger = {name: max(larger[name], room[name]) for name in room}
        if larger == room:
            return
        room = larger
    for name in rows.room:
        as_before = room | {name: rows.room[name]}
        if _lost(dataclasses.replace(rows, room=as_before), drawn, group) <= bound.max_lost:
            room = as_before
    changed = [f"{bound.name(name)}={room[name]}" for name in room if room[name] != rows.room[name]]
    yield " and ".join(changed)


def _rounded(room: float) -> int:
    step = _LANES if room > _LANES else 1
    return math.ceil(room / step) * step


def _fewer_examples(rows, drawn, batch_size, bound) -> Iterator[str]:
    """How many would find room in rows as they are."""
    for fewer in range(rows.examples - 1, 0, -1):
        changed = dataclasses.replace(rows, examples=fewer)
        if batch_size % fewer == 0 and (
            _lost(changed, drawn, changed.group_size(batch_size)) <= bound.max_lost
        ):
            yield f"{bound.name('examples')}={fewer}"
            return
