# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A generation run making sounds of several lengths: until the first piece, and in all.

Stops are ignored.
"""

import argparse
from collections.abc import Iterator
import functools
from typing import Any

from data_pipelines import command
from f3tok_jax.runs import places
from f3tok_jax.runs import results


def add_flags(parser: command.Parser) -> None:
    """Those of this benchmark."""
    add = parser.add_argument
    add("--workdir", required=True, type=command.path, help="run folder of the generation stage")
    add("--text", default="seven three nine", help="what is said")
    text = "lengths, with commas between"
    add("--seconds", type=command.values(float), default="1,2,4,8,16", help=text)
    add("--batch_size", type=command.at_least(1), default=1, help="texts at a time")
    add("--rounds", type=command.at_least(1), default=1, help="that count")
    places.add_flag(add)


def tables(given: argparse.Namespace) -> Iterator[tuple[str, list[results.Timing]]]:
    """One of the first pieces, one of whole sounds."""
    from f3tok_jax.benchmarking import turns
    from f3tok_jax.inference import generate
    from f3tok_jax.inference import tokenizer

    moved = dict(given.moved or ())
    generator = tokenizer.F3Tokenizer.from_pretrained(given.workdir, moved=moved).text_to_sound
    task = next(iter(generator.text.weights))
    requests = [generate.Request(text=given.text, task=task)] * given.batch_size
    if not given.seconds:
        raise ValueError("--seconds must be at least one length, such as 1,2,4, got none")
    whole = {
        f"{seconds:g} s": generator.patches_of(seconds) / generator.patches_per_second
        for seconds in given.seconds
    }
    whole = {name: given.batch_size * seconds for name, seconds in whole.items()}
    # Speed is of whole sounds: what the first piece holds does not grow with what is asked for.
    first = dict.fromkeys(whole, 0.0)
    for title, make, amounts in (
        ("first piece", _first_piece, first),
        ("whole sounds", _whole, whole),
    ):
        calls = {
            f"{seconds:g} s": functools.partial(make, generator, requests, seconds)
            for seconds in given.seconds
        }
        yield (
            f"{title}, {given.batch_size} at a time",
            turns.measure(calls, rounds=given.rounds, amounts=amounts),
        )


def _pieces(generator: Any, requests: list, seconds: float) -> Iterator[Any]:
    num_patches = generator.patches_of(seconds)
    return generator.pieces(requests, max_patches=num_patches, min_patches=num_patches)


def _first_piece(generator: Any, requests: list, seconds: float) -> None:
    next(_pieces(generator, requests, seconds))


def _whole(generator: Any, requests: list, seconds: float) -> None:
    for _ in _pieces(generator, requests, seconds):
        pass
