# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Probes a run on labelled shards: what can be read off its features by simple classifiers.

    python -m f3tok_jax.probe --workdir=runs/representation --shards=DIR/train \
        --test_shards DIR/test --label=digit,speaker --output=probe.json

Rows of the table: log-mel spectra, MFCC, raw latents, and, of a run of the representation stage,
representations, each pooled over time as --pooling says; beside them what guessing would give, the
commonest class, and the same probe on labels in another order, which must be at chance. Columns: a
linear probe and nearest neighbours. The linear probe is logistic regression taken to its end, its L2
strength chosen on other groups, such as speakers, of what is learnt; --recipe=xares is that of
X-ARES. A probe that is not at its end is refused. Without --workdir spectra alone are probed.

Nothing that is tested is learnt: a source or a sound that is on both sides is an error. One value of
a label can be kept out of training, and tested alone, or every one in turn, for a mean and a spread
over them:

    ... --test_shards DIR/test --exclude=speaker=ada --only=speaker=ada
    ... --shards=DIR/train,DIR/test --leave_out=speaker

The output also holds a map, which the report draws: tested clips on the first two principal
components of each feature.

Exit codes: 0 finished, 1 wrong arguments, data or work folder, or a probe that is not at its end, 4 a
full disk; stderr says which.
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
    text = "run folder of an autoencoder or representation encoder; none: spectra alone"
    add("--workdir", default="", help=text)
    text = "labelled sets of sound or latents to learn from: DIR or DIR,DIR"
    add("--shards", required=True, help=text)
    add("--test_shards", nargs="+", default=[], help="sets to test on")
    options.add_options(parser)
    places.add_flag(parser.add_argument)
    return command.run(parser, _probe, arguments)


def _probe(given: argparse.Namespace) -> None:
    from f3tok_jax.probing import probe_table
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
    print(probe_table.format_table(results))
    print(given.output)


if __name__ == "__main__":
    sys.exit(main())
