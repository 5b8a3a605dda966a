# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A folder of sound files as an input, with the labels and texts that come with it."""

import collections
from collections.abc import Mapping, Sequence
import dataclasses
import fnmatch
import functools
import os
import re

from data_pipelines.inputs import entries as entries_lib
from data_pipelines.inputs import joining
from data_pipelines.inputs import listing
from data_pipelines.inputs import matching
from data_pipelines.inputs import sidecars as sidecars_lib
from data_pipelines.inputs import table_paths
from data_pipelines.inputs import tables
from data_pipelines.sound import audio_files

_SIDECAR_ENDINGS = (".txt", ".lab")
_ARCHIVES = {".tar": "webdataset", ".parquet": "parquet"}  # ending -> the --source that reads it


@dataclasses.dataclass(frozen=True)
class Folder(listing.OfFiles):
    """A folder of sound files, or one file.

    Attributes:
        path: of the folder, searched with everything below it.
        include: globs on the relative path or the file name; empty takes every known ending.
        exclude: globs of what is left out.
        label_pattern: regular expression whose named groups become labels; searched in the file
            name, or in the relative path if it contains a slash.
        name_pattern: regular expression, searched in the file name without its ending; its group
            `name` is what tables and sidecars call the sound.
        metadata: tables of texts and labels: paths, globs or folders, see `tables`.
        metadata_columns: names of the tables' columns, empty if their first line gives them.
        metadata_delimiter: of the tables, one of delimited.MARKS, "" to find it.
        sidecars: endings of files with the text of the sound beside them, or globs of such files.
        text_kind: of texts whose source does not tell it, "" for what the column's name says.
    """

    path: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    label_pattern: str = ""
    metadata: tuple[str, ...] = ()
    metadata_columns: tuple[str, ...] = ()
    metadata_delimiter: str = ""
    sidecars: tuple[str, ...] = ()
    text_kind: str = ""
    name_pattern: str = ""

    def __post_init__(self):
        if not os.path.exists(self.path):
            raise ValueError(f"--input={self.path} does not exist: name a folder of sound files")
        if not os.path.isdir(self.path) and not os.path.isfile(self.path):
            raise ValueError(f"--input={self.path} must be a folder or a file, got neither")
        groups = _groups("--label_pattern", self.label_pattern)
        if self.label_pattern and not groups:
            raise ValueError(
                f"--label_pattern={self.label_pattern!r} has no named group: write "
                "(?P<speaker>...) for a label"
            )
        if self.name_pattern and "name" not in _groups("--name_pattern", self.name_pattern):
            raise ValueError(
                f"--name_pattern={self.name_pattern!r} has no group called name: write "
                "(?P<name>...) for what tables call a sound"
            )
        self._table_paths()

    def settings(self) -> dict:
        """Returns what identifies this input in a manifest."""
        return {"source": "folder", **dataclasses.asdict(self)}

    def listed(self) -> listing.Listing:
        """Searches the folder and reads its tables once; every entry and every row is counted.

        Raises:
            ValueError: if there is no sound, or a table or a pattern is wrong or fits no sound.
        """
        entries = entries_lib.Entries(self.path)
        table_groups, sidecar_groups = self._table_paths(), self._sidecar_paths(entries)
        read = {os.path.realpath(path): "sidecar" for _, group in sidecar_groups for path in group}
        read |= {os.path.realpath(path): "table" for _, group in table_groups for path in group}
        files, names, skipped = self._sorted_out(entries, read)
        remarks = _remarks(entries, files, read)
        if not files:
            raise ValueError(
                f"--input={self.path} must hold sound, got none: passed over "
                f"{listing.counted(skipped) or 'nothing, as it is empty'}; check --input, --include and "
                f"--exclude{''.join(f'; {remark}' for remark in remarks)}"
            )
        names = self._called(names, remarks)
        sounds = matching.Sounds(self._root, names)
        joined = joining.Joined(sounds, [file.key for file in files])
        self._join_tables(joined, sounds, table_groups)
        for value, paths in sidecar_groups:
            ending = sidecars_lib.ending_of(value)
            table = sidecars_lib.read(paths, ending, self.text_kind)
            joined.add(joining.Group(f"--sidecars={value}", [table]))
        of_names = self._labels_of_names(files)
        items = []
        for index, file in enumerate(files):
            labels = _merged(file.key, joined, of_names[index])
            texts = joined.texts(file.key)
            items.append(listing.Item(file.key, file.num_bytes, index, texts, labels))
        remarks += joined.remarks + self._share(of_names)
        return listing.Listing(tuple(items), skipped, joined.summary(), tuple(remarks))

    def _path(self, item: listing.Item) -> str:
        return os.path.join(self.path, item.key) if os.path.isdir(self.path) else self.path

    @property
    def _root(self) -> str:
        return self.path if os.path.isdir(self.path) else os.path.dirname(self.path) or "."

    def _table_paths(self) -> list[tuple[str, list[str]]]:
        return [
            (value, table_paths.named("--metadata", value, self._root)) for value in self.metadata
        ]

    def _sidecar_paths(self, entries: entries_lib.Entries) -> list[tuple[str, list[str]]]:
        """What each --sidecars names: files of an ending in the folder, or of a glob."""
        groups = []
        for value in self.sidecars:
            if value.startswith(".") and "/" not in value:
                value = f"*{value}"
                paths = [file.path for file in entries.files if fnmatch.fnmatch(file.key, value)]
            else:
                paths = table_paths.named("--sidecars", value, self._root)
            if not paths:
                ending = value.removeprefix("*").lower()
                others = [file.key for file in entries.files if file.key.lower().endswith(ending)]
                but = f", but {len(others)} of another case, such as {others[0]}" if others else ""
                raise ValueError(f"--sidecars={value} fits no file in {self.path}{but}")
            groups.append((value, sorted(paths)))
        return groups

    def _sorted_out(
        self, entries: entries_lib.Entries, read: Mapping[str, str]
    ) -> tuple[list[entries_lib.File], dict[str, str], dict[str, int]]:
        """The sounds, sorted; relative path -> key of the sound there, or ""; what is passed over."""
        skipped, found, names = collections.Counter(entries.others), {}, {}
        for file in sorted(entries.files, key=lambda file: (file.is_link, file.key)):
            kind = read.get(file.real_path) or self._kind(file.key)
            if not kind and file.identity in found:
                kind = "link to the same sound"
                names[file.key] = found[file.identity].key
            elif not kind:
                found[file.identity] = file
                names[file.key] = file.key
            elif os.path.splitext(file.key)[1].lower() in audio_files.ENDINGS:
                names[file.key] = ""
            skipped[kind] += bool(kind)
        files = sorted(found.values(), key=lambda file: file.key)
        return files, names, {kind: count for kind, count in sorted(skipped.items()) if count}

    def _kind(self, key: str) -> str:
        """What a file is that is passed over, "" for sound."""
        ending = os.path.splitext(key)[1].lower()
        if _matches(key, self.exclude):
            return "excluded"
        if self.include and not _matches(key, self.include):
            return "not included"
        return "" if self.include or ending in audio_files.ENDINGS else ending or "no ending"

    def _join_tables(
        self,
        joined: joining.Joined,
        sounds: matching.Sounds,
        groups: Sequence[tuple[str, Sequence[str]]],
    ) -> None:
        options = tables.Options(self.metadata_columns, self.metadata_delimiter, self.text_kind)
        for value, paths in groups:
            read = []
            for path in paths:
                knows = functools.partial(sounds.knows, folder=os.path.dirname(path) or ".")
                read.append(tables.read(path, options, knows))
            joined.add(joining.Group(value, read))

    def _called(self, names: dict[str, str], remarks: list[str]) -> dict[str, str]:
        """The same keys by the paths that tables know, which a pattern finds in those on the disk."""
        if not self.name_pattern:
            return names
        pattern, called, num_fit = re.compile(self.name_pattern), {}, 0
        for path, key in names.items():
            folder, base = os.path.split(path)
            stem, ending = os.path.splitext(base)
            found = pattern.search(stem)
            name = os.path.join(folder, found["name"] + ending) if found and found["name"] else path
            num_fit += bool(key and name != path)
            other = called.get(name)
            if key and other and other != key:
                raise ValueError(
                    f"--name_pattern={self.name_pattern!r} must tell sounds apart, got two sounds "
                    f"of the name {name}, {other} and {key}: mend it, or leave one out (--exclude)"
                )
            called[name] = key or other or ""
        num_sounds = len(set(names.values()) - {""})
        if not num_fit:
            raise ValueError(
                f"--name_pattern={self.name_pattern!r} must fit the file name of some sound, got "
                f"{num_sounds} whose names it does not change"
            )
        share = f"{num_fit} of {num_sounds} sounds ({100 * num_fit // num_sounds} %)"
        remarks.append(f"--name_pattern finds names in {share}")
        return called

    def _labels_of_names(self, files: Sequence[entries_lib.File]) -> list[dict[str, str]]:
        """Labels that the names of sounds hold."""
        if not self.label_pattern:
            return [{}] * len(files)
        pattern = re.compile(self.label_pattern)
        is_of_path = "/" in self.label_pattern
        labels = []
        for file in files:
            found = pattern.search(file.key if is_of_path else os.path.basename(file.key))
            groups = found.groupdict() if found else {}
            labels.append({name: value for name, value in groups.items() if value})
        if not any(labels):
            what = "path" if is_of_path else "file name"
            raise ValueError(
                f"--label_pattern={self.label_pattern!r} must fit the {what} of some sound, got "
                f"{len(files)} that it does not fit, such as {files[0].key!r}"
            )
        return labels

    def _share(self, of_names: Sequence[Mapping[str, str]]) -> list[str]:
        if not self.label_pattern:
            return []
        num_fit = sum(map(bool, of_names))
        share = f"{num_fit} of {len(of_names)} sounds ({100 * num_fit // len(of_names)} %)"
        return [f"--label_pattern gives labels to {share}"]


def _merged(key: str, joined: joining.Joined, of_name: Mapping[str, str]) -> dict[str, str]:
    """Labels of a sound from tables and from its name, which must say the same."""
    labels = joined.labels(key)
    for name, value in of_name.items():
        if labels.get(name, value) != value:
            raise ValueError(
                f"{joined.where(key, name)}, has {name} {labels[name]!r} for {key}, and "
                f"--label_pattern finds {value!r}: leave one out"
            )
    return labels | dict(of_name)


def _groups(flag: str, pattern: str) -> Mapping[str, int]:
    """The named groups of a regular expression that a flag gives."""
    try:
        return re.compile(pattern).groupindex
    except re.error as error:
        raise ValueError(f"{flag}={pattern!r} is not a regular expression: {error}") from None


def _remarks(
    entries: entries_lib.Entries, files: Sequence[entries_lib.File], read: Mapping[str, str]
) -> list[str]:
    """What a user may have meant to be read, and is not."""
    others = [file.path for file in entries.files if file.real_path not in read]
    sounds = {os.path.splitext(file.path)[0] for file in files}
    found = {
        "folders that cannot be searched": (entries.unreadable, ""),
        "folders that builds have written, not searched": (entries.outputs, ""),
    }
    for ending, source in _ARCHIVES.items():
        paths = [path for path in others if path.lower().endswith(ending)]
        found[f"{ending} files that were not read"] = (paths, f"give --source={source}")
    paths = [path for path in others if table_paths.looks_like_table(os.path.basename(path))]
    remedy = f"give --metadata={paths[0]}" if paths else ""
    found["files that look like tables and were not read"] = (paths, remedy)
    for ending in (*_SIDECAR_ENDINGS, *map(str.upper, _SIDECAR_ENDINGS)):
        paths = [path for path in others if path.endswith(ending)]
        paths = [path for path in paths if path.removesuffix(ending) in sounds]
        remedy = f"give --sidecars={ending} if they are texts"
        found[f"{ending} files that have names of sounds and were not read"] = (paths, remedy)
    return [
        f"{what}: {len(paths)}, such as {paths[0]}{remedy and f' ({remedy})'}"
        for what, (paths, remedy) in found.items()
        if paths
    ]


def _matches(key: str, globs: tuple[str, ...]) -> bool:
    names = (key, os.path.basename(key))
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs for name in names)
