# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Whole programs, from their start to their end: what a user waits for at a console.

Beside ours, where transformers is installed, one that codes the same second of sound with Mimi, of
random weights, in PyTorch.
"""

import argparse
from collections.abc import Iterator
import functools
import importlib.util
import pathlib
import subprocess
import sys

from data_pipelines import command
from data_pipelines.records import atomic
from f3tok_jax.runs import results

_MIMI = """
import sys
import soundfile, torch, transformers
sound, _ = soundfile.read(sys.argv[1], dtype="float32")
model = transformers.MimiModel(transformers.MimiConfig()).eval()
with torch.inference_mode():
    codes = model.encode(torch.from_numpy(sound)[None, None]).audio_codes
    model.decode(codes)
"""


def add_flags(parser: command.Parser) -> None:
    """Those of this benchmark."""
    add = parser.add_argument
    add("--model", required=True, type=command.path, help="run folder of the autoencoder stage")
    add("--rounds", type=command.at_least(1), default=5, help="that count")


def tables(given: argparse.Namespace) -> Iterator[tuple[str, list[results.Timing]]]:
    """One: each verb, and the other program."""
    import numpy as np
    import soundfile

    from f3tok_jax.benchmarking import turns

    with atomic.temporary_folder() as folder:
        sound, latents, back = (folder / name for name in ("a.wav", "a.npz", "b.wav"))
        noise = 0.1 * np.random.default_rng(0).normal(size=24_000)
        soundfile.write(sound, noise, 24_000)
        verbs = {"info": [], "encode": [sound, latents], "decode": [latents, back]}
        calls = {
            f"f3tok {verb}": functools.partial(_run, _ours(verb, files, given.model))
            for verb, files in verbs.items()
        }
        calls |= {
            name: functools.partial(_run, [sys.executable, "-c", program, str(sound)])
            for name, program in _others().items()
        }
        amounts = dict.fromkeys(calls, 1.0) | {"f3tok info": 0.0}
        yield (
            "programs, one second of sound",
            turns.measure(calls, rounds=given.rounds, amounts=amounts),
        )


def _others() -> dict[str, str]:
    """Programs beside ours, by name, where what they import is there."""
    is_there = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
    return {"transformers, Mimi": _MIMI} if is_there else {}


def _ours(verb: str, files: list[pathlib.Path], model: str) -> list[str]:
    force = ["--force"] if files else []
    program = [sys.executable, "-m", "f3tok_jax.cli", verb]
    return [*program, *map(str, files), *force, f"--model={model}"]


def _run(program: list[str]) -> None:
    """Raises ValueError, with its last words, where it does not end well."""
    ended = subprocess.run(program, capture_output=True, text=True)
    if ended.returncode:
        words = ended.stderr.strip().splitlines()[-1:] or ["no word"]
        raise ValueError(
            f"{' '.join(program[:4])} must end with 0, got {ended.returncode}: {words[0]}"
        )
