# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Tar shards as WebDataset writes them: members of one name up to the first dot belong together.

Headers are read once, when the input is listed; sounds are read where they lie in their tar.
"""

import collections
from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import functools
import io
import json
import os
from typing import BinaryIO

from data_pipelines.containers import content
from data_pipelines.inputs import columns
from data_pipelines.inputs import listing
from data_pipelines.inputs import shard_files
from data_pipelines.inputs import sidecars
from data_pipelines.inputs import tars
from data_pipelines.records import sound as sound_records
from data_pipelines.sound import audio_files
from data_pipelines.sound import refusals

# A compressed tar is found, too, and refused by name.
_ENDINGS = (
    ".tar",
    *(f".tar.{kind}" for kind in ("gz", "bz2", "xz", "zst")),
    ".tgz",
    ".tbz",
    ".txz",
)
# Ending of a member -> the column of a table that it stands for; others that a table would call a
# text stand for themselves, also before .txt, as in "one.caption.txt".
_COLUMNS = {".txt": "text", ".lab": "transcript", ".cls": "cls", ".label": "label"}
_MAX_TEXT_BYTES = 2**20
_MAX_BYTES_IN_MEMORY = 2**23  # of a sound that is read at once


@dataclasses.dataclass(frozen=True)
class _Part:
    """One member of a tar: its name, and where its bytes lie."""

    name: str
    start: int
    num_bytes: int

    @property
    def ending(self) -> str:
        return os.path.splitext(self.name)[1].lower()

    @property
    def is_sound(self) -> bool:
        return self.ending in audio_files.ENDINGS

    @property
    def column(self) -> str:
        """The column of a table that it stands for, "json" for several, "" for none."""
        if self.ending == ".json":
            return "json"
        stem = os.path.splitext(self.name)[0] if self.ending in (".txt", ".lab") else self.name
        said = os.path.splitext(stem)[1].lower().removeprefix(".")
        return said if said and columns.is_text(said) else _COLUMNS.get(self.ending, "")


@dataclasses.dataclass(frozen=True)
class _Sound(listing.Item):
    """A sound inside a tar.

    Attributes:
        tar: path of the tar.
        part: where the sound lies in it.
        texts_beside: the members that say something about it.
        rivals: names of other sounds of the same group, which make it unclear whose texts they are.
    """

    tar: str = ""
    part: _Part = _Part("", 0, 0)
    texts_beside: tuple[_Part, ...] = ()
    rivals: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Tars:
    """Tar shards.

    Attributes:
        path: of a folder of tars or of one, a glob, or names in braces; see `shard_files`.
        text_kind: of texts that do not say it by their ending; "" for transcripts.
    """

    path: str
    text_kind: str = ""

    def __post_init__(self):
        shard_files.find(self.path, _ENDINGS)

    def settings(self) -> dict:
        """Returns what identifies this input in a manifest."""
        return {"source": "webdataset", **dataclasses.asdict(self)}

    def listed(self) -> listing.Listing:
        """Reads the headers of all tars.

        Raises:
            ValueError: naming a tar that is compressed or not whole.
        """
        files, skipped = shard_files.find(self.path, _ENDINGS)
        items, alone = [], []
        for file_name, path in files.items():
            for parts in _groups(path, skipped).values():
                sounds = [part for part in parts if part.is_sound]
                texts = tuple(part for part in parts if not part.is_sound and part.column)
                for part in parts:
                    if not (part.is_sound or part in texts):
                        skipped[part.ending or "no ending"] += 1
                if not sounds:
                    alone += [f"{file_name}/{part.name}" for part in texts]
                items += _sounds(file_name, path, sounds, texts)
        remarks = ()
        if alone:
            skipped["text without sound"] = len(alone)
            remarks = (f"{len(alone)} texts in tars have no sound, such as {alone[0]}",)
        items = tuple(dataclasses.replace(item, index=at) for at, item in enumerate(items))
        return listing.Listing(
            items, dict(sorted(skipped.items())), remarks=remarks, labels_inside=True
        )

    def encoded(self, item: _Sound) -> BinaryIO:
        """Opens the bytes of a sound where they lie."""
        return io.BufferedReader(_Range(_file(item.tar), item.part), 2**17)

    @contextlib.contextmanager
    def opened(self, item: _Sound) -> Iterator[audio_files.Sound]:
        """Opens one sound, with the texts and labels of the members beside it."""
        if item.rivals:
            detail = f"{' and '.join(item.rivals)} have the same name up to its first dot"
            raise refusals.Refused("ambiguous", detail)
        if item.part.ending in audio_files.UNREADABLE:
            raise audio_files.unsupported(item.part.ending)
        if not item.num_bytes:
            raise refusals.Refused("empty", "0 bytes")
        texts, labels = self._texts_and_labels(item)
        with self.encoded(item) as file:
            # Decoders read a little here and there: many calls, of which those in C cost less.
            fits = item.num_bytes <= _MAX_BYTES_IN_MEMORY
            with audio_files.opened(io.BytesIO(file.read()) if fits else file) as sound:
                yield dataclasses.replace(sound, texts=texts, labels=labels)

    def _texts_and_labels(
        self, item: _Sound
    ) -> tuple[tuple[sound_records.Text, ...], dict[str, str]]:
        fields = {}
        try:
            for part in item.texts_beside:
                for name, value in _fields(_file(item.tar), part).items():
                    if fields.setdefault(name, value) != value:
                        raise ValueError(f"{part.name} and another member differ in {name}")
            return columns.texts_and_labels(fields, text_kind=self.text_kind, where=item.part.name)
        except (ValueError, RecursionError) as error:
            raise refusals.Refused("bad_text", audio_files.sentence(error)) from None


def _groups(path: str, skipped: dict[str, int]) -> dict[str, list[_Part]]:
    """Name up to the first dot behind the last slash -> members; counts what is no visible file."""
    groups = collections.defaultdict(list)
    for member in tars.members(path):
        kind = tars.special(member)
        if kind:
            skipped[kind] += 1
            continue
        part = _Part(tars.name(member), member.offset_data, member.size)
        folder, slash, base = part.name.rpartition("/")
        groups[folder + slash + base.partition(".")[0]].append(part)
    return groups


def _sounds(
    file_name: str, path: str, sounds: Sequence[_Part], texts: tuple[_Part, ...]
) -> Iterator[_Sound]:
    """The sounds of one group; a name may stand in a tar twice."""
    rivals = tuple(part.name for part in sounds) if len(sounds) > 1 else ()
    for place, part in enumerate(sounds):
        again = f" ({place + 1})" if part.name in rivals[:place] else ""
        yield _Sound(
            key=f"{file_name}/{part.name}{again}",
            num_bytes=part.num_bytes,
            index=0,
            tar=path,
            part=part,
            texts_beside=texts,
            rivals=rivals,
        )


def _fields(file: BinaryIO, part: _Part) -> dict[str, object]:
    """Column -> value of a member of text or json."""
    if part.num_bytes > _MAX_TEXT_BYTES:
        raise ValueError(f"{part.name} has {part.num_bytes} bytes, more than a text can have")
    try:
        text = os.pread(file.fileno(), part.num_bytes, part.start).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{part.name} is not UTF-8") from None
    if part.ending != ".json":
        is_text = columns.is_text(part.column)
        return {part.column: "\n".join(sidecars.lines_of(part.name, text)) if is_text else text}
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{part.name} is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{part.name} must be a JSON object with names and values")
    return fields


@functools.lru_cache(maxsize=4)
def _file(path: str) -> BinaryIO:
    return open(path, "rb", buffering=0)


class _Range(content.Window):
    """A part of a file as a file of its own; several may share one file."""

    def __init__(self, file: BinaryIO, part: _Part):
        super().__init__(part.num_bytes)
        self._file, self._part = file, part

    def readinto(self, buffer) -> int:
        num_bytes = min(len(buffer), max(self._part.num_bytes - self._position, 0))
        data = os.pread(self._file.fileno(), num_bytes, self._part.start + self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
