# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Writes one shard from a list of sounds; runs in a worker process."""

import collections
from collections.abc import Callable, Iterable, Iterator
import contextlib
import dataclasses
import os
import pathlib
import tempfile

from array_record.python import array_record_module
import numpy as np

from data_pipelines.building import account as account_lib
from data_pipelines.building import duplicates
from data_pipelines.building import plan as build_plan
from data_pipelines.inputs import listing
from data_pipelines.records import atomic
from data_pipelines.records import manifest
from data_pipelines.records import sound as sound_records
from data_pipelines.sound import audio_files
from data_pipelines.sound import conversion as conversion_lib
from data_pipelines.sound import levels
from data_pipelines.sound import refusals

# PCM16 barely compresses, and inflating it would cost several times as much as reading it.
WRITER_OPTIONS = "group_size:1,uncompressed"
_HELD_BYTES = 2**25  # of one sound that stay in memory; the rest waits in a file


@atomic.disk_errors(RuntimeError)
def write_shard(
    task: build_plan.Task,
    *,
    source: listing.Input,
    conversion: conversion_lib.Conversion,
    folder: str,
    held_out_by: tuple[str, ...],
    left_out: dict[str, str],
    crashed: dict[str, str],
    report: Callable[[str], None],
) -> dict:
    """Writes the shard of `task` under a temporary name and returns what went into it.

    Args:
        task: what to write.
        source: opens the sounds.
        conversion: what becomes of them.
        folder: where unfinished work lies.
        held_out_by: names of labels and texts whose values are noted.
        left_out: key -> detail of sounds whose samples the other part has; refused unread.
        crashed: key -> detail of sounds that ended an earlier worker; refused unread.
        report: told each sound's key before it is read.

    Returns:
        Ready for JSON: "partial", the temporary name, None if no sound was usable; "shard", the
        fields of manifest.Shard or None; and what account.Account tells.
    """
    partial = pathlib.Path(folder) / f"{task.name}.{os.getpid()}.partial"
    account, num_records = account_lib.Account(conversion.sample_rate, held_out_by), 0
    writer = array_record_module.ArrayRecordWriter(os.fsencode(partial), WRITER_OPTIONS)
    for item in task.items:
        report(item.key)
        try:
            for reason, details in (("crashed", crashed), ("duplicate", left_out)):
                if item.key in details:
                    raise refusals.Refused(reason, details[item.key])
            for record in _segments(item, source, conversion, folder, account):
                writer.write(sound_records.encode(record))
                account.add_record(record)
                num_records += 1
        except refusals.Refused as refusal:
            account.refuse(item.key, refusal)
    writer.close()
    shard = whole_shard(task.shard_name, partial, num_records)
    return {"partial": partial.name if shard else None, "shard": shard, **account.result()}


def whole_shard(name: str, partial: pathlib.Path, num_records: int) -> dict | None:
    """Fields of manifest.Shard of a shard that is written; None, and no file, if it is empty."""
    if not num_records:
        partial.unlink()
        return None
    atomic.sync(partial)
    shard = manifest.Shard(name, num_records, partial.stat().st_size, manifest.sha256(partial))
    return dataclasses.asdict(shard)


def _segments(
    item: listing.Item,
    source: listing.Input,
    conversion: conversion_lib.Conversion,
    folder: str,
    account: account_lib.Account,
) -> Iterator[sound_records.Record]:
    """Yields the segments of one sound, once the whole of it has proved usable, and counts it."""
    # A NaN may come at the end of ten hours, when the first segments would long be written.
    with _Waiting(folder) as waiting:
        sums, counts = [], collections.Counter()
        digest = duplicates.Digest()
        with contextlib.ExitStack() as stack:
            sound = _open(source, item, stack)
            meter = conversion.meter(sound)
            blocks = conversion_lib.pcm16_blocks(sound, conversion, counts, meter)
            for segment in _cut(blocks, conversion.segment_length):
                sums.append(levels.Sums())
                sums[-1].add_record(segment, conversion.sample_rate)
                digest.add(segment, sums[-1])
                waiting.add(segment)
        whole = levels.whole([*sums, *meter.stretches]).figures()
        conversion.limits.check(whole)
        num_samples = waiting.num_samples
        kept = [reason for reason in refusals.KEEPABLE if counts.pop(f"kept_{reason}", 0)]
        account.kept.update(kept)
        # What is said in all of a sound is not what is said in a part of it.
        is_cut = num_samples > conversion.segment_length
        texts = tuple(
            text
            for text in sound.texts
            if not (is_cut or kept) or text.kind != sound_records.TRANSCRIPT
        )
        for index, segment in enumerate(waiting):
            offset = index * conversion.segment_length
            yield sound_records.Record(
                key=f"{item.key}#{index:05d}",
                waveform=segment,
                sample_rate=conversion.sample_rate,
                source=item.key,
                offset=offset,
                ends=not kept and offset + conversion.segment_length >= num_samples,
                texts=texts,
                labels=sound.labels,
                levels=_levels(sums, meter, index),
            )
        account.totals.update(counts)
        account.add_sound(
            item.key,
            sound.texts,
            labels=sound.labels,
            figures=whole,
            digest=digest.hexdigest(),
            num_samples=num_samples,
            is_cut=is_cut and not kept,
        )


class _Waiting(contextlib.ExitStack):
    """Segments of one sound that wait, in memory as far as they are few, in a file behind them."""

    def __init__(self, folder: str):
        """Files lie in `folder` and have no name."""
        super().__init__()
        self._folder, self._held, self._sizes, self._file = folder, [], [], None
        self.num_samples = 0

    def add(self, segment: np.ndarray) -> None:
        """Adds [samples], little-endian int16."""
        self.num_samples += segment.size
        if 2 * self.num_samples <= _HELD_BYTES:
            self._held.append(segment)
            return
        if self._file is None:
            self._file = self.enter_context(tempfile.TemporaryFile(dir=self._folder))
        self._file.write(segment)
        self._sizes.append(segment.nbytes)

    def __iter__(self) -> Iterator[np.ndarray]:
        yield from self._held
        if self._file is not None:
            self._file.seek(0)
            for num_bytes in self._sizes:
                yield np.frombuffer(self._file.read(num_bytes), "<i2")


def _cut(blocks: Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """Yields the samples of blocks, [samples] int16, in segments of `length` and what remains."""
    waiting, missing = [], length
    for block in blocks:
        block = block.astype("<i2", copy=False)
        while block.size >= missing:
            yield np.concatenate([*waiting, block[:missing]]) if waiting else block[:missing]
            waiting, block, missing = [], block[missing:], length
        if block.size:
            waiting.append(block)
            missing -= block.size
    if waiting:
        yield np.concatenate(waiting)


def _levels(sums: list[levels.Sums], meter: levels.Meter, index: int) -> dict[str, float]:
    """The figures of a record and of the stretch of the source that became it."""
    # Rounding of rates may leave one record more than stretches.
    stretch = meter.stretches[min(index, len(meter.stretches) - 1)]
    return levels.whole([sums[index], stretch]).figures()


def _open(
    source: listing.Input, item: listing.Item, stack: contextlib.ExitStack
) -> audio_files.Sound:
    """Opens a sound until `stack` closes; whatever goes wrong refuses this sound and no other."""
    try:
        return stack.enter_context(source.opened(item))
    except refusals.Refused:
        raise
    except Exception as error:
        detail = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise refusals.Refused("undecodable", detail) from error
