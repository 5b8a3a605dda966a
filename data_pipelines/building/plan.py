# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The plan of a build: what was asked, and which sounds go into which shard of which part.

A plan depends on the input and the settings alone, never on the number of workers or on what a
killed build left behind.
"""

from collections.abc import Callable, Sequence
import dataclasses
import hashlib
import json
import os
import pathlib

from data_pipelines.building import split
from data_pipelines.inputs import listing
from data_pipelines.sound import conversion as conversion_lib

# A shard's share of the input, in bytes: as many shards as _NUM_SHARDS until they reach the larger
# size, so that small inputs are still built in parallel and large ones do not make files by the
# thousand.
_NUM_SHARDS, _MIN_SHARD_BYTES, _MAX_SHARD_BYTES = 64, 2**21, 2**28


@dataclasses.dataclass(frozen=True)
class Task:
    """One shard to write: the part it belongs to, its file name, and the sounds to read for it."""

    part: str
    shard_name: str
    items: tuple[listing.Item, ...]

    @property
    def name(self) -> str:
        return f"{self.part or 'all'}-{self.shard_name}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a build will do.

    Attributes:
        settings: what was asked, ready for JSON.
        sources: SHA-256 over the names, sizes, texts and labels of all sounds.
        skipped: kind -> count of what is no sound, or in no part.
        parts: "" or "train" and "test" -> how many sounds it was given.
        tasks: the shards of all parts, in order.
        rows: what became of the rows of tables -> count.
        remarks: sentences for the console.
        licences: what sounds come from -> "licence" and what else is to be known of it.
        held_out_by: names of labels and texts of which no value is in two parts.
    """

    settings: dict
    sources: str
    skipped: dict[str, int]
    parts: dict[str, int]
    tasks: tuple[Task, ...]
    rows: dict[str, int] = dataclasses.field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    licences: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    held_out_by: tuple[str, ...] = ()

    def refuse_other(self, folder: str | os.PathLike, settings: dict, sources: str) -> None:
        """Raises ValueError naming what differs, unless the build found in `folder` is this one."""
        for name in sorted(self.settings.keys() | settings.keys()):
            wanted, found = self.settings.get(name), settings.get(name)
            if wanted != found:
                raise ValueError(
                    f"{folder} holds another build: {name} is {found!r} there and {wanted!r} now; "
                    "choose another --output or delete that folder"
                )
        if self.sources != sources:
            raise ValueError(
                f"{folder} holds a build of other sounds than the input has now (names, sizes, "
                "texts or labels differ); choose another --output or delete that folder"
            )


def make_plan(
    source: listing.Input,
    conversion: conversion_lib.Conversion,
    *,
    holdout: split.Holdout,
    num_workers: int,
    say: Callable[[str], None],
) -> Plan:
    """Lists the input and decides where every sound goes.

    Args:
        source: what to read.
        conversion: what becomes of it.
        holdout: what goes to the part "test".
        num_workers: processes, where sounds have to be opened for their labels.
        say: told when they are.

    Raises:
        ValueError: if there is nothing to read, or nothing that could be held out.
    """
    found = source.listed()
    settings = source.settings() | dataclasses.asdict(conversion) | holdout.settings()
    settings = json.loads(json.dumps(settings))  # as it will be when read back: lists, no tuples
    if not found.items:
        passed_over = listing.counted(found.skipped)
        raise ValueError(
            f"no sound in the input {settings}: passed over {passed_over or 'nothing'}; check --input"
        )
    divided = split.split(source, found, holdout, num_workers=num_workers, say=say)
    return Plan(
        settings=settings,
        sources=_digest(found.items),
        skipped=found.skipped | divided.skipped,
        parts={part: len(items) for part, items in divided.parts.items()},
        tasks=tuple(task for part, items in divided.parts.items() for task in _tasks(part, items)),
        rows=found.rows,
        remarks=found.remarks + divided.remarks,
        licences=found.licences,
        held_out_by=holdout.labels,
    )


def part_folder(output: pathlib.Path, part: str) -> pathlib.Path:
    """The folder of one shard set of a build; an undivided one is `output` itself."""
    return output / part if part else output


def _digest(items: Sequence[listing.Item]) -> str:
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{item.key}\0{item.num_bytes}\n".encode("utf-8", "surrogateescape"))
        if item.texts or item.labels:
            texts = [(text.kind, text.content) for text in item.texts]
            digest.update(json.dumps([texts, sorted(item.labels.items())]).encode() + b"\n")
    return digest.hexdigest()


def _tasks(part: str, items: Sequence[listing.Item]) -> list[Task]:
    total = sum(item.num_bytes for item in items)
    limit = min(max(total // _NUM_SHARDS, _MIN_SHARD_BYTES), _MAX_SHARD_BYTES)
    groups, size = [[]], 0
    for item in items:
        if groups[-1] and size + item.num_bytes > limit:
            groups.append([])
            size = 0
        groups[-1].append(item)
        size += item.num_bytes
    return [
        Task(part, f"shard-{index:05d}.array_record", tuple(group))
        for index, group in enumerate(groups)
    ]
