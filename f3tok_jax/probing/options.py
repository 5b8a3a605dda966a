# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Flags that probe and ablation share."""

import argparse
from typing import TYPE_CHECKING

from data_pipelines import command

if TYPE_CHECKING:
    from f3tok_jax.probing import probes


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that every program which probes has: those of `options_of`, and the output."""
    add = parser.add_argument
    text = "what to predict: one label, or several with commas"
    add("--label", required=True, type=command.values(), help=text)
    add("--output", required=True, type=command.file, help="JSON file to write")
    add("--exclude", action="append", default=[], help="label=value kept out of training")
    add("--only", action="append", default=[], help="label=value that alone is tested")
    add("--num_seeds", type=int, default=5, help="of the linear probe")
    add("--num_epochs", type=int, default=10, help="of the linear probe")
    add("--pooling", default="mean", help="of frames over time: mean, mean_std or thirds")
    add("--batch_size", type=int, default=32, help="sounds encoded at a time")


def options_of(given: argparse.Namespace) -> "probes.Options":
    """What the flags of `add_options` say."""
    # Imported late: --help needs no JAX.
    from f3tok_jax.probing import classifiers
    from f3tok_jax.probing import probes

    return probes.Options(
        labels=given.label,
        exclude=[parse_filter(text, "--exclude") for text in given.exclude],
        only=[parse_filter(text, "--only") for text in given.only],
        num_seeds=given.num_seeds,
        pooling=given.pooling,
        training=classifiers.Training(num_epochs=given.num_epochs),
        batch_size=given.batch_size,
    )


def parse_filter(text: str, flag: str) -> tuple[str, str]:
    """Reads "label=value"; raises ValueError, which names `flag`, for anything else."""
    label, equals, value = text.partition("=")
    if not label or not equals:
        raise ValueError(f"{flag} must be label=value, got {text!r}")
    return label, value
