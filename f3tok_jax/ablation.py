# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Trains the representation stage in several ways, and probes what comes out.

    python -m f3tok_jax.ablation --config=configs/representation.py:tiny \
        --config.autoencoder.workdir=runs/autoencoder --config.language_model.folder=MODEL \
        --config.data.train=DIR/train --config.data.heldout=DIR/test --workdir=runs/ablation \
        --shards=DIR/train --test_shards=test=DIR/test --label=digit,speaker --seeds=0,1 \
        --output=runs/ablation/ablation.json

Arms are, by --arms, the stage with and without each of its losses ("losses"), or RQ-MTP alone with
each kind of target ("targets", which need no language model), single ones of these by name, or those
of the file of any sweep of this stage, such as configs/sweeps/rq_mtp.py:tiny.

Every arm and seed is an ordinary run of f3tok_jax.train in its folder below --workdir, with the same
data and steps, trained as f3tok_jax.sweep does: the same command goes on where it was stopped. More
arms, each a change of the config, come by

    ... --arm="eight layers: model.num_layers=8" --arm="two codebooks: rq.num_codebooks=2"

Exit codes: 0 finished, 1 wrong arguments, data or work folder (one sentence on stderr says which),
4 a full disk, others as f3tok_jax.train gave them.
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
    parser = command.make_parser("python -m f3tok_jax.ablation", __doc__)
    add = parser.add_argument
    parser.add_config()
    add("--workdir", required=True, type=command.path, help="folder of the runs' folders")
    text = "labelled sets that probes learn from"
    add("--shards", required=True, type=command.path, help=text)
    text = "NAME=DIR[,NAME=DIR] that they are tested on"
    add("--test_shards", required=True, type=command.path, help=text)
    add("--seeds", default="0", help="of the training, with commas")
    add(
        "--arms",
        default="losses",
        type=command.values(),
        help="losses, targets, names of arms, files",
    )
    text = "NAME: KEY=VALUE [KEY=VALUE], one more arm; repeatable"
    add("--arm", action="append", default=[], help=text)
    text = "NAME=DIR[,NAME=DIR] of speech to transcribe"
    add("--transcribe", type=command.path, default="", help=text)
    add("--num_transcripts", type=int, default=50, help="sentences of each of these at most")
    options.add_options(parser)
    places.add_flag(add)
    return command.run(parser, _ablate, arguments)


def _ablate(given: argparse.Namespace) -> None:
    from f3tok_jax.evaluation import transcription
    from f3tok_jax.probing import ablation as ablation_lib
    from f3tok_jax.probing import ablation_table
    from f3tok_jax.probing import arms
    from f3tok_jax.sweeping import finishing

    moved = dict(given.moved or ())
    runs = ablation_lib.plan(
        given.config,
        given.overrides,
        arms=(*arms.named(given.arms), *map(arms.parse, given.arm)),
        seeds=_parse_seeds(given.seeds),
        workdir=given.workdir,
        moved=moved,
    )
    try:
        results = ablation_lib.ablate(
            runs,
            given.shards,
            _parse_sets(given.test_shards, "--test_shards"),
            given.output,
            options=options.options_of(given),
            measure_transcripts=functools.partial(
                transcription.evaluate,
                moved=moved,
                num_examples=given.num_transcripts,
                say=command.say,
            ),
            speech=_parse_sets(given.transcribe, "--transcribe") if given.transcribe else {},
            moved=moved,
            say=command.say,
        )
    except finishing.TrainingStopped as error:
        raise command.Refused(error, max(error.code, command.EXIT_REFUSED)) from error
    print(ablation_table.format_table(results))
    print(given.output)


def _parse_seeds(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"--seeds must be whole numbers with commas between, got {text!r}")
    return [int(part) for part in parts]


def _parse_sets(text: str, flag: str) -> dict[str, str]:
    """Reads "NAME=DIR,NAME=DIR"."""
    sets: dict[str, str] = {}
    for part in text.split(","):
        name, equals, folder = part.partition("=")
        if not name or not equals or not folder or name in sets:
            raise ValueError(
                f"{flag} must be NAME=DIR[,NAME=DIR] with different names, got {text!r}"
            )
        sets[name] = folder
    return sets


if __name__ == "__main__":
    sys.exit(main())
