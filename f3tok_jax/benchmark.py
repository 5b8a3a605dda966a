# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Measures how fast things are on this machine, each beside what it is compared with.

    python -m f3tok_jax.benchmark codec --config=configs/autoencoder.py:base --output=benchmark.json
    python -m f3tok_jax.benchmark convolution --bins=30 --channels=256
    python -m f3tok_jax.benchmark step --config=configs/autoencoder.py:base
    python -m f3tok_jax.benchmark generation --workdir=runs/generation
    python -m f3tok_jax.benchmark start --model=runs/autoencoder

codec times an autoencoder in all forms of an export beside DAC, EnCodec and Mimi (extra onnx);
convolution one of its layers in all formulations; step the train steps of recipes, on all devices that
JAX finds; generation the making of sounds of several lengths; start whole programs. In every round
each is called once, one after the other, so that what else the machine does meets all of them; the
first round, which compiles, does not count, and of the others the median is told, with the quartiles
and the best. Reading of shards is timed by python -m data_pipelines.benchmark, and what a step costs on
a TPU slice that is not here is said by python -m f3tok_jax.compile_check.

Exit codes: 0 finished, 1 wrong arguments, run or a missing library, 4 a full disk; stderr says which.
"""

import argparse
from collections.abc import Sequence
import os
import sys
from typing import Any

from data_pipelines import command
from f3tok_jax.benchmarking import codec
from f3tok_jax.benchmarking import convolution
from f3tok_jax.benchmarking import generation
from f3tok_jax.benchmarking import start
from f3tok_jax.benchmarking import step

_BENCHMARKS = {
    "codec": codec,
    "convolution": convolution,
    "step": step,
    "generation": generation,
    "start": start,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = command.make_parser("python -m f3tok_jax.benchmark", __doc__)
    parser.set_defaults(overrides=())
    names = parser.add_subparsers(required=True, metavar="{" + ",".join(_BENCHMARKS) + "}")
    for name, benchmark in _BENCHMARKS.items():
        new = names.add_parser(name, help=benchmark.__doc__.partition("\n")[0])
        benchmark.add_flags(new)
        new.add_argument("--output", type=command.file, help="JSON file to write")
        new.set_defaults(name=name)
    return command.run(parser, _measure, arguments)


def _measure(given: argparse.Namespace) -> None:
    from f3tok_jax.benchmarking import turns
    from f3tok_jax.runs import results

    if given.overrides and "config" not in given:
        raise ValueError(f"unrecognized arguments: {' '.join(given.overrides)}; see --help")
    found = {}
    for title, rows in _BENCHMARKS[given.name].tables(given):
        turns.say(title, rows)
        found[title] = rows
    if given.output is not None:
        results.write(
            given.output, results.Benchmark(name=given.name, machine=_machine(), tables=found)
        )


def _machine() -> dict[str, Any]:
    import jax

    from f3tok_jax.runs import environment

    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "versions": environment.versions(),
    }


if __name__ == "__main__":
    sys.exit(main())
