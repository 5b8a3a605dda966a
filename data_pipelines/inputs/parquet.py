# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Parquet files with sound inside, as Hugging Face's datasets write them, without that library.

Texts, labels and sizes are read when the input is listed; sounds a few rows at a time.
"""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import functools
import io
import json
import os
from typing import BinaryIO

from data_pipelines.inputs import columns
from data_pipelines.inputs import listing
from data_pipelines.inputs import shard_files
from data_pipelines.sound import audio_files
from data_pipelines.sound import refusals

_ENDINGS = (".parquet", ".pq")
_BYTES = "bytes"  # the field of a column of sound that holds the file
_ROWS_AT_A_TIME = 16  # a row may be megabytes
_BUFFER_BYTES = 2**20  # of one column; without it, or with pre_buffer, a row group is read at once


@dataclasses.dataclass(frozen=True)
class _Row(listing.Item):
    """A row: the path of its file, the row group, and its place in that."""

    path: str = ""
    group: int = 0
    row: int = 0


@dataclasses.dataclass(frozen=True)
class Parquet:
    """Parquet files of which a column holds encoded sound.

    Attributes:
        path: of a folder of files or of one, a glob, or names in braces; see `shard_files`.
        audio_feature: the column that is the sound; "" finds the one that can be.
        text_kind: of texts whose column does not say it; "" for transcripts.
    """

    path: str
    audio_feature: str = ""
    text_kind: str = ""

    def __post_init__(self):
        _refuse_saved(self.path)
        shard_files.find(self.path, _ENDINGS)

    def settings(self) -> dict:
        """Returns what identifies this input in a manifest."""
        return {"source": "parquet", **dataclasses.asdict(self)}

    def listed(self) -> listing.Listing:
        """Lists every row.

        Raises:
            ValueError: naming a file that is damaged, has no column of sound, or only paths in it.
        """
        files, skipped = shard_files.find(self.path, _ENDINGS)
        items = []
        for name, path in files.items():
            with _damage_named(path):
                rows = list(self._rows(os.path.splitext(name)[0], path, len(items)))
            if rows and not any(item.num_bytes for item in rows):
                raise ValueError(
                    f"{path} must hold sound, its column {self._column(path)!r} has none in "
                    f"{len(rows)} rows, perhaps paths: embed it, as Hugging Face's "
                    "dataset.to_parquet does, or give the files by --source=folder"
                )
            items += rows
        return listing.Listing(tuple(items), dict(sorted(skipped.items())))

    def encoded(self, item: _Row) -> BinaryIO:
        """Opens the bytes of a sound."""
        return io.BytesIO(_reader(item.path, self._column(item.path)).read(item.group, item.row))

    @contextlib.contextmanager
    def opened(self, item: _Row) -> Iterator[audio_files.Sound]:
        """Opens one sound."""
        if not item.num_bytes:
            raise refusals.Refused("empty", "the row has no bytes of sound")
        with self.encoded(item) as file, audio_files.opened(file) as sound:
            yield dataclasses.replace(sound, texts=item.texts, labels=dict(item.labels))

    def _column(self, path: str) -> str:
        return _audio_column(path, self.audio_feature)

    def _rows(self, stem: str, path: str, index: int) -> Iterator[_Row]:
        file, number = _file(path), 0
        words = _columns_of_words(file.schema_arrow, self._column(path))
        names = _class_names(file.schema_arrow)
        for group in range(file.num_row_groups):
            reader = _reader(path, self._column(path))
            table = file.read_row_group(group, columns=words).to_pylist()
            for row, (num_bytes, values) in enumerate(zip(reader.sizes(group), table, strict=True)):
                values = {name: _named(value, names.get(name)) for name, value in values.items()}
                texts, labels = columns.texts_and_labels(
                    values, text_kind=self.text_kind, where=f"row {number} of {path}"
                )
                yield _Row(
                    key=f"{stem}/{number:08d}",
                    num_bytes=num_bytes,
                    index=index + number,
                    texts=texts,
                    labels=labels,
                    path=path,
                    group=group,
                    row=row,
                )
                number += 1


class _Reader:
    """Reads the sounds of a file, one after the other with few in memory; going back costs time."""

    def __init__(self, path: str, column: str):
        self._file = _file(path)
        field = self._file.schema_arrow.field(column)
        self._leaf = f"{column}.{_BYTES}" if _holds_bytes(field.type) else column
        self._group, self._start, self._batch, self._batches = -1, 0, (), iter(())

    def read(self, group: int, row: int) -> bytes:
        """Returns the bytes of a row of a row group."""
        if group != self._group or row < self._start:
            self._group, self._start, self._batch = group, 0, ()
            self._batches = self._values(group)
        while row >= self._start + len(self._batch):
            self._start += len(self._batch)
            self._batch = next(self._batches)
        return self._batch[row - self._start].as_py()

    def sizes(self, group: int) -> list[int]:
        """Returns the bytes of each row of a row group; 0 where it has no sound."""
        import pyarrow.compute

        batches = (pyarrow.compute.binary_length(batch) for batch in self._values(group))
        return [num_bytes or 0 for batch in batches for num_bytes in batch.to_pylist()]

    def _values(self, group: int) -> Iterator:
        for batch in self._file.iter_batches(
            _ROWS_AT_A_TIME, row_groups=[group], columns=[self._leaf], use_threads=False
        ):
            values = batch.column(0)
            yield values.field(_BYTES) if _holds_bytes(values.type) else values


# Of few files: workers go from one to the next.
@functools.lru_cache(maxsize=2)
def _reader(path: str, column: str) -> _Reader:
    return _Reader(path, column)


@functools.lru_cache(maxsize=4)
def _file(path: str):
    # Not every build needs it, and it takes a while to import.
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(
        path, buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
    )


@functools.lru_cache(maxsize=4)
def _audio_column(path: str, wanted: str) -> str:
    """The column of sound: said, or by what Hugging Face says of it, or by its type."""
    import pyarrow

    schema = _file(path).schema_arrow
    told = {name: feature.get("_type") for name, feature in _features(schema).items()}
    structs = [field.name for field in schema if _holds_bytes(field.type)]
    binaries = [field.name for field in schema if _is_binary(pyarrow, field.type)]
    if wanted:
        if wanted not in structs + binaries:
            raise ValueError(
                f"--audio_feature={wanted} must be a column of {path} with the bytes of sound "
                f"files, its columns are {_types(schema)}"
            )
        return wanted
    sure = [name for name in structs + binaries if told.get(name) == "Audio"]
    other = [name for name in structs if told.get(name, "Audio") == "Audio"]
    found = sure or other or binaries
    if len(found) != 1:
        raise ValueError(
            f"{path} must have one column with the bytes of sound files, got {found or 'none'} of "
            f"{_types(schema)}: {'say --audio_feature' if found else 'embed the sound as bytes'}"
        )
    return found[0]


def _is_binary(pyarrow, kind) -> bool:
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def _holds_bytes(kind) -> bool:
    """Whether a type is Hugging Face's of a file: its bytes and its path."""
    import pyarrow

    if not pyarrow.types.is_struct(kind):
        return False
    return any(field.name == _BYTES and _is_binary(pyarrow, field.type) for field in kind)


def _columns_of_words(schema, audio: str) -> list[str]:
    """Columns of texts, numbers and lists of texts."""
    from pyarrow import types

    def is_word(kind) -> bool:
        if types.is_dictionary(kind):
            kind = kind.value_type
        return types.is_string(kind) or types.is_large_string(kind) or types.is_primitive(kind)

    def is_list(kind) -> bool:
        return types.is_list(kind) or types.is_large_list(kind)

    return [
        field.name
        for field in schema
        if field.name != audio
        and (is_word(field.type) or (is_list(field.type) and is_word(field.type.value_type)))
    ]


def _features(schema) -> Mapping[str, dict]:
    """What Hugging Face's datasets write about columns; empty if they did not."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: about for name, about in features.items() if isinstance(about, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _class_names(schema) -> dict[str, list[str]]:
    """Column of numbers -> what they stand for."""
    features = _features(schema).items()
    names = {name: about.get("names") for name, about in features}
    return {name: found for name, found in names.items() if isinstance(found, list)}


def _named(value: object, names: list[str] | None) -> object:
    if names is None or not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else ""  # -1 is "not known"


def _types(schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)[:300]


@contextlib.contextmanager
def _damage_named(path: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} must be a whole Parquet file, got one that is damaged: {reason}; copy it again"
        ) from None


def _refuse_saved(path: str) -> None:
    """Names what datasets' save_to_disk wrote, which is Arrow, not Parquet."""
    marks = ("state.json", "dataset_dict.json", "dataset_info.json")
    saved = os.path.isdir(path) and any(os.path.exists(os.path.join(path, mark)) for mark in marks)
    if path.endswith(".arrow") or (saved and not shard_files.holds(path, _ENDINGS)):
        raise ValueError(
            f"--input={path} must hold Parquet files, got what Hugging Face's save_to_disk writes: "
            "convert it, as by datasets.load_from_disk(FOLDER).to_parquet('sound.parquet'), every "
            "split of a DatasetDict by itself"
        )
