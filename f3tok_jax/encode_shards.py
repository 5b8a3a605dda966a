# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Encodes shards of sound into shards of latents, once, so that later stages need not.

    python -m f3tok_jax.encode_shards --workdir=runs/autoencoder --shards=DIR --output=LATENTS

The new set has the same records in the same order with texts and labels, and the fingerprint of the
autoencoder's averaged weights: a stage refuses latents of another. A folder with the sets `train`
and `test` gives a folder with both. Killed, the same command continues; finished, it says so.

Exit codes: 0 finished, 1 wrong arguments, data or work folder; one sentence on stderr says which.
"""

import argparse
from collections.abc import Callable, Sequence
import functools
import pathlib
import sys
from typing import Any

import jax
import numpy as np

from data_pipelines import latent_writer
from data_pipelines import manifest
from data_pipelines import sources
from f3tok_jax import autoencoder as autoencoder_lib
from f3tok_jax import checkpoint
from f3tok_jax import fingerprint
from f3tok_jax import padded_batches
from f3tok_jax import pretrained
from f3tok_jax import sharding


class Encoder:
    """An autoencoder's encoder for lists of sounds, in batches of a few fixed shapes.

    Batches are spread over this host's devices.
    """

    def __init__(
        self,
        autoencoder: autoencoder_lib.Autoencoder,
        params: Any,
        *,
        batch_size: int,
        max_samples: int,
    ):
        """Compiles nothing yet.

        Args:
            autoencoder: module.
            params: of it.
            batch_size: sounds at a time; rounded up to a multiple of the devices.
            max_samples: of a sound.
        """
        self._hop = autoencoder.samples_per_latent
        self._mesh = sharding.make_mesh(dict(replica=1, fsdp=-1, tensor=1), jax.local_devices())
        devices = sharding.num_data_shards(self._mesh)
        # A shard's few sounds of one length would leave most of a whole batch empty.
        self._batch_sizes = [
            -(-rows // devices) * devices for rows in (-(-batch_size // 4), batch_size)
        ]
        self._lengths = padded_batches.lengths(max_samples, multiple=self._hop)
        self._params = jax.device_put(params, sharding.replicated(self._mesh))
        self._encode = jax.jit(
            lambda params, waveform: autoencoder.apply(
                {"params": params}, waveform, method="waveform_to_latents"
            ),
            out_shardings=sharding.batch_sharding(self._mesh),
        )

    def __call__(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Latents [ceil(n / samples_per_latent), latent_dim] of each waveform [n], in order."""

        def encode(values: np.ndarray, mask: np.ndarray) -> jax.Array:
            del mask  # silence follows
            placed = sharding.host_to_global({"waveform": values}, self._mesh)
            return self._encode(self._params, placed["waveform"])

        return padded_batches.apply(
            encode,
            waveforms,
            lengths=self._lengths,
            batch_sizes=self._batch_sizes,
            hop=self._hop,
        )


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
        shards: folder of the sound.
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
    autoencoder, params, config, step = pretrained.restore_autoencoder(workdir, step, say=say)
    latents = manifest.Latents(
        autoencoder=fingerprint.autoencoder_fingerprint(params),
        latent_dim=config.model.latent_dim,
        samples_per_latent=autoencoder.samples_per_latent,
        sound="",
    )
    say(f"autoencoder {latents.autoencoder} of {workdir}, step {step}")
    sets = {
        name: sources.ShardSet(
            pathlib.Path(shards) / name, sample_rate=config.model.sample_rate, checksums=True
        )
        for name in _sets(pathlib.Path(shards))
    }
    max_samples = max(sound.manifest.segment_length for sound in sets.values())
    encode = Encoder(autoencoder, params, batch_size=batch_size, max_samples=max_samples)
    written = []
    for name, sound in sets.items():
        folder = pathlib.Path(output) / name
        written.append(latent_writer.build(sound, folder, encode, latents=latents, say=say))
        say(f"{folder}: {written[-1].num_records} records, {written[-1].seconds / 3600:.3f} h")
    return written


def _sets(shards: pathlib.Path) -> Sequence[str]:
    """Names of the sets in a folder; "" if it is one itself."""
    parts = [name for name in ("train", "test") if (shards / name / manifest.FILE_NAME).is_file()]
    return parts if parts and not (shards / manifest.FILE_NAME).is_file() else [""]


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m f3tok_jax.encode_shards",
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--workdir", required=True, help="run folder of an autoencoder")
    add("--shards", required=True, help="shard set of sound, or a folder with train and test")
    add("--output", required=True, help="folder of the latents")
    add("--step", type=int, help="of the checkpoint; the newest if absent")
    add("--batch_size", type=int, default=32, help="sounds encoded at a time")
    given = parser.parse_args(arguments)
    try:
        encode_shards(
            given.workdir,
            given.shards,
            given.output,
            step=given.step,
            batch_size=given.batch_size,
            say=functools.partial(print, flush=True),
        )
    except (ValueError, OSError, checkpoint.CheckpointError) as error:
        print(f"encode_shards: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
