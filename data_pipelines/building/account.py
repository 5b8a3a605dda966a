# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The account of a build: every sound counted where it is read, and added up for the manifest."""

import bisect
import collections
from collections.abc import Iterable, Mapping, Sequence
import hashlib
import itertools

from data_pipelines.building import duplicates
from data_pipelines.building import held_out_values
from data_pipelines.records import sound as sound_records
from data_pipelines.sound import levels
from data_pipelines.sound import refusals

MAX_LABEL_VALUES = 1000  # listed per label; a label with more is an identifier
PERCENTILES = (1, 10, 50, 90, 99)

_TOTALS = ("num_samples", "num_used", "num_texts", "clipped_samples", "lost_transcripts")


class Account:
    """What became of the sounds of one shard."""

    def __init__(self, sample_rate: int, held_out_by: Sequence[str] = ()):
        """An empty account.

        Args:
            sample_rate: of the records, Hz.
            held_out_by: names of labels and texts whose values are noted.
        """
        self._noteworthy = levels.noteworthy(sample_rate)
        self.totals = collections.Counter(dict.fromkeys(_TOTALS, 0))
        self.kept = collections.Counter()  # reason -> sounds of which the front is used
        self._refused, self._digests, self._longest_lost = [], {}, 0
        self._texts = collections.defaultdict(collections.Counter)
        self._label_samples = collections.defaultdict(collections.Counter)
        self._levels = collections.defaultdict(collections.Counter)
        self._noted = collections.Counter()
        self._values = {name: set() for name in held_out_by}

    def refuse(self, key: str, refusal: refusals.Refused) -> None:
        """Counts a sound that is not used."""
        detail = {"path": key, "reason": refusal.reason, "detail": refusal.detail}
        self._refused.append(detail)

    def add_record(self, record: sound_records.Record) -> None:
        """Counts a record that is written."""
        self.totals["num_samples"] += record.num_samples
        self.totals["num_texts"] += len(record.texts)
        for kind in {text.kind for text in record.texts}:
            self._texts[kind]["records"] += 1
        for name, value in record.labels.items():
            samples = self._label_samples[name]
            if value in samples or len(samples) <= MAX_LABEL_VALUES:
                samples[value] += record.num_samples
        for name, value in record.levels.items():
            self._levels[name][value] += 1

    def add_sound(
        self,
        key: str,
        texts: Iterable[sound_records.Text],
        *,
        labels: Mapping[str, str],
        figures: Mapping[str, float],
        digest: str,
        num_samples: int,
        is_cut: bool,
    ) -> None:
        """Counts a sound that is used, after its records.

        Args:
            key: of the sound.
            texts: all that it came with.
            labels: likewise.
            figures: its levels.
            digest: hash of its samples.
            num_samples: of the records together.
            is_cut: whether they are several, so that none has a transcript.
        """
        self.totals["num_used"] += 1
        self._digests[key] = digest
        for name, noted in self._values.items():
            noted.update(map(_digest, held_out_values.of(name, tuple(texts), labels)))
        counts = collections.Counter(text.kind for text in texts)
        for kind, count in counts.items():
            self._texts[kind].update(sounds=1, texts=count)
        if is_cut and counts[sound_records.TRANSCRIPT]:
            self.totals["lost_transcripts"] += 1
            self._longest_lost = max(self._longest_lost, num_samples)
        self._noted.update(reason for reason, _ in self._noteworthy.broken(figures))

    def result(self) -> dict:
        """Returns all that `fields` adds up, ready for JSON; levels as [value, count]."""
        return {
            **self.totals,
            "longest_lost": self._longest_lost,
            "kept": self.kept,
            "refused": self._refused,
            "digests": self._digests,
            "texts": self._texts,
            "label_samples": self._label_samples,
            "levels": {name: list(counts.items()) for name, counts in self._levels.items()},
            "noteworthy": self._noted,
            "values": {name: sorted(noted) for name, noted in self._values.items()},
        }


def fields(results: Iterable[dict], sample_rate: int) -> dict:
    """Returns what manifest.Manifest says of the sounds of a part.

    Args:
        results: of all its shards.
        sample_rate: Hz.
    """
    results = list(results)
    totals = {name: sum(result[name] for result in results) for name in _TOTALS}
    reasons = collections.Counter(one["reason"] for result in results for one in result["refused"])
    noted = _added(result["noteworthy"] for result in results)
    label_samples = _added_within(result["label_samples"] for result in results)
    listed = {name: len(counts) <= MAX_LABEL_VALUES for name, counts in label_samples.items()}
    return dict(
        **totals,
        lost_seconds=max((result["longest_lost"] for result in results), default=0) / sample_rate,
        refused=dict(sorted(reasons.items())),
        kept=_added(result["kept"] for result in results),
        duplicates=duplicates.num_within(results),
        texts=_added_within(result["texts"] for result in results),
        labels={
            name: list(counts) if listed[name] else None for name, counts in label_samples.items()
        },
        hours={
            name: {value: count / sample_rate / 3600 for value, count in counts.items()}
            for name, counts in label_samples.items()
            if listed[name]
        },
        levels=_distributions(result["levels"] for result in results),
        noteworthy={reason: noted[reason] for reason in refusals.REASONS if noted.get(reason)},
    )


def sides(
    results: Mapping[str, Iterable[dict]], held_out_by: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Name -> part -> how many of its values are used there.

    Args:
        results: part -> those of its shards.
        held_out_by: names of labels and texts.

    Raises:
        ValueError: if a value is in two parts.
    """
    found = {}
    for name in held_out_by:
        of_parts = {
            part: set().union(*(result["values"][name] for result in of_part))
            for part, of_part in results.items()
        }
        shared = set.intersection(*of_parts.values())
        if shared:
            raise ValueError(
                f"--holdout_by={name} must keep each value on one side, got {len(shared)} of "
                f"{len(set.union(*of_parts.values()))} on both: the input says other values when it "
                "is listed than when it is read; mend it, delete the folder and build again"
            )
        found[name] = {part: len(values) for part, values in of_parts.items()}
    return found


def _digest(value: str) -> str:
    """Of a value, which may be a long text."""
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total = collections.Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))


def _added_within(groups: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    parts = collections.defaultdict(list)
    for group in groups:
        for name, counts in group.items():
            parts[name].append(counts)
    return {name: _added(counts) for name, counts in sorted(parts.items())}


def _distributions(results: Iterable[Mapping[str, Iterable]]) -> dict[str, dict[str, float]]:
    """Figure -> least, percentiles and largest, each the value of a record."""
    found = collections.defaultdict(collections.Counter)
    for result in results:
        for name, counts in result.items():
            for value, count in counts:
                found[name][value] += count
    return {name: _percentiles(found[name]) for name in levels.FIGURES if name in found}


def _percentiles(counts: Mapping[float, int]) -> dict[str, float]:
    """By nearest rank, without a sum of floats: the same on every machine."""
    values = sorted(counts)
    ranks = list(itertools.accumulate(counts[value] for value in values))
    found = {"min": values[0]}
    for percent in PERCENTILES:
        wanted = -(-percent * ranks[-1] // 100)
        found[f"p{percent}"] = values[bisect.bisect_left(ranks, wanted)]
    return found | {"max": values[-1]}
