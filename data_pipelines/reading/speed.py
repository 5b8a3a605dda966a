# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""How fast a shard set is read into batches, beside its ceiling."""

import time

from data_pipelines.reading import pipeline


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
