# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Probes a run on labelled shards: what can be read off its features by simple classifiers.

    python -m f3tok_jax.probe --workdir=runs/representation --shards=DIR/train \
        --test_shards DIR/test --label=digit,speaker --output=probe.json

Rows of the table: statistics of a log-mel spectrum, raw latents, and, of a run of the representation
stage, representations. Columns: a linear probe, mean and spread over seeds, and nearest neighbours.
One label value can be kept out of training, and tested alone:

    ... --test_shards DIR/test --exclude=speaker=ada --only=speaker=ada

Exit codes: 0 finished, 1 wrong arguments, data or work folder; one sentence on stderr says which.
"""

import argparse
from collections.abc import Sequence
import sys

from f3tok_jax.probing import options
from f3tok_jax.probing import probes
from f3tok_jax.runs import checkpoint


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    given = _parser().parse_args(arguments)
    try:
        results = probes.probe(
            given.workdir,
            given.shards,
            given.output,
            test_shards=given.test_shards,
            **options.options_of(given),
        )
    except (ValueError, OSError, checkpoint.CheckpointError) as error:
        print(f"probe: {error}", file=sys.stderr)
        return 1
    print(probes.format_table(results))
    print(given.output)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m f3tok_jax.probe",
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--workdir", required=True, help="run folder of an autoencoder or representation encoder")
    add(
        "--shards",
        required=True,
        help="labelled sets of sound or latents to learn from: DIR or DIR,DIR",
    )
    add("--test_shards", nargs="+", default=[], help="sets to test on")
    options.add_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
