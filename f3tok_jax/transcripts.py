# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Transcribes labelled shards by a run of the representation stage, and counts the errors.

    python -m f3tok_jax.transcripts --workdir=runs/representation --shards=DIR/test \
        --output=runs/representation/transcripts.json

The frozen language model of the run writes down what it hears, by greedy decoding; edits are divided
by the characters, and by the words, of all transcripts together.

Exit codes: 0 finished, 1 wrong arguments, data or work folder; one sentence on stderr says which.
"""

import argparse
from collections.abc import Sequence
import functools
import pathlib
import sys

from f3tok_jax.evaluation import transcription
from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import results as results_lib
from f3tok_jax.runs import results_file


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m f3tok_jax.transcripts",
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--workdir", required=True, help="run folder of the representation stage")
    add("--shards", required=True, help="set of speech with its texts, of sound or latents")
    add("--output", required=True, type=pathlib.Path, help="JSON file to write")
    add("--num_examples", type=int, default=100, help="sentences at most")
    given = parser.parse_args(arguments)
    say = functools.partial(print, flush=True)
    try:
        found = transcription.measure(
            given.workdir, given.shards, num_examples=given.num_examples, say=say
        )
        results = {"format": results_lib.Transcripts.FORMAT, "shards": given.shards, **found}
        results_file.write(given.output, results)
    except (ValueError, OSError, checkpoint.CheckpointError) as error:
        print(f"transcripts: {error}", file=sys.stderr)
        return 1
    for example in found["examples"]:
        print(f"  {example['reference']}\n> {example['hypothesis']}")
    print(
        f"{found['num_examples']} sentences: character error rate {found['characters']:.3f}, "
        f"word error rate {found['words']:.3f}\n{given.output}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
