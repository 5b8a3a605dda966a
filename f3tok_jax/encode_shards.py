# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Encodes shards of sound into shards of latents, once, so that later stages need not.

    python -m f3tok_jax.encode_shards --workdir=runs/autoencoder --shards=DIR --output=LATENTS

The new set has the same records in the same order with texts and labels, and the fingerprint of the
autoencoder's averaged weights: a stage refuses latents of another. A folder with the sets `train`
and `test` gives a folder with both. Killed, the same command continues; finished, it says so.

Exit codes: 0 finished, 1 wrong arguments, data or work folder, 4 a full disk, 42 told to leave
by SIGTERM or SIGHUP (the same command goes on), 130 Ctrl-C; stderr says which.
"""

import argparse
from collections.abc import Sequence
import functools
import sys

from data_pipelines import command


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = command.make_parser("python -m f3tok_jax.encode_shards", __doc__)
    add = functools.partial(parser.add_argument, type=command.path)
    add("--workdir", required=True, help="run folder of an autoencoder")
    add("--shards", required=True, help="shard set of sound, or a folder with train and test")
    add("--output", required=True, help="folder of the latents")
    add("--step", type=int, help="of the checkpoint; the newest whole one if absent")
    add("--batch_size", type=int, default=32, help="sounds encoded at a time")
    return command.run(parser, _encode, arguments, resumes=True)


def _encode(given: argparse.Namespace) -> None:
    from f3tok_jax.inference import latent_shards

    latent_shards.encode_shards(**vars(given), say=command.say)


if __name__ == "__main__":
    sys.exit(main())
