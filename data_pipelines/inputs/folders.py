# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A folder of sound files as an input, with the labels and texts that come with it."""

import collections
from collections.abc import Iterator
import contextlib
import csv
import dataclasses
import fnmatch
import functools
import os
import pathlib
import re
from typing import BinaryIO

from data_pipelines.inputs import listing
from data_pipelines.records import manifest
from data_pipelines.records import sound as sound_records
from data_pipelines.sound import audio_files


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

    def listed(self) -> listing.Listing:
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
        items = tuple(
            listing.Item(key, size, index) for index, (key, size) in enumerate(sorted(items))
        )
        return listing.Listing(items, dict(sorted(skipped.items())), labels_inside=True)

    @contextlib.contextmanager
    def opened(self, item: listing.Item) -> Iterator[audio_files.Sound]:
        """Opens the file of `item`, with the labels of its name and its line of the metadata."""
        labels = dict(item.labels) | self._metadata_of(item.key)
        text = labels.pop("text", "")
        if self.label_pattern:
            subject = item.key if "/" in self.label_pattern else os.path.basename(item.key)
            match = re.search(self.label_pattern, subject)
            if match:
                labels |= {name: value for name, value in match.groupdict().items() if value}
        texts = (sound_records.Text(text, sound_records.TRANSCRIPT),) if text else ()
        with audio_files.opened(self._path(item)) as sound:
            yield dataclasses.replace(sound, texts=item.texts + texts, labels=labels)

    def encoded(self, item: listing.Item) -> BinaryIO:
        """Opens the bytes of a file."""
        return open(self._path(item), "rb")

    def _path(self, item: listing.Item) -> str:
        return os.path.join(self.path, item.key) if os.path.isdir(self.path) else self.path

    def _metadata_of(self, key: str) -> dict[str, str]:
        if not self.metadata:
            return {}
        table = _read_metadata(self.metadata, self.metadata_columns)
        stem = os.path.splitext(key)[0]
        names = (key, stem, os.path.basename(key), os.path.basename(stem))
        return next((table[name] for name in names if name in table), {})


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
