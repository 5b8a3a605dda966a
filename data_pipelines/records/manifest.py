# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The manifest of a shard set: what a folder of shards holds, and whether it still does.

A set is a folder with `manifest.json`, the shards that it names, and `refusals.jsonl`. The manifest
is written last, so a folder without one is not a set; it holds no time and no machine's name, so
that the same build gives the same bytes, and a seal, so that none of them changes unnoticed.
"""

from collections.abc import Collection, Sequence
import dataclasses
import hashlib
import json
import os
import pathlib
import re

from data_pipelines.records import atomic
from data_pipelines.records import sealed

FILE_NAME = "manifest.json"
REFUSALS_NAME = "refusals.jsonl"
STAGING_NAME = ".building"  # the folder of a build's unfinished work
FORMAT = "f3tok shard set 2"
_UNSEALED = "f3tok shard set 1"  # of earlier versions

_MAX_BYTES = 2**28  # of a manifest; a million shards take a tenth of it
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.array_record")


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of records: its name inside the set, records, bytes, and SHA-256 in hexadecimal."""

    name: str
    num_records: int
    num_bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Latents:
    """Which autoencoder encoded a set, and into what.

    Attributes:
        autoencoder: fingerprint of its weights.
        latent_dim: width.
        samples_per_latent: samples at the set's rate.
        sound: fingerprint of the set of sound that was encoded, record by record.
    """

    autoencoder: str
    latent_dim: int
    samples_per_latent: int
    sound: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a shard set holds.

    Attributes:
        sample_rate: Hz, of every record.
        segment_length: samples; every record is this long or, at the end of a source, shorter.
        num_samples: valid samples in all records together.
        shards: in the order in which their records are numbered.
        settings: what was asked of the build.
        sources: SHA-256 over the names, sizes, texts and labels of all that was offered.
        num_sources: how many files or examples were offered, and how many of them were used.
        num_used: see `num_sources`.
        refused: reason -> count; the files are in `refusals.jsonl`.
        skipped: kind -> count of what is no sound (an ending, a link, a hidden file) or in no part.
        clipped_samples: samples that were beyond full scale and were limited to it.
        labels: label name -> values seen, sorted; None for a label with too many values to list.
        num_texts: records with a transcript or caption.
        duplicates: used sounds whose samples another one before them has.
        texts: kind -> "sounds" that came with one, "texts" of those sounds, "records" that have one.
        lost_transcripts: sounds that came with a transcript and were cut, so that no record has it.
        lost_seconds: length of the longest of them.
        hours: label name -> value -> hours of sound; of labels whose values are listed.
        levels: figure of sound.levels -> "min", "p1", "p10", "p50", "p90", "p99", "max" over records.
        noteworthy: reason for which limits could refuse -> used sounds that are beyond
            levels.noteworthy.
        kept: reason -> used sounds that are whole only in front of it: their last record does not
            end, and none has a transcript.
        latents: of whom, if the records hold latents of that sound instead of it.
        rows: what became of the rows of the tables -> count, such as "matched".
        licences: what sounds come from, such as a package -> its "licence", "version", "credit" and
            "notice", and what becomes of "weights" trained on it; `hours` has its length.
        sides: label or kind of text that was held out by -> part -> how many of its values are used
            there; none is in two.
    """

    sample_rate: int
    segment_length: int
    num_samples: int
    shards: tuple[Shard, ...]
    settings: dict
    sources: str
    num_sources: int
    num_used: int
    refused: dict[str, int]
    skipped: dict[str, int]
    clipped_samples: int
    labels: dict[str, list[str] | None]
    num_texts: int
    latents: "Latents | None" = None
    rows: dict[str, int] = dataclasses.field(default_factory=dict)
    duplicates: int = 0
    texts: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    lost_transcripts: int = 0
    lost_seconds: float = 0.0
    hours: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    levels: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    noteworthy: dict[str, int] = dataclasses.field(default_factory=dict)
    kept: dict[str, int] = dataclasses.field(default_factory=dict)
    licences: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    sides: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)

    @property
    def num_records(self) -> int:
        return sum(shard.num_records for shard in self.shards)

    @property
    def seconds(self) -> float:
        return self.num_samples / self.sample_rate

    def records_with(self, kind: str) -> int:
        """How many records have a text of a kind; as many as have any in a set that does not say."""
        return self.texts.get(kind, {}).get("records", 0) if self.texts else self.num_texts

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the sound alone: sets with equal records agree, wherever they were built."""
        content = [self.sample_rate, [(shard.sha256, shard.num_records) for shard in self.shards]]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def is_output(names: Collection[str]) -> bool:
    """Whether a folder with entries of these names is a shard set, or a build is writing to it."""
    return STAGING_NAME in names or (FILE_NAME in names and REFUSALS_NAME in names)


def write(manifest: Manifest, folder: str | os.PathLike) -> None:
    """Writes the manifest of `folder`, whole or not at all."""
    atomic.write_text(pathlib.Path(folder) / FILE_NAME, text(manifest))


def text(manifest: Manifest) -> str:
    """What `parse` reads."""
    fields = {"format": FORMAT, "num_records": manifest.num_records, "seconds": manifest.seconds}
    fields |= dataclasses.asdict(manifest)
    for name in ("latents", "licences", "sides"):
        if not fields[name]:
            del fields[name]
    return json.dumps(sealed.seal(fields), indent=1) + "\n"


def read(folder: str | os.PathLike) -> Manifest:
    """Reads the manifest of a shard set.

    Raises:
        ValueError: if the folder is not a shard set or its manifest is damaged.
    """
    folder = pathlib.Path(folder)
    path = folder / FILE_NAME
    if not path.is_file():
        raise absent(folder, sorted(child.parent.name for child in folder.glob(f"*/{FILE_NAME}")))
    check_size(path, path.stat().st_size)
    return parse(path.read_bytes(), path)


def absent(folder: str | os.PathLike, parts: Sequence[str]) -> ValueError:
    """The error of a folder without manifest, below which `parts` have one."""
    hint = ": build one with python -m data_pipelines.build_shards"
    if parts:
        hint = f"; its sets are {', '.join(parts)}: name one"
    return ValueError(f"{folder} is not a finished shard set, it has no {FILE_NAME}{hint}")


def check_size(path: str | os.PathLike, num_bytes: int) -> None:
    """Raises ValueError where a file is too large to be read as a manifest."""
    if num_bytes > _MAX_BYTES:
        raise ValueError(f"{path} has {num_bytes} bytes, more than a manifest can have")


def parse(data: bytes, path: str | os.PathLike) -> Manifest:
    """The manifest that `write` wrote as `data`, which was found at `path`.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        fields = json.loads(data.decode("utf-8"))
        if fields["format"] not in (FORMAT, _UNSEALED):
            raise ValueError(f"its format is not {FORMAT!r}")
        if fields["format"] == FORMAT:
            fields = sealed.opened(fields, FILE_NAME, required=True)
        del fields["format"]
        num_records = fields.pop("num_records")
        del fields["seconds"]
        fields["shards"] = tuple(Shard(**shard) for shard in fields["shards"])
        if fields.get("latents") is not None:
            fields["latents"] = Latents(**fields["latents"])
        manifest = Manifest(**fields)
        _check(manifest, num_records)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not a whole manifest ({error}): rebuild the set") from None
    return manifest


def _check(manifest: Manifest, num_records: int) -> None:
    for name in ("sample_rate", "segment_length", "num_samples"):
        _check_field(manifest, name, int)
    for name, shape in _SHAPES.items():
        if not _holds(getattr(manifest, name), shape):
            raise ValueError(f"{name} is {str(getattr(manifest, name))[:100]}")
    for name, values in manifest.labels.items():
        if values is not None and not all(type(value) is str for value in values):
            raise ValueError(f"the values of label {name!r} are no strings")
    for shard in manifest.shards:
        # The name is joined to the folder: it must not lead out of it.
        if not _SHARD_NAME.fullmatch(shard.name):
            raise ValueError(f"{shard.name!r} is no name for a shard")
        if type(shard.num_records) is not int or shard.num_records < 1:
            raise ValueError(f"{shard.name} claims {shard.num_records!r} records")
        # A copy of it is named after its checksum.
        has_sum = type(shard.sha256) is str and _SHA256.fullmatch(shard.sha256)
        if type(shard.num_bytes) is not int or not has_sum:
            raise ValueError(f"{shard.name} has no size or checksum")
    if len({shard.name for shard in manifest.shards}) != len(manifest.shards):
        raise ValueError("a shard is named twice")
    if manifest.latents is not None:
        for field in dataclasses.fields(Latents):
            _check_field(manifest.latents, field.name, field.type, " of its latents")
    if manifest.num_records != num_records:
        raise ValueError(f"its shards hold {manifest.num_records} records, it says {num_records!r}")


# Field -> what it holds, as `_holds` reads it.
_SHAPES = {
    "num_sources": int,
    "num_used": int,
    "clipped_samples": int,
    "num_texts": int,
    "duplicates": int,
    "lost_transcripts": int,
    "lost_seconds": float,
    "settings": {},
    "sources": str,
    "refused": {str: int},
    "skipped": {str: int},
    "rows": {str: int},
    "noteworthy": {str: int},
    "texts": {str: {str: int}},
    "hours": {str: {str: float}},
    "licences": {str: {str: str}},
    "sides": {str: {str: int}},
    "levels": {str: {str: float}},
}


def _holds(value: object, shape: type | dict) -> bool:
    """Whether a value is of a type, and at least 0 if a number; or a table of such values."""
    if not isinstance(shape, dict):
        return type(value) is shape and (shape is not int or value >= 0)
    leaves = shape.values()
    return type(value) is dict and all(
        type(name) is str and _holds(found, leaf)
        for leaf in leaves
        for name, found in value.items()
    )


def _check_field(owner: object, name: str, kind: type, whose: str = "") -> None:
    value = getattr(owner, name)
    if type(value) is not kind or (kind is int and value < 1):
        raise ValueError(f"{name}{whose} is {value!r}")


def verify(manifest: Manifest, folder: str | os.PathLike, *, checksums: bool = False) -> None:
    """Compares the files of a set with its manifest.

    Args:
        manifest: of the set.
        folder: of the set.
        checksums: also read every byte; without it, presence and size alone.

    Raises:
        ValueError: naming the first shard that is missing, of another size or of other content.
    """
    folder = pathlib.Path(folder)
    if not manifest.shards:
        raise ValueError(f"the shard set {folder} has no shards: rebuild it")
    for shard in manifest.shards:
        path = folder / shard.name
        if not path.is_file():
            raise ValueError(
                f"shard {path} is missing; {FILE_NAME} names it: copy it again or rebuild the set"
            )
        num_bytes = path.stat().st_size
        if num_bytes != shard.num_bytes:
            raise ValueError(
                f"shard {path} has {num_bytes} bytes, {FILE_NAME} says {shard.num_bytes}: it is "
                f"{'empty' if num_bytes == 0 else 'damaged'}, copy it again or rebuild the set"
            )
        if checksums:
            verify_shard(shard, folder)


def verify_shard(shard: Shard, folder: str | os.PathLike) -> None:
    """Compares every byte of a shard that lies in `folder`; ValueError where one differs."""
    path = pathlib.Path(folder) / shard.name
    if sha256(path) != shard.sha256:
        raise ValueError(
            f"shard {path} differs from its SHA-256 in {FILE_NAME}: copy it again or rebuild the set"
        )


def sha256(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
