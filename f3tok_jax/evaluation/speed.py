# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Times the generation of sound of several lengths.

    python -m f3tok_jax.evaluation.speed --workdir=runs/generation --output=benchmark.json

Every length is made twice, and the second time counts: the first compiles. Stops are ignored.
"""

import argparse
from collections.abc import Sequence
import pathlib
import sys
import time
from typing import Any

from f3tok_jax.inference import generate
from f3tok_jax.runs import results_file


def measure(
    speaker: generate.Speaker, request: generate.Request, *, seconds: float, batch_size: int
) -> dict[str, float]:
    """Seconds that so many seconds of latents take, until the first piece and in all."""
    num_patches = speaker.patches_of(seconds)
    options = dict(max_patches=num_patches, min_patches=num_patches)
    for _ in speaker.speak([request] * batch_size, **options):
        pass
    start = time.monotonic()
    pieces = speaker.speak([request] * batch_size, **options)
    next(pieces)
    first = time.monotonic() - start
    for _ in pieces:
        pass
    total = time.monotonic() - start
    return {
        "seconds": seconds,
        "num_patches": num_patches,
        "first_piece": first,
        "total": total,
        "per_second": total / (seconds * batch_size),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m f3tok_jax.evaluation.speed",
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--workdir", required=True, help="run folder of the generation stage")
    add("--text", default="seven three nine", help="what is said")
    add("--seconds", default="1,2,4,8,16", help="lengths, with commas between")
    add("--batch_size", type=int, default=1, help="texts at a time")
    add("--output", type=pathlib.Path, help="JSON file to write")
    given = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    try:
        lengths = [float(value) for value in given.seconds.split(",")]
        speaker = generate.Speaker.load(given.workdir)
        task = next(iter(speaker.text.weights))
        request = generate.Request(text=given.text, task=task)
        for seconds in lengths:
            rows.append(measure(speaker, request, seconds=seconds, batch_size=given.batch_size))
            print(
                f"{seconds:6g} s of sound: {rows[-1]['total']:.2f} s, first piece after "
                f"{rows[-1]['first_piece']:.2f} s, {rows[-1]['per_second']:.3f} s per second"
            )
    except (ValueError, OSError) as error:
        print(f"generation_benchmark: {error}", file=sys.stderr)
        return 1
    if given.output is not None:
        results_file.write(given.output, {"workdir": given.workdir, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
