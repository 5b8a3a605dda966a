# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Probes a run on labelled shards: what can be read off its features by simple classifiers.

    python -m f3tok_jax.probe --workdir=runs/representation --shards=DIR/train \
        --test_shards DIR/test --label=digit,speaker --output=probe.json

Rows of the table: statistics of a log-mel spectrum, raw latents, and, of a run of the representation
stage, representations. Columns: a linear probe, mean and spread over seeds, and nearest neighbours.
The output also holds a map, which the report draws: tested clips on the first two principal
components of each feature.
One label value can be kept out of training, and tested alone:

    ... --test_shards DIR/test --exclude=speaker=ada --only=speaker=ada

Exit codes: 0 finished, 1 wrong arguments, data or work folder, 4 a full disk; stderr says which.
"""

import argparse
from collections.abc import Sequence
import functools
import sys

from data_pipelines import command
from f3tok_jax.probing import options
from f3tok_jax.runs import places


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = command.make_parser("python -m f3tok_jax.probe", __doc__)
    add = functools.partial(parser.add_argument, type=command.path)
    add("--workdir", required=True, help="run folder of an autoencoder or representation encoder")
    text = "labelled sets of sound or latents to learn from: DIR or DIR,DIR"
    add("--shards", required=True, help=text)
    add("--test_shards", nargs="+", default=[], help="sets to test on")
    options.add_options(parser)
    places.add_flag(parser.add_argument)
    return command.run(parser, _probe, arguments)


def _probe(given: argparse.Namespace) -> None:
    from f3tok_jax.probing import probes

    results = probes.probe(
        given.workdir,
        given.shards,
        given.output,
        test_shards=given.test_shards,
        moved=dict(given.moved or ()),
        options=options.options_of(given),
        say=command.say,
    )
    print(probes.format_table(results))
    print(given.output)


if __name__ == "__main__":
    sys.exit(main())
