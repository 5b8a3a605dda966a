# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Rows of tables and the sounds that they are of: every row and every sound is accounted for."""

import collections
from collections.abc import Sequence
import dataclasses
import os

from data_pipelines.inputs import listing
from data_pipelines.inputs import matching
from data_pipelines.inputs import tables
from data_pipelines.records import sound as sound_records

_MATCHED, _REPEATED, _BLANK = "matched", "repeated", "blank"
_WITHOUT, _LEFT_OUT = "without sound", "of sounds left out"


@dataclasses.dataclass(frozen=True)
class Group:
    """The tables that one flag names, as its value has it."""

    name: str
    tables: Sequence[tables.Table]


@dataclasses.dataclass
class _Known:
    """What rows say of one sound, each thing with the row that said it first."""

    texts: dict[sound_records.Text, tables.Row] = dataclasses.field(default_factory=dict)
    labels: dict[str, tuple[str, tables.Row]] = dataclasses.field(default_factory=dict)
    rows: set = dataclasses.field(default_factory=set)


class Joined:
    """What tables say of the sounds of a folder.

    Attributes:
        rows: what became of the rows -> count.
        remarks: a sentence for each group.
    """

    def __init__(self, sounds: matching.Sounds, keys: Sequence[str]):
        """Nothing is known yet of the items of these keys."""
        self._sounds, self._keys = sounds, keys
        self._known: dict[str, _Known] = {}
        self.rows, self.remarks = collections.Counter(), []

    def texts(self, key: str) -> tuple[sound_records.Text, ...]:
        """Texts of an item, in the order of the rows."""
        return tuple(self._known[key].texts) if key in self._known else ()

    def labels(self, key: str) -> dict[str, str]:
        """Labels of an item."""
        found = self._known[key].labels if key in self._known else {}
        return {name: value for name, (value, _) in found.items()}

    def where(self, key: str, label: str) -> str:
        """The row that gave a label."""
        return self._known[key].labels[label][1].where

    def add(self, group: Group) -> None:
        """Finds the sounds of a group's rows and takes in what they say.

        Raises:
            ValueError: if a row's name is that of several sounds, rows contradict each other, or
                none is of a sound.
        """
        rows = [row for table in group.tables for row in table.rows]
        matches = _trusted([(row, self._find(row)) for row in rows])
        counts = collections.Counter({_BLANK: sum(table.num_blank for table in group.tables)})
        found, lost = {}, []
        for row, match in matches:
            if match and match.key:
                counts[self._take(match.key, row)] += 1
                found[match.key] = (row, match)
            else:
                counts[_LEFT_OUT if match else _WITHOUT] += 1
                lost += [] if match else [row.file]
        if not found and not counts[_LEFT_OUT]:
            example = f"such as {lost[0]!r}" if lost else "which is empty"
            sounds = f"such as {self._keys[0]!r}" if self._keys else "of which there is none"
            raise ValueError(
                f"{group.name} must name sounds of {self._sounds.root}, {sounds}, got {len(rows)} "
                f"rows that name none, {example}: check --input, name the column of the sound by "
                "--metadata_columns, or what of its name tables know by --name_pattern"
            )
        self._say(group, counts, matches, lost, len(found))
        self.rows += counts
        self.rows[listing.NO_ROW] = len(self._keys) - len(self._known)

    def summary(self) -> dict[str, int]:
        """What became of all rows -> count, without what did not happen."""
        order = (_MATCHED, _REPEATED, _WITHOUT, _LEFT_OUT, _BLANK, listing.NO_ROW)
        return {name: self.rows[name] for name in order if self.rows[name]}

    def _find(self, row: tables.Row) -> matching.Match | None:
        try:
            return self._sounds.find(row.file, os.path.dirname(row.path) or ".")
        except matching.Ambiguous as candidates:
            raise ValueError(
                f"{row.where}, must name one sound, got {row.file!r}, which may be {candidates}: "
                f"give its path below {self._sounds.root}"
            ) from None

    def _take(self, key: str, row: tables.Row) -> str:
        """Takes in what a row says of a sound; returns what became of the row."""
        known = self._known.setdefault(key, _Known())
        content = (row.texts, tuple(sorted(row.labels.items())))
        if content in known.rows:
            return _REPEATED
        known.rows.add(content)
        for name, value in row.labels.items():
            had, other = known.labels.setdefault(name, (value, row))
            if had != value:
                what = f"{name} is {had!r} and {value!r}"
                raise ValueError(_contradiction(key, other, row, what))
        for text in row.texts:
            transcripts = [had for had in known.texts if had.kind == sound_records.TRANSCRIPT]
            if text.kind == sound_records.TRANSCRIPT and transcripts and text not in known.texts:
                what = f"its transcript is {transcripts[0].content!r} and {text.content!r}"
                raise ValueError(_contradiction(key, known.texts[transcripts[0]], row, what))
            known.texts.setdefault(text, row)
        return _MATCHED

    def _say(
        self,
        group: Group,
        counts: collections.Counter,
        matches: Sequence[tuple[tables.Row, matching.Match | None]],
        lost: Sequence[str],
        num_found: int,
    ) -> None:
        num_used = counts[_MATCHED] + counts[_REPEATED]
        of = f" ({len(group.tables)} files)" if len(group.tables) > 1 else ""
        share = f"{100 * num_used // len(matches)} %"
        line = f"{group.name}{of}: {num_used} of {len(matches)} rows matched ({share})"
        line += f", {counts[_REPEATED]} of them repeated" if counts[_REPEATED] else ""
        line += f", {len(lost)} without sound such as {lost[0]}" if lost else ""
        line += f", {counts[_LEFT_OUT]} of sounds left out" if counts[_LEFT_OUT] else ""
        line += f", {counts[_BLANK]} blank" if counts[_BLANK] else ""
        line += f"; {len(self._keys) - num_found} of {len(self._keys)} sounds without a row"
        rows = [row for row, match in matches if match and match.key]
        if not any(row.texts for row in rows):
            names = sorted({name for row in rows for name in row.labels})
            line += f"; no texts, but labels: {', '.join(names) or 'none'}"
        for what, is_so in _UNLIKE.items():
            unlike = [
                (row, match) for row, match in matches if match and match.key and is_so(match)
            ]
            if unlike:
                row, match = unlike[0]
                line += f"; {len(unlike)} by {what}, such as {row.file!r} for {match.key!r}"
        self.remarks.append(line)


_UNLIKE = {
    "the end of the path": lambda match: match.how == matching.BY_END,
    "a folder beside": lambda match: match.how == matching.BY_SIDE,
    "the name alone": lambda match: match.how == matching.BY_NAME,
    "another Unicode form": lambda match: match.differs == "Unicode form",
    "another case": lambda match: match.differs == "case",
}


def _trusted(
    matches: Sequence[tuple[tables.Row, matching.Match | None]],
) -> list[tuple[tables.Row, matching.Match | None]]:
    """The matches without those that others of the same tables make doubtful."""
    by_name = [(row, match) for row, match in matches if match and match.how == matching.BY_NAME]
    # Tables that name one sound by its path know the folders; otherwise one folder may have another
    # name on either side, or all sounds lie in one, but not one speaker's be another's.
    sides = zip(*(match.folders for _, match in by_name))
    is_renamed = min((len(set(side)) for side in sides), default=0) == 1
    is_renamed &= not any(match and match.how == matching.BY_PATH for _, match in matches)
    # Each speaker's folder has one of texts beside one of sounds; not one speaker's beside another's.
    by_side = [match for _, match in matches if match and match.how == matching.BY_SIDE]
    num_folders = len({os.path.dirname(match.key) for match in by_side})
    is_beside = len({match.folders for match in by_side}) == 1 and num_folders > 1
    best, files = {}, collections.defaultdict(set)
    for row, match in matches:
        if match and match.key:
            rank = (match.how, -match.length)
            best[match.key] = min(best.get(match.key, rank), rank)
            files[match.key].add(matching.normal(row.file))
    trusted = []
    for row, match in matches:
        if match and match.how == matching.BY_NAME:
            match = match if is_renamed and len(files[match.key]) == 1 else None
        elif match and match.how == matching.BY_SIDE:
            match = match if is_beside and len(files[match.key]) == 1 else None
        elif match and match.key and match.how == matching.BY_END:
            # The row whose path has more in common with the sound's is of it, and this is not.
            match = match if (match.how, -match.length) == best[match.key] else None
        trusted.append((row, match))
    return trusted


def _contradiction(key: str, first: tables.Row, second: tables.Row, what: str) -> str:
    places = f"{first.where}, and {second.where}, must say the same of {key}"
    return f"{places}, got two: {what}; leave one out, or a column, as _ in --metadata_columns"
