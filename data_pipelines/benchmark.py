# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Measures how fast a shard set is read into batches, beside its ceiling: decoding alone.

    python -m data_pipelines.benchmark --shards=DIR --output=benchmark.json

Exit codes: 0 finished, 1 wrong arguments or shards, 4 a full disk; stderr says which.
"""

import argparse
from collections.abc import Sequence
import json
import sys

from data_pipelines import command


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = command.make_parser("python -m data_pipelines.benchmark", __doc__)
    add = parser.add_argument
    text = "shard folder, or DIR=weight,DIR=weight"
    add("--shards", required=True, type=command.path, help=text)
    add("--output", type=command.file, help="JSON file to write")
    text = "Hz; 0 for that of the first folder"
    add("--sample_rate", type=command.at_least(0), default=0, help=text)
    add("--batch_size", type=command.at_least(1), default=64, help="examples per batch")
    seconds = command.at_least(0.001, float)
    add("--crop_seconds", type=seconds, default=1.28, help="length of an example, s")
    add("--num_steps", type=command.at_least(1), default=500, help="batches per round")
    add("--num_threads", type=command.at_least(0), default=1, help="that prepare batches")
    return command.run(parser, _measure, arguments)


def _measure(given: argparse.Namespace) -> None:
    from data_pipelines.reading import mixture as mixtures
    from data_pipelines.reading import mixture_pipeline
    from data_pipelines.reading import pipeline
    from data_pipelines.reading import sources
    from data_pipelines.reading import speed
    from data_pipelines.records import atomic

    mixture = mixtures.parse(given.shards)
    first = mixture[0][0]
    sample_rate = given.sample_rate or sources.ShardSet(first).manifest.sample_rate
    loader = pipeline.Pipeline(
        mixture,
        mixture_pipeline.Options(batch_size=given.batch_size, num_threads=given.num_threads),
        sample_rate=sample_rate,
        crop_length=round(given.crop_seconds * sample_rate),
        gain_db=(-6.0, 6.0),
    )
    figures = speed.measure(loader, num_steps=given.num_steps)
    print("valid seconds of sound per second of one core:")
    print(f"  ceiling, the same records decoded and nothing else  {figures['ceiling']:10.0f}")
    for name, what in (
        ("batches", "batches, one after another"),
        ("prefetched", f"batches, {given.num_threads} background threads"),
    ):
        print(f"  {what:50}  {figures[name]:10.0f}  {figures[name + '_share']:.2f} of the ceiling")
    print(f"valid seconds per second on the wall, prefetched: {figures['prefetched_wall']:.0f}")
    if given.output:
        atomic.write_text(given.output, json.dumps(figures | {"shards": given.shards}) + "\n")


if __name__ == "__main__":
    sys.exit(main())
