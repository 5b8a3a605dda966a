# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What shards are built from: each input lists its sounds and opens one by its key, in any process.

An input is small and picklable; workers open sounds themselves. Keys are stable: they name the same
sound on every rebuild, and the held-out part is chosen by them.
"""

import collections
from collections.abc import Callable, Iterator, Sequence
import contextlib
import csv
import dataclasses
import fnmatch
import functools
import math
import os
import pathlib
import re
from typing import Protocol

from data_pipelines.records import manifest
from data_pipelines.sound import audio_files

_CLIPS_MEASURED = 16  # of each embedded corpus, to learn how long its clips are


@dataclasses.dataclass(frozen=True)
class Item:
    """One sound to read: its key, its size in bytes, perhaps guessed, its place in the input."""

    key: str
    num_bytes: int
    index: int


@dataclasses.dataclass(frozen=True)
class Listing:
    """All that an input offers: sounds in a fixed order, kind -> count of what was passed over."""

    items: tuple[Item, ...]
    skipped: dict[str, int]


class Input(Protocol):
    """What a builder of shards reads."""

    def settings(self) -> dict:
        """Returns what identifies the input in a manifest, ready for JSON."""

    def listing(self) -> Listing:
        """Lists all sounds; the same list in every process and on every day."""

    def opened(self, item: Item) -> contextlib.AbstractContextManager[audio_files.Sound]:
        """Opens one sound; raises audio_files.Refused if it cannot be."""


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder of sound files, or one file.

    Attributes:
        path: of the folder, searched with everything below it.
        include: globs on the relative path or the file name; empty takes every known ending.
        exclude: globs of what is left out.
        label_pattern: regular expression whose named groups become labels; searched in the file
            name, or in the relative path if it contains a slash.
        metadata: path of a table with a line per file, "" for none; see `_read_metadata`.
        metadata_columns: names of the table's columns, empty if its first line gives them.
    """

    path: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    label_pattern: str = ""
    metadata: str = ""
    metadata_columns: tuple[str, ...] = ()

    def __post_init__(self):
        if not os.path.exists(self.path):
            raise ValueError(f"--input={self.path} does not exist: name a folder of sound files")
        try:
            pattern = re.compile(self.label_pattern)
        except re.error as error:
            raise ValueError(
                f"--label_pattern={self.label_pattern!r} is not a regular expression: {error}"
            ) from None
        if self.label_pattern and not pattern.groupindex:
            raise ValueError(
                f"--label_pattern={self.label_pattern!r} has no named group: write "
                "(?P<speaker>...) for a label"
            )

    def settings(self) -> dict:
        """Returns what identifies this input in a manifest."""
        fields = dataclasses.asdict(self)
        fields["metadata_sha256"] = manifest.sha256(self.metadata) if self.metadata else ""
        return {"source": "folder", **fields}

    def listing(self) -> Listing:
        """Walks the folder; hidden names and other files than sound are passed over and counted."""
        items, skipped = [], collections.Counter()
        for path, key in _walk(self.path):
            ending = os.path.splitext(key)[1].lower()
            if _matches(key, self.exclude):
                skipped["excluded"] += 1
            elif self.include and not _matches(key, self.include):
                skipped["not included"] += 1
            elif not self.include and ending not in audio_files.READABLE | audio_files.UNREADABLE:
                skipped[ending or "no ending"] += 1
            else:
                items.append((key, os.path.getsize(path)))
        items = tuple(Item(key, size, index) for index, (key, size) in enumerate(sorted(items)))
        return Listing(items, dict(sorted(skipped.items())))

    @contextlib.contextmanager
    def opened(self, item: Item) -> Iterator[audio_files.Sound]:
        """Opens the file of `item`, with the labels of its name and its line of the metadata."""
        path = os.path.join(self.path, item.key) if os.path.isdir(self.path) else self.path
        labels = dict(self._metadata_of(item.key))
        text = labels.pop("text", "")
        if self.label_pattern:
            subject = item.key if "/" in self.label_pattern else os.path.basename(item.key)
            match = re.search(self.label_pattern, subject)
            if match:
                labels |= {name: value for name, value in match.groupdict().items() if value}
        task = "speech" if text else ""
        with audio_files.opened(path) as sound:
            yield dataclasses.replace(sound, text=text, task=task, labels=labels)

    def _metadata_of(self, key: str) -> dict[str, str]:
        if not self.metadata:
            return {}
        table = _read_metadata(self.metadata, self.metadata_columns)
        stem = os.path.splitext(key)[0]
        names = (key, stem, os.path.basename(key), os.path.basename(stem))
        return next((table[name] for name in names if name in table), {})


@dataclasses.dataclass(frozen=True)
class Embedded:
    """Clips that are synthesised on the spot; see `corpora`.

    Attributes:
        corpora: names out of corpora.CORPORA.
        num_clips: of each corpus, in the order of `corpora`.
        seed: other seeds, other clips.
        sample_rate: Hz at which they are made.
    """

    corpora: tuple[str, ...]
    num_clips: tuple[int, ...]
    seed: int
    sample_rate: int

    def settings(self) -> dict:
        """Returns what identifies this input in a manifest."""
        return {"source": "embedded", **dataclasses.asdict(self)}

    def listing(self) -> Listing:
        """Lists the clips of one corpus after the other."""
        num_bytes = 8 * self.sample_rate  # four seconds, about the mean
        return Listing(
            tuple(
                Item(f"{name}-{self.seed}-{index:07d}", num_bytes, index)
                for name, count in zip(self.corpora, self.num_clips)
                for index in range(count)
            ),
            {},
        )

    @contextlib.contextmanager
    def opened(self, item: Item) -> Iterator[audio_files.Sound]:
        """Makes one clip."""
        # The synthesisers take a moment to import, and a build from a folder needs none of them.
        from data_pipelines.embedded import corpora

        name = item.key.partition("-")[0]
        clip = corpora.generate(name, item.index, seed=self.seed, sample_rate=self.sample_rate)
        yield audio_files.Sound(
            sample_rate=self.sample_rate,
            num_frames=len(clip.waveform),
            blocks=iter([clip.waveform[:, None]]),
            text=clip.text,
            task=clip.task,
            labels={"corpus": name, **clip.labels},
        )


def embedded(
    names: Sequence[str],
    *,
    num_clips: int,
    hours: float,
    seed: int,
    sample_rate: int,
    say: Callable[[str], None],
) -> Embedded:
    """Chooses embedded corpora: those named, or all that this machine can make.

    Args:
        names: out of corpora.CORPORA; empty for all, those that cannot be made being said and left
            out.
        num_clips: of each corpus; 0 to go by `hours`.
        hours: of sound in all, spread evenly over the corpora and met roughly; 0 to go by
            `num_clips`.
        seed: other seeds, other clips.
        sample_rate: Hz.
        say: told about corpora that cannot be made.

    Raises:
        ValueError: for an unknown name, or one that cannot be made here, or not exactly one size.
    """
    from data_pipelines.embedded import corpora

    if (num_clips > 0) == (hours > 0):
        raise ValueError(
            f"embedded corpora need either --num_clips or --hours, got {num_clips} and {hours:g}"
        )
    missing = {name: corpora.available(name) for name in names or corpora.CORPORA}
    missing = {name: reason for name, reason in missing.items() if reason}
    if names and missing:
        raise ValueError(
            "; ".join(f"corpus {name} cannot be made: {reason}" for name, reason in missing.items())
        )
    for name, reason in missing.items():
        say(f"without the {name} corpus: {reason}")
    chosen = tuple(name for name in names or corpora.CORPORA if name not in missing)
    if not chosen:
        raise ValueError("no embedded corpus can be made here: " + "; ".join(missing.values()))
    counts = [num_clips] * len(chosen)
    if hours:
        for place, name in enumerate(chosen):
            clips = [
                corpora.generate(name, index, seed=seed, sample_rate=sample_rate)
                for index in range(_CLIPS_MEASURED)
            ]
            mean_seconds = sum(len(clip.waveform) for clip in clips) / len(clips) / sample_rate
            counts[place] = math.ceil(hours * 3600 / len(chosen) / mean_seconds)
    return Embedded(chosen, tuple(counts), seed, sample_rate)


def _walk(root: str) -> Iterator[tuple[str, str]]:
    """Yields (path, key) of every regular, visible file; follows links to folders, once each."""
    if os.path.isfile(root):
        yield root, os.path.basename(root)
        return
    visited = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        if os.path.realpath(folder) in visited:
            subfolders.clear()
            continue
        visited.add(os.path.realpath(folder))
        if folder != root and manifest.is_output([*subfolders, *names]):
            # Shards may lie below the sound they were built from; a rerun must list the same files.
            subfolders.clear()
            continue
        # Notebook checkpoints and the shadows that macOS leaves in archives look like sound.
        hidden = (".", "__MACOSX")
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(hidden))
        for name in names:
            path = os.path.join(folder, name)
            if not name.startswith(".") and os.path.isfile(path):
                yield path, pathlib.PurePath(os.path.relpath(path, root)).as_posix()


def _matches(key: str, globs: tuple[str, ...]) -> bool:
    names = (key, os.path.basename(key))
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs for name in names)


@functools.lru_cache(maxsize=1)
def _read_metadata(path: str, columns: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Reads a table: the file (path, name or name without ending) first, "text", others are labels.

    The delimiter is a vertical bar or a tab if the first line has one, otherwise a comma. A column
    named "_" or "" is left out.
    """
    with open(path, encoding="utf-8-sig", newline="") as file:
        first_line = file.readline()
        file.seek(0)
        delimiter = next((mark for mark in "|\t" if mark in first_line), ",")
        # Bar and tab tables carry quotation marks of the text itself.
        quoting = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
        rows = csv.reader(file, delimiter=delimiter, quoting=quoting)
        names = list(columns) or next(rows, [])
        if len(names) < 2:
            raise ValueError(
                f"--metadata={path} needs --metadata_columns or a first line that names them"
            )
        table = {}
        for row in rows:
            if row:
                pairs = [pair for pair in zip(names[1:], row[1:]) if pair[1]]
                table[row[0]] = {name: value for name, value in pairs if name not in ("", "_")}
    return table
