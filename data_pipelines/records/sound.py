# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The on-disk record: one segment of sound as bytes.

    b"F3TR" | version, uint32 | header length, uint32 | header | PCM16 samples

All integers are little-endian. The header is one JSON object in ASCII, padded with spaces so that
the samples start at a multiple of 16 bytes and can be read in place. Only valid samples are stored:
the remainder at the end of a file is a shorter record, and whoever forms a batch pads and masks it.
"""

import dataclasses
import json
import math
import struct
from typing import Any, NamedTuple
import unicodedata

import numpy as np

VERSION = 2
_VERSIONS_READ = (1, 2)
MAX_HEADER_BYTES = 2**20  # a transcript of an hour is about 60 kB
MAX_SAMPLES = 2**28  # over an hour and a half at 48 kHz; a record is meant to hold seconds

MAGIC = b"F3TR"
_PREFIX = struct.Struct("<4sII")
_ALIGNMENT = 16  # bytes
_IS_CUT, _ENDS = b'"offset":', b'"ends":true'  # in a header; see decode_clip


TRANSCRIPT, CAPTION = "transcript", "caption"
TEXT_KINDS = (TRANSCRIPT, CAPTION)
# What version 1 called the kind of a text.
_KIND_OF_TASK = dict.fromkeys(("transcribe", "transcription", "speech"), TRANSCRIPT)
_KIND_OF_TASK |= dict.fromkeys(("caption", "music", "events"), CAPTION)


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """What is said in a sound, word by word (a transcript), or what is heard (a caption).

    Attributes:
        content: the text itself.
        kind: one of TEXT_KINDS.
    """

    content: str
    kind: str

    @property
    def words(self) -> str:
        """The text without what is not heard: case, and marks between words."""
        content = unicodedata.normalize("NFC", self.content).casefold()
        return " ".join("".join(one if _is_heard(one) else " " for one in content).split())


def _is_heard(character: str) -> bool:
    """Whether it is of a word: vowels of Hindi or Thai are marks, of letters before them."""
    return character.isalnum() or unicodedata.category(character).startswith("M")


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """One segment of sound with where it came from and what is known about it.

    Attributes:
        key: unique within its shard set, and the same on every rebuild.
        waveform: [num_samples], int16, mono.
        sample_rate: Hz.
        source: the file or example it was cut from, relative to the input.
        offset: samples at `sample_rate` from the start of the source to the start of the segment.
        ends: whether it ends where its source does, and the source was whole; None of version 1, in
            which records do not tell.
        texts: in the order of the source; a transcript only where the segment is all of its source.
        labels: names to values, as strings.
        levels: figures of sound.levels by their names; none where it was not measured.
    """

    key: str
    waveform: np.ndarray
    sample_rate: int
    source: str = ""
    offset: int = 0
    ends: bool | None = False
    texts: tuple[Text, ...] = ()
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    levels: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def num_samples(self) -> int:
        return int(self.waveform.size)


class Clip(NamedTuple):
    """What of a record a batch of sound alone needs.

    Attributes:
        waveform, offset, ends: as of a Record.
    """

    waveform: np.ndarray
    offset: int
    ends: bool | None

    @property
    def num_samples(self) -> int:
        return self.waveform.size


# Header field -> (type in JSON, value when absent). Absent fields are those equal to their default.
FIELDS = {
    "key": (str, None),
    "sample_rate": (int, None),
    "num_samples": (int, None),
    "source": (str, ""),
    "offset": (int, 0),
    "ends": (bool, False),
    "texts": (list, []),
    "labels": (dict, {}),
    "levels": (dict, {}),
}


def encode(record: Record) -> bytes:
    """Returns the bytes of `record`.

    Raises:
        ValueError: if a field is out of range or the waveform is not [num_samples] int16.
    """
    waveform = record.waveform
    if waveform.dtype != np.int16 or waveform.ndim != 1 or not 1 <= waveform.size <= MAX_SAMPLES:
        raise ValueError(
            f"a record's waveform must be int16 [1 to {MAX_SAMPLES} samples], got {waveform.dtype} "
            f"{list(waveform.shape)} for {record.key!r}"
        )
    numbers = {"sample_rate": int(record.sample_rate), "offset": int(record.offset)}
    samples = np.ascontiguousarray(waveform, "<i2").data
    return b"".join((encode_header(record, **numbers), samples))


def decode(data: bytes) -> Record:
    """Returns the record in `data`; its waveform is a read-only view, so nothing is copied.

    Raises:
        ValueError: if `data` is not a whole record of a version this code reads.
    """
    fields, start = decode_header(data)
    num_samples = fields.pop("num_samples")
    if len(data) - start != 2 * num_samples:
        raise ValueError(
            f"record {fields['key']!r} claims {num_samples} samples of two bytes and has "
            f"{len(data) - start} bytes of them"
        )
    return Record(waveform=np.frombuffer(data, "<i2", offset=start), **fields)


def decode_clip(data: bytes) -> Clip:
    """Returns the samples of the record in `data` and whose edges they are: less work than all of it.

    A record that is all of its source says so in a few characters, as `encode` writes them, which
    stand for nothing else in a header: within its strings a quotation mark follows a backslash, its
    labels are strings and its levels have a decimal point. Of others the header is read.

    Raises:
        ValueError: if `data` has no samples or is not a record of a version this code reads.
    """
    start = header_end(data)
    num_bytes = len(data) - start
    is_old = _PREFIX.unpack_from(data)[1] == 1
    if is_old or data.find(_IS_CUT, 0, start) >= 0 or data.find(_ENDS, 0, start) < 0:
        record = decode(data)
        return Clip(record.waveform, record.offset, record.ends)
    if num_bytes % 2 or not 1 <= num_bytes // 2 <= MAX_SAMPLES:
        wanted = f"1 to {MAX_SAMPLES} samples of two bytes"
        raise ValueError(f"a record has {wanted}, got {num_bytes} bytes")
    return Clip(np.frombuffer(data, "<i2", offset=start), 0, True)


def encode_header(record: Any, *, magic: bytes = MAGIC, **changes: int) -> bytes:
    """Returns what stands before the payload of a record, the prefix included.

    Args:
        record: with all of FIELDS.
        magic: first four bytes, which say what kind of payload follows.
        changes: fields that are to be other than the record's.

    Raises:
        ValueError: if a field is out of range, or together they are too long.
    """
    fields = {name: getattr(record, name) for name in FIELDS} | changes
    fields["labels"] = dict(sorted(record.labels.items()))
    fields["texts"] = [[text.kind, text.content] for text in record.texts]
    _check_fields(fields, fields["key"])
    written = {name: value for name, value in fields.items() if value != FIELDS[name][1]}
    header = json.dumps(written, separators=(",", ":")).encode("ascii")
    header += b" " * (-(_PREFIX.size + len(header)) % _ALIGNMENT)
    if len(header) > MAX_HEADER_BYTES:
        raise ValueError(
            f"texts and labels of {fields['key']!r} take {len(header)} bytes, a header holds at "
            f"most {MAX_HEADER_BYTES}: shorten them"
        )
    return _PREFIX.pack(magic, VERSION, len(header)) + header


def decode_header(data: bytes, *, magic: bytes = MAGIC) -> tuple[dict, int]:
    """Returns the fields of a record's header, and where its payload begins.

    Raises:
        ValueError: if `data` does not begin as such a record does.
    """
    start = header_end(data, magic=magic)
    try:
        fields = json.loads(data[_PREFIX.size : start])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the record's header is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError("the record's header must be a JSON object")
    kind = _KIND_OF_TASK.get(str(fields.get("task")))
    if kind and fields.get("text"):  # of version 1, in which other kinds answered nothing
        fields["texts"] = [[kind, fields["text"]]]
    fields = {name: fields.get(name, default) for name, (_, default) in FIELDS.items()}
    _check_fields(fields, fields["key"])
    if _PREFIX.unpack_from(data)[1] == 1:
        fields["ends"] = None
    fields["texts"] = tuple(Text(content, kind) for kind, content in fields["texts"])
    return fields, start


def header_end(data: bytes, *, magic: bytes = MAGIC) -> int:
    """Checks how a record begins; returns where its payload does."""
    if len(data) < _PREFIX.size:
        raise ValueError(f"a record has at least {_PREFIX.size} bytes, got {len(data)}")
    found, version, header_bytes = _PREFIX.unpack_from(data)
    if found != magic:
        raise ValueError(f"a record starts with {magic!r}, got {found!r}: not one of our shards")
    if version not in _VERSIONS_READ:
        raise ValueError(f"the record has version {version}, this code reads {VERSION}: rebuild it")
    end = _PREFIX.size + header_bytes
    if header_bytes > MAX_HEADER_BYTES or end > len(data):
        raise ValueError(f"the record's header claims {header_bytes} bytes of {len(data)} in all")
    return end


def _check_fields(fields: dict, key: object) -> None:
    for name, (kind, _) in FIELDS.items():
        if type(fields[name]) is not kind:
            wanted = f"must be {kind.__name__}, got {fields[name]!r}"
            raise ValueError(f"field {name!r} of record {key!r} {wanted}")
    sample_rate, offset = fields["sample_rate"], fields["offset"]
    num_samples = fields["num_samples"]
    if sample_rate < 1 or offset < 0 or not 1 <= num_samples <= MAX_SAMPLES:
        raise ValueError(
            f"record {key!r} needs a sample_rate of 1 or more, an offset of 0 or more and 1 to "
            f"{MAX_SAMPLES} samples, got {sample_rate}, {offset} and {num_samples}"
        )
    for text in fields["texts"]:
        if not _is_text(text):
            kinds = " or ".join(TEXT_KINDS)
            raise ValueError(f"texts of record {key!r} must be [{kinds}, words], got {text!r}")
    for name, value in fields["labels"].items():
        if type(name) is not str or type(value) is not str:
            raise ValueError(f"labels of record {key!r} must be strings, got {name!r}: {value!r}")
    for name, value in fields["levels"].items():
        if type(name) is not str or type(value) is not float or not math.isfinite(value):
            raise ValueError(f"levels of record {key!r} must be floats, got {name!r}: {value!r}")


def _is_text(pair: object) -> bool:
    is_pair = type(pair) is list and [type(part) for part in pair] == [str, str]
    return is_pair and pair[0] in TEXT_KINDS and bool(pair[1])
