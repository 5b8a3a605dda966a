# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Times an autoencoder in all forms of an export beside codecs of transformers, on a CPU.

    python -m f3tok_jax.exporting.speed --config=configs/autoencoder.py:base --output=speed.json

All with random weights and in float32: JAX, PyTorch, ONNX Runtime and StableHLO, and DAC, EnCodec and
Mimi at 24 kHz. In every round each makes the same sound once, one after the other, so that what else
the machine does meets all of them; of the rounds the median counts, and the quartiles and
the best are said. It needs the extra onnx.

Exit codes: 0 finished, 1 wrong arguments, 4 a full disk; stderr says which.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
import os
import sys
import time
from typing import Any

from data_pipelines import command
from data_pipelines.records import atomic
from f3tok_jax.runs import results

_OTHERS = ("dac", "encodec", "mimi")


def measure(
    calls: dict[str, Callable[[], Any]], *, rounds: int, seconds: float
) -> list[results.CodecTiming]:
    """Times calls in turn; the first round, which compiles, does not count.

    Args:
        calls: by name; the first is what the others are compared with.
        rounds: that count.
        seconds: of sound that each makes.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    first = next(iter(times.values()))[1:]
    rows = []
    for name, found in times.items():
        ratios = [one / other for one, other in zip(found[1:], first, strict=True)]
        rows.append(
            results.CodecTiming(
                name=name,
                sound=seconds,
                seconds=_quartiles(found[1:]),
                best=min(found[1:]),
                times_the_first=_quartiles(ratios),
            )
        )
    return rows


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    import numpy as np

    return tuple(float(value) for value in np.percentile(values, (25, 50, 75)))


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = command.make_parser("python -m f3tok_jax.exporting.speed", __doc__)
    parser.add_config()
    add = functools.partial(parser.add_argument, type=command.at_least(1))
    add("--seconds", default=10, help="of sound, whole ones")
    add("--batch_size", default=1, help="sounds at a time")
    add("--rounds", default=5, help="that count")
    add("--step_rounds", default=100, help="the same of single steps of a stream")
    add("--threads", default=os.cpu_count(), help="of PyTorch and ONNX Runtime; JAX takes all")
    others = command.values(str)
    text = f"of {', '.join(_OTHERS)}, with commas between"
    parser.add_argument("--others", type=others, default=",".join(_OTHERS), help=text)
    parser.add_argument("--output", type=command.file, help="JSON file to write")
    return command.run(parser, _time, arguments)


def _time(given: argparse.Namespace) -> None:
    # Imported late: --help needs neither JAX nor PyTorch.
    from f3tok_jax.exporting import forms

    forms.find(["onnx"])
    if unknown := set(given.others) - set(_OTHERS):
        raise ValueError(f"--others must be of {', '.join(_OTHERS)}, got {', '.join(unknown)}")
    import torch

    from f3tok_jax.exporting import codecs
    from f3tok_jax.runs import config as config_lib

    torch.set_num_threads(given.threads)
    config = config_lib.read(given.config, given.overrides)
    with atomic.temporary_folder() as folder:
        autoencoder, params = _autoencoder(config)
        timed = codecs.ours(autoencoder, params, folder, given.threads)
        timed += codecs.of_transformers(given.others)
        tables = {}
        for title, rows in _tables(timed, given, autoencoder.sample_rate):
            _print(title, rows)
            tables[title] = rows
    if given.output is not None:
        found = results.CodecSpeed(config=given.config, threads=given.threads, tables=tables)
        results.write(given.output, found)


def _autoencoder(config: Any) -> tuple[Any, Any]:
    """The autoencoder of a config, in float32, and random parameters."""
    import jax
    import numpy as np

    from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder

    autoencoder = pretrained_autoencoder.make(config).clone(compute_dtype="float32")
    rng = np.random.default_rng(0)

    def draw(leaf):
        fan_in = max(1, leaf.size // leaf.shape[-1])
        return (rng.normal(size=leaf.shape) / np.sqrt(fan_in)).astype(np.float32)

    return autoencoder, jax.tree.map(draw, pretrained_autoencoder.abstract_params(autoencoder))


def _tables(
    timed: Sequence[Any], given: argparse.Namespace, sample_rate: int
) -> Iterator[tuple[str, list[results.CodecTiming]]]:
    """Titles and rows: whole sounds, and single steps of a stream, each way."""
    import numpy as np

    shape = given.batch_size, int(given.seconds * sample_rate)
    waveform = 0.1 * np.random.default_rng(0).normal(size=shape).astype(np.float32)
    whole = dict(rounds=given.rounds, seconds=given.batch_size * given.seconds)
    title = f"{given.batch_size} x {given.seconds} s"
    calls = {one.name: functools.partial(one.encode, waveform) for one in timed}
    yield f"encode, {title}", measure(calls, **whole)
    coded = {one.name: one.encode(waveform) for one in timed}
    calls = {one.name: functools.partial(one.decode, coded[one.name]) for one in timed}
    yield f"decode, {title}", measure(calls, **whole)
    lengths = {one.name: one.samples_per_step / sample_rate for one in timed}
    for task in ("encode_step", "decode_step"):
        calls = {one.name: getattr(one, task) for one in timed if getattr(one, task)}
        rows = measure(calls, rounds=given.step_rounds, seconds=0.0)
        yield task, [dataclasses.replace(row, sound=lengths[row.name]) for row in rows]


def _print(title: str, rows: Sequence[results.CodecTiming]) -> None:
    command.say(
        f"{title}: ms (quartiles; best), seconds of sound per second, times {rows[0].name} (quartiles)"
    )
    for row in rows:
        low, middle, high = (1000 * value for value in row.seconds)
        least, ratio, most = row.times_the_first
        command.say(
            f"  {row.name:16s} {middle:9.1f} ({low:.1f} to {high:.1f}; {1000 * row.best:.1f}) "
            f"{row.sound / row.seconds[1]:8.1f}  {ratio:.2f} ({least:.2f} to {most:.2f})"
        )


if __name__ == "__main__":
    sys.exit(main())
