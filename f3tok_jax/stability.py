# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Measures how steady the labels are that RQ-MTP would ask for, on trained autoencoders.

    python -m f3tok_jax.stability --config=configs/representation.py:tiny --workdir runs/autoencoder \
        --shards=DIR/train --test_shards=DIR/test --output=runs/autoencoder/stability.json

Columns of the table: the share of labels that the same sound keeps when it is heard 0.5, 1 and 2 ms
later, 6 dB louder and softer, and beside white noise at -50 and -40 dB of full scale; the share that
labels would keep by chance; and the perplexity of the codes as a share of their number. Rows: the
kinds of target, as in f3tok_jax.ablation --arms=targets. Codebooks are those of the recipe. Nothing
is trained.

Exit codes: 0 finished, 1 wrong arguments, data or work folder, 4 a full disk; stderr says which.
"""

import argparse
from collections.abc import Sequence
import sys

from data_pipelines import command
from f3tok_jax.runs import places


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = command.make_parser("python -m f3tok_jax.stability", __doc__)
    add = parser.add_argument
    parser.add_config()
    text = "run folders of autoencoders"
    add("--workdir", required=True, nargs="+", type=command.path, help=text)
    text = "set of sound whose statistics normalise"
    add("--shards", required=True, type=command.path, help=text)
    text = "set of sound whose labels are compared"
    add("--test_shards", required=True, type=command.path, help=text)
    add("--output", required=True, type=command.file, help="JSON file to write")
    text = "targets, or names of kinds, with commas"
    add("--arms", default="targets", type=command.values(), help=text)
    text = "NAME: KEY=VALUE [KEY=VALUE], one more kind; repeatable"
    add("--arm", action="append", default=[], help=text)
    text = "of the codebooks, with commas"
    add("--seeds", default="0,1,2", type=command.values(int), help=text)
    text = "of each set, evenly spaced; 0 for all"
    add("--num_sounds", type=int, default=500, help=text)
    add("--batch_size", type=int, default=16, help="sounds at a time")
    places.add_flag(add)
    return command.run(parser, _measure, arguments)


def _measure(given: argparse.Namespace) -> None:
    from f3tok_jax.probing import arms
    from f3tok_jax.probing import stability

    results = stability.measure(
        given.workdir,
        given.config,
        given.overrides,
        given.shards,
        given.test_shards,
        given.output,
        options=stability.Options(
            arms=(*arms.named(given.arms), *map(arms.parse, given.arm)),
            seeds=given.seeds,
            num_sounds=given.num_sounds,
            batch_size=given.batch_size,
        ),
        moved=dict(given.moved or ()),
        say=command.say,
    )
    print(stability.format_table(results))
    print(given.output)


if __name__ == "__main__":
    sys.exit(main())
