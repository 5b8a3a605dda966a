# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Writes a set of latents from a set of sound: the same records in the same order, encoded.

The order is what makes training from either see the same examples. As with builds of sound, a
killed one leaves no manifest, and the same call then continues it shard by shard.
"""

from collections.abc import Callable, Sequence
import dataclasses
import os
import pathlib
import time

from array_record.python import array_record_module
import numpy as np

from data_pipelines.building import plan as build_plan
from data_pipelines.building import shard_writer
from data_pipelines.building import staging
from data_pipelines.reading import sources
from data_pipelines.records import atomic
from data_pipelines.records import latents as latent_records
from data_pipelines.records import manifest
from data_pipelines.records import pcm16

# Sounds [n], float32 in [-1, 1] -> the latents of each, [ceil(n / samples_per_latent), dim], and the
# gains by which they were multiplied before.
Encode = Callable[[Sequence[np.ndarray]], tuple[Sequence[np.ndarray], Sequence[float]]]


def build(
    sound: sources.ShardSet,
    output: str | os.PathLike,
    encode: Encode,
    *,
    latents: manifest.Latents,
    say: Callable[[str], None] = print,
) -> manifest.Manifest:
    """Encodes every record of a set.

    Args:
        sound: what to encode.
        output: folder of the new set.
        encode: called with all sounds of a shard.
        latents: what goes into the manifest; `sound` is filled in.
        say: receives lines of progress.

    Raises:
        ValueError: if the output holds something else, or a record cannot be read: a gap would
            shift all records behind it.
    """
    output = pathlib.Path(output)
    latents = dataclasses.replace(latents, sound=sound.fingerprint)
    plan = _plan(sound, latents)
    manifests = staging.finished(output, plan, parts=plan.parts)
    if manifests:
        say(f"{output} is already encoded: {manifests[''].num_records} records")
        return manifests[""]
    with staging.Staging(output, plan) as stage:
        shards, start, started = [], 0, time.monotonic()
        for task, of_sound in zip(plan.tasks, sound.manifest.shards):
            result = stage.result(task)
            if result is None:
                indices = range(start, start + of_sound.num_records)
                partial = _write_shard(sound, indices, encode, stage.folder, task.name)
                shard = shard_writer.whole_shard(task.shard_name, partial, len(indices))
                result = {"shard": shard}
                stage.keep(task, result, partial.name)
            shards.append(manifest.Shard(**result["shard"]))
            start += of_sound.num_records
            seconds = time.monotonic() - started
            say(f"encoded {start} of {len(sound)} records, {seconds:.0f} s")
        content = dataclasses.replace(
            sound.manifest, settings=plan.settings, shards=tuple(shards), latents=latents
        )
        atomic.write_text(output / manifest.REFUSALS_NAME, "")
        manifest.write(content, output)
        stage.remove()
    return content


def _plan(sound: sources.ShardSet, latents: manifest.Latents) -> build_plan.Plan:
    """A build with one task per shard of the sound, for `staging`."""
    return build_plan.Plan(
        settings={"source": "latents", **dataclasses.asdict(latents)},
        sources=sound.manifest.sources,
        skipped=sound.manifest.skipped,
        parts={"": len(sound)},
        tasks=tuple(build_plan.Task("", shard.name, ()) for shard in sound.manifest.shards),
    )


@atomic.disk_errors(RuntimeError)
def _write_shard(
    sound: sources.ShardSet, indices: range, encode: Encode, folder: pathlib.Path, name: str
) -> pathlib.Path:
    """Writes one shard under a temporary name."""
    partial = folder / f"{name}.{os.getpid()}.partial"
    found = [sound[index] for index in indices]
    waveforms = [pcm16.to_float(record.waveform) for record in found]
    writer = array_record_module.ArrayRecordWriter(
        os.fsencode(partial), shard_writer.WRITER_OPTIONS
    )
    for record, latents, gain in zip(found, *encode(waveforms), strict=True):
        # Of version 1, the set knows more than the record.
        record = dataclasses.replace(record, ends=sound.ends(record))
        made = latent_records.from_sound(record, latents, gain=gain)
        writer.write(latent_records.encode(made))
    writer.close()
    return partial
