# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Shards of sound into shards of latents."""

from collections.abc import Callable
import functools
import pathlib

from data_pipelines.building import latent_writer
from data_pipelines.reading import sources
from data_pipelines.reading import staged
from data_pipelines.records import manifest
from f3tok_jax.inference import codec as codec_lib
from f3tok_jax.runs import lineage


def encode_shards(
    workdir: str,
    shards: str | pathlib.Path,
    output: str | pathlib.Path,
    *,
    step: int | None = None,
    batch_size: int = 32,
    say: Callable[[str], None] = print,
) -> list[manifest.Manifest]:
    """Encodes a set, or the sets `train` and `test` in a folder, with the autoencoder of a run.

    Args:
        workdir: run folder of the autoencoder stage.
        shards: folder of the sound, or its URL.
        output: folder of the latents.
        step: of the checkpoint; the newest whole one if None.
        batch_size: sounds at a time.
        say: where messages go.

    Returns:
        The manifests of what was written.

    Raises:
        ValueError: if the run, the shards and the output do not fit together.
        checkpoint.CheckpointError: where no checkpoint asked for is whole.
    """
    if batch_size < 1:
        raise ValueError(f"--batch_size must be at least 1, got {batch_size}")
    run = lineage.Lineage.read(workdir, step, stage="autoencoder")
    codec = codec_lib.Codec.load(run, say=say)
    latents = manifest.Latents(
        autoencoder=codec.fingerprint,
        latent_dim=run.sound.latent_dim,
        samples_per_latent=run.sound.samples_per_latent,
        sound="",
    )
    run.at(codec.step).pin(str(output), say)  # No other decodes them.
    say(f"autoencoder {latents.autoencoder} of {workdir}, step {codec.step}")
    sets = {
        name: sources.ShardSet(folder, sample_rate=codec.sample_rate, checksums=True)
        for name, folder in staged.sets(shards).items()
    }
    longest = max(sound.manifest.segment_length for sound in sets.values())
    encode = functools.partial(codec.encode_with_gains, batch_size=batch_size, expected=longest)
    written = []
    for name, sound in sets.items():
        folder = pathlib.Path(output) / name
        written.append(latent_writer.build(sound, folder, encode, latents=latents, say=say))
        say(f"{folder}: {written[-1].num_records} records, {written[-1].seconds / 3600:.3f} h")
    return written
