# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Which record comes when: a weighted, shuffled, endless order over several sets, as arithmetic.

Nothing is stored and nothing is carried along: the record at any position is computed from the
position.
"""

from collections.abc import Iterator
import fractions
import itertools
import math
import os

import numpy as np

from data_pipelines.reading import remote
from data_pipelines.reading import staged

_MAX_PERIOD = 2**16  # positions after which the interleaving of the sets repeats

_ROUNDS = 3  # of the Feistel network; two already pass for random


def parse(text: str) -> tuple[tuple[str, float], ...]:
    """Reads "DIR" or "DIR1=0.7,DIR2=0.3" as ((name, weight), ...), for sources.open_source.

    What exists as a whole is one folder, whatever its name looks like. In a list, "=" and ","
    belong to the name of a folder where only so all of the folders exist.

    Raises:
        ValueError: if it names no folder, or several without a weight above zero each, or can be
            read in two ways.
    """
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    if not entries:
        raise ValueError(f"a mixture names at least one shard folder, got {text!r}")
    if len(entries) == 1 and _split(entries[0])[1] is None:
        return ((entries[0], 1.0),)
    if _exists(text.strip()):
        return ((text.strip(), 1.0),)
    readings = list(itertools.islice(_readings(text.rstrip(", ").split(",")), 2))
    if len(readings) > 1:
        ways = " or ".join(str(dict(reading)) for reading in readings)
        raise ValueError(f"a mixture must have one meaning, got {text!r}, {ways}: rename a folder")
    for entry in filter(_exists, entries):
        folder, weight = _split(entry)
        if weight is not None or not readings:
            raise ValueError(
                f"every folder of several needs a weight, got the folder {entry!r} without one in "
                f"{text!r}: write {entry}=0.7"
                + (f", or {folder}/={weight:g} for {folder}" if weight is not None else "")
            )
    return readings[0] if readings else tuple(_weighted(entry, text) for entry in entries)


def folders(text: str) -> list[str]:
    """Reads "DIR" or "DIR,DIR", sets without weights; what exists as a whole is one folder."""
    return [text] if _exists(text) else [name.strip() for name in text.split(",") if name.strip()]


def _exists(name: str) -> bool:
    if not remote.is_remote(name):
        return os.path.exists(name)
    try:
        return staged.is_set(name)
    except (
        ImportError
    ):  # As on a machine that launches for others: who opens it says what it needs.
        return False


def _split(entry: str) -> tuple[str, float | None]:
    """The folder and the number of DIR=0.7; None where no number follows."""
    folder, equals, weight = entry.strip().rpartition("=")
    try:
        return (folder, float(weight)) if equals else (entry.strip(), None)
    except ValueError:
        return entry.strip(), None


def _readings(parts: list[str]) -> Iterator[tuple[tuple[str, float], ...]]:
    """The ways in which parts, with commas between, are folders that exist, a weight for each."""
    if not parts:
        yield ()
    for end in range(1, len(parts) + 1):
        folder, weight = _split(",".join(parts[:end]))
        if weight is not None and 0.0 < weight < math.inf and _exists(folder):
            yield from (((folder, weight), *rest) for rest in _readings(parts[end:]))


def _weighted(entry: str, text: str) -> tuple[str, float]:
    folder, weight = _split(entry)
    if not folder or weight is None or not 0.0 < weight < math.inf:
        raise ValueError(
            f"several shard folders need a weight above 0 each, DIR=0.7, got {entry!r} in {text!r}"
        )
    return folder, weight


class Mixture:
    """An endless order over the records of several sets.

    Position p of the order belongs to one set and is that set's j-th draw. The sets are interleaved
    as evenly as their weights allow, exactly in proportion over every period. A set's draws go
    through all of its records once, then again in another order: j // length is the epoch.
    """

    def __init__(self, lengths: list[int], weights: list[float], *, seed: int, shuffle: bool):
        """Prepares the order.

        Args:
            lengths: records of each set, at least one.
            weights: of each set, above zero; only their ratios matter.
            seed: of the shuffles.
            shuffle: False goes through each set in its own order, every time.
        """
        self._lengths = np.asarray(lengths, np.int64)
        self._seed, self._shuffle = seed, shuffle
        counts = _whole_ratios(weights)
        self._set_at, self._rank_at = _interleave(counts)
        self._counts = np.asarray(counts, np.int64)

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the set and the record in it at each position.

        Args:
            positions: [n], int64, from 0 on.

        Returns:
            [n] int64 index of the set, [n] int64 index of the record.
        """
        period, phase = np.divmod(positions, len(self._set_at))
        set_index = self._set_at[phase]
        draw = period * self._counts[set_index] + self._rank_at[phase]
        epoch, place = np.divmod(draw, self._lengths[set_index])
        if not self._shuffle:
            return set_index, place
        record = np.empty_like(place)
        for index in np.unique(set_index):
            chosen = set_index == index
            record[chosen] = _permute(
                place[chosen], int(self._lengths[index]), epoch[chosen], self._seed, int(index)
            )
        return set_index, record


def _whole_ratios(weights: list[float]) -> list[int]:
    """The smallest whole numbers in the ratio of the weights; rounded if they are unwieldy."""
    exact = [fractions.Fraction(str(weight)) for weight in weights]
    total = sum(exact)
    shares = [weight / total for weight in exact]
    period = math.lcm(*(share.denominator for share in shares))
    if period > _MAX_PERIOD:
        counts = [max(round(share * _MAX_PERIOD), 1) for share in shares]
    else:
        counts = [int(share * period) for share in shares]
    divisor = math.gcd(*counts)
    return [count // divisor for count in counts]


def _interleave(counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Spreads counts[k] turns of set k evenly over a period: whose turn, and which of its turns."""
    times = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    sets = np.concatenate([np.full(count, index) for index, count in enumerate(counts)])
    ranks = np.concatenate([np.arange(count) for count in counts])
    order = np.argsort(times, kind="stable")
    return sets[order].astype(np.int64), ranks[order].astype(np.int64)


def _permute(
    place: np.ndarray, length: int, epoch: np.ndarray, seed: int, stream: int
) -> np.ndarray:
    """Sends each place in [0, length) to another, one to one for every (epoch, seed, stream).

    A Feistel network on the digits of the place in a mixed base close to its square root. What
    falls outside [0, length) goes through it again until it falls inside, which keeps the map one
    to one.
    """
    high_base = np.uint64(math.isqrt(length - 1) + 1)
    low_base = np.uint64(-(-length // int(high_base)))
    keys = _mix(epoch.astype(np.uint64), seed, stream)
    result = place.astype(np.uint64)
    todo = np.arange(len(result))
    while todo.size:
        high, low = np.divmod(result[todo], low_base)
        for turn in range(_ROUNDS):
            turn_keys = _scramble(keys[todo] + np.uint64(turn))
            high = (high + _scramble(low ^ turn_keys)) % high_base
            low = (low + _scramble(high ^ ~turn_keys)) % low_base
        result[todo] = high * low_base + low
        todo = todo[result[todo] >= length]
    return result.astype(np.int64)


def _mix(epoch: np.ndarray, *numbers: int) -> np.ndarray:
    state = _scramble(epoch)
    for number in numbers:
        state = _scramble(state + np.uint64(number % 2**64))
    return state


def _scramble(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014), on uint64 with wrap-around."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
