# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Trains the representation stage with and without each of its losses, and probes what comes out.

    python -m f3tok_jax.ablation --config=configs/representation.py:tiny \
        --config.autoencoder.workdir=runs/autoencoder --config.language_model.folder=MODEL \
        --config.data.train=DIR/train --config.data.heldout=DIR/test --workdir=runs/ablation \
        --shards=DIR/train --test_shards=test=DIR/test --label=digit,speaker --seeds=0,1 \
        --output=runs/ablation/ablation.json

Every arm and seed is an ordinary run of f3tok_jax.train in its folder below --workdir, with the same
data and steps. The same command goes on where it was stopped. More arms, each a change of the full
one, come by

    ... --arm="eight layers: model.num_layers=8" --arm="two codebooks: rq.num_codebooks=2"

Exit codes: 0 finished, 1 wrong arguments, data or work folder (one sentence on stderr says which),
others as f3tok_jax.train gave them.
"""

import argparse
from collections.abc import Sequence
import sys

from f3tok_jax.evaluation import transcription
from f3tok_jax.probing import ablation as ablation_lib
from f3tok_jax.probing import ablation_runs
from f3tok_jax.probing import options
from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import config as config_lib


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    overrides, rest = config_lib.split_arguments(arguments)
    given = _parser().parse_args(rest)
    try:
        runs = ablation_runs.plan(
            given.config,
            overrides,
            arms=(*ablation_runs.ARMS, *map(ablation_runs.parse_arm, given.arm)),
            seeds=_parse_seeds(given.seeds),
            workdir=given.workdir,
        )
        results = ablation_lib.ablate(
            runs,
            given.shards,
            _parse_sets(given.test_shards, "--test_shards"),
            given.output,
            measure_transcripts=transcription.measure,
            speech=_parse_sets(given.transcribe, "--transcribe") if given.transcribe else {},
            num_transcripts=given.num_transcripts,
            **options.options_of(given),
        )
    except ablation_runs.TrainingStopped as error:
        print(f"ablation: {error}", file=sys.stderr)
        return error.code if error.code > 0 else 1
    except (ValueError, OSError, checkpoint.CheckpointError) as error:
        print(f"ablation: {error}", file=sys.stderr)
        return 1
    print(ablation_lib.format_table(results))
    print(given.output)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m f3tok_jax.ablation",
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", required=True, help="FILE.py:PRESET; change values by --config.KEY=VALUE")
    add("--workdir", required=True, help="folder of the runs' folders")
    add("--shards", required=True, help="labelled sets that probes learn from")
    add("--test_shards", required=True, help="NAME=DIR[,NAME=DIR] that they are tested on")
    add("--seeds", default="0", help="of the training, with commas")
    add("--arm", action="append", default=[], help="NAME: KEY=VALUE [KEY=VALUE], one more arm")
    add("--transcribe", default="", help="NAME=DIR[,NAME=DIR] of speech to transcribe")
    add("--num_transcripts", type=int, default=50, help="sentences of each of these at most")
    options.add_options(parser)
    return parser


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
