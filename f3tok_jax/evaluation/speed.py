# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Times the generation of sound of several lengths.

    python -m f3tok_jax.evaluation.speed --workdir=runs/generation --output=benchmark.json

Every length is made twice, and the second time counts: the first compiles. Stops are ignored.

Exit codes: 0 finished, 1 wrong arguments or work folder, 4 a full disk; stderr says which.
"""

import argparse
from collections.abc import Sequence
import sys
import time
from typing import Any

from data_pipelines import command
from f3tok_jax.runs import places
from f3tok_jax.runs import results


def measure(generator: Any, request: Any, *, seconds: float, batch_size: int) -> results.Timing:
    """How long so many seconds of latents take.

    Args:
        generator: a generate.TextToSound.
        request: a generate.Request.
        seconds: of sound.
        batch_size: requests at a time.
    """
    num_patches = generator.patches_of(seconds)
    options = dict(max_patches=num_patches, min_patches=num_patches)
    for _ in generator.pieces([request] * batch_size, **options):
        pass
    start = time.monotonic()
    pieces = generator.pieces([request] * batch_size, **options)
    next(pieces)
    first = time.monotonic() - start
    for _ in pieces:
        pass
    total = time.monotonic() - start
    return results.Timing(
        seconds=seconds,
        num_patches=num_patches,
        first_piece=first,
        total=total,
        per_second=total / (seconds * batch_size),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = command.make_parser("python -m f3tok_jax.evaluation.speed", __doc__)
    add = parser.add_argument
    add("--workdir", required=True, type=command.path, help="run folder of the generation stage")
    add("--text", default="seven three nine", help="what is said")
    text = "lengths, with commas between"
    add("--seconds", type=command.values(float), default="1,2,4,8,16", help=text)
    add("--batch_size", type=int, default=1, help="texts at a time")
    add("--output", type=command.file, help="JSON file to write")
    places.add_flag(add)
    return command.run(parser, _time, arguments)


def _time(given: argparse.Namespace) -> None:
    # Imported late: --help needs no JAX.
    from f3tok_jax.inference import generate
    from f3tok_jax.inference import tokenizer

    rows = []
    moved = dict(given.moved or ())
    generator = tokenizer.F3Tokenizer.from_pretrained(given.workdir, moved=moved).text_to_sound
    task = next(iter(generator.text.weights))
    request = generate.Request(text=given.text, task=task)
    for seconds in given.seconds:
        found = measure(generator, request, seconds=seconds, batch_size=given.batch_size)
        print(
            f"{seconds:6g} s of sound: {found.total:.2f} s, first piece after "
            f"{found.first_piece:.2f} s, {found.per_second:.3f} s per second"
        )
        rows.append(found)
    if given.output is not None:
        results.write(given.output, results.Speed(workdir=given.workdir, rows=rows))


if __name__ == "__main__":
    sys.exit(main())
