# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Measures how fast a shard set is read into batches, beside its ceiling: decoding alone.

    python -m data_pipelines.benchmark --shards=DIR --output=benchmark.json

Exit codes: 0 finished, 1 wrong arguments or shards; one sentence on stderr says which.
"""

import argparse
from collections.abc import Sequence
import json
import sys
import time
from typing import Any

from data_pipelines import command


def measure(loader: Any, *, num_steps: int, num_rounds: int = 3) -> dict[str, float]:
    """Measures how fast batches are made, beside the ceiling: decoding the same records alone.

    Speeds are per second of processor time, summed over threads: per core, and little moved by what
    else the machine does. Of several rounds in turn the fastest counts. The ceiling decodes whole
    records, with keys and labels; batches need the samples only.

    Args:
        loader: a pipeline.Pipeline, of a single host.
        num_steps: batches per round.
        num_rounds: of each kind.

    Returns:
        Valid seconds of sound in the batches per core-second: "ceiling", "batches" made in turn,
        "prefetched" by background threads; the last two as shares of the ceiling; and
        "prefetched_wall", valid seconds per second on the wall.
    """
    if "waveform" not in loader.batch_spec:
        raise ValueError("the benchmark counts seconds of sound: give shards of sound, not latents")
    spec = loader.batch_spec["waveform"][0]
    valid = sum(int(loader.local_batch(step)["mask"].sum()) for step in range(num_steps))
    audio_seconds = valid / loader.sample_rate

    def decode_records() -> None:
        for step in range(num_steps):
            for source, index in loader.places(step):
                source[index]

    def make_batches() -> None:
        for step in range(num_steps):
            loader.local_batch(step)

    def prefetch_batches() -> None:
        for _ in loader.iterate(0, num_steps):
            pass

    works = {"ceiling": decode_records, "batches": make_batches, "prefetched": prefetch_batches}
    core, wall = dict.fromkeys(works, float("inf")), dict.fromkeys(works, float("inf"))
    for _ in range(num_rounds):
        for name, work in works.items():
            core_start, wall_start = time.process_time(), time.perf_counter()
            work()
            core[name] = min(core[name], time.process_time() - core_start)
            wall[name] = min(wall[name], time.perf_counter() - wall_start)
    return {
        **{name: audio_seconds / core[name] for name in works},
        "batches_share": core["ceiling"] / core["batches"],
        "prefetched_share": core["ceiling"] / core["prefetched"],
        "prefetched_wall": audio_seconds / wall["prefetched"],
        "batch_size": spec[0],
        "crop_seconds": spec[1] / loader.sample_rate,
        "num_steps": num_steps,
    }


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
    from data_pipelines.reading import pipeline
    from data_pipelines.records import atomic
    from data_pipelines.records import manifest

    mixture = mixtures.parse(given.shards)
    sample_rate = given.sample_rate or manifest.read(mixture[0][0]).sample_rate
    loader = pipeline.Pipeline(
        mixture,
        pipeline.Options(batch_size=given.batch_size, num_threads=given.num_threads),
        sample_rate=sample_rate,
        crop_length=round(given.crop_seconds * sample_rate),
        gain_db=(-6.0, 6.0),
    )
    figures = measure(loader, num_steps=given.num_steps)
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
