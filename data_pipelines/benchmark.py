# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Program: how fast a shard set is read into batches, beside its ceiling.

python -m data_pipelines.benchmark --shards=DIR [--output=benchmark.json]
"""

from collections.abc import Sequence
import json
import pathlib
import time

from absl import app
from absl import flags

from data_pipelines.reading import mixture as mixtures
from data_pipelines.reading import pipeline
from data_pipelines.records import atomic
from data_pipelines.records import manifest


def measure(loader: pipeline.Pipeline, *, num_steps: int, num_rounds: int = 3) -> dict[str, float]:
    """Measures how fast batches are made, beside the ceiling: decoding the same records alone.

    Speeds are per second of processor time, summed over threads: per core, and little moved by what
    else the machine does. Of several rounds in turn the fastest counts. The ceiling decodes whole
    records, with keys and labels; batches need the samples only.

    Args:
        loader: what to measure; of a single host.
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


def _define_flags() -> None:
    """Defines the flags of this program; on import they would collide with those of others."""
    flags.DEFINE_string("shards", None, "Shard folder, or DIR=weight,DIR=weight.", required=True)
    flags.DEFINE_string("output", "", "File for the figures, JSON.")
    flags.DEFINE_integer("sample_rate", 0, "Hz; 0 for that of the first folder.", lower_bound=0)
    flags.DEFINE_integer("batch_size", 64, "Examples per batch.", lower_bound=1)
    flags.DEFINE_float("crop_seconds", 1.28, "Length of an example, s.", lower_bound=0.001)
    flags.DEFINE_integer("num_steps", 500, "Batches per round.", lower_bound=1)
    flags.DEFINE_integer("num_threads", 1, "That prepare batches.", lower_bound=0)


def main(argv: Sequence[str]) -> None:
    """Prints the benchmark of a shard set."""
    values = flags.FLAGS
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    try:
        mixture = mixtures.parse(values.shards)
        sample_rate = values.sample_rate or manifest.read(mixture[0][0]).sample_rate
        loader = pipeline.Pipeline(
            mixture,
            pipeline.Options(batch_size=values.batch_size, num_threads=values.num_threads),
            sample_rate=sample_rate,
            crop_length=round(values.crop_seconds * sample_rate),
            gain_db=(-6.0, 6.0),
        )
        figures = measure(loader, num_steps=values.num_steps)
    except ValueError as error:
        raise SystemExit(f"benchmark: {error}") from None
    print("valid seconds of sound per second of one core:")
    print(f"  ceiling, the same records decoded and nothing else  {figures['ceiling']:10.0f}")
    for name, what in (
        ("batches", "batches, one after another"),
        ("prefetched", f"batches, {values.num_threads} background threads"),
    ):
        print(f"  {what:50}  {figures[name]:10.0f}  {figures[name + '_share']:.2f} of the ceiling")
    print(f"valid seconds per second on the wall, prefetched: {figures['prefetched_wall']:.0f}")
    if values.output:
        atomic.write_text(
            pathlib.Path(values.output), json.dumps(figures | {"shards": values.shards}) + "\n"
        )


if __name__ == "__main__":
    _define_flags()
    app.run(main)
