# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Flags that probe and ablation share."""

import argparse
from typing import TYPE_CHECKING

from data_pipelines import command

if TYPE_CHECKING:
    from f3tok_jax.probing import classifiers
    from f3tok_jax.probing import probes

_LOGISTIC, _XARES = "logistic", "xares"  # the names of recipes; --help needs no SciPy


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that every program which probes has: those of `options_of`, and the output."""
    add = parser.add_argument
    text = "what to predict: one label, or several with commas"
    add("--label", required=True, type=command.values(), help=text)
    add("--output", required=True, type=command.file, help="JSON file to write")
    add("--exclude", action="append", default=[], help="label=value kept out of training")
    add("--only", action="append", default=[], help="label=value that alone is tested")
    text = "label, such as speaker, of which every value in turn is kept out of training and tested"
    add("--leave_out", default="", metavar="LABEL", help=text)
    text = (
        "how the linear probe learns: logistic regression taken to its end, its L2 strength chosen "
        "on other groups, or X-ARES's LayerNorm and linear layer under Adam, refused where it is "
        "not trained to its end"
    )
    add("--recipe", choices=(_LOGISTIC, _XARES), default=_LOGISTIC, help=text)
    text = "label by which clips are alike, or source (default: what is left out, speaker, source)"
    add("--group", default="", metavar="LABEL", help=text)
    text = "times that labels are shuffled, and seeds of --recipe=xares"
    add("--num_seeds", type=int, default=5, help=text)
    add("--num_epochs", type=int, help="of --recipe=xares (default 10, as X-ARES has it)")
    text = "of frames over time: mean, mean_std, thirds or, for --recipe=xares, attentive; several "
    text += "with commas are measured each"
    add("--pooling", default="mean_std", help=text)
    add("--batch_size", type=int, default=32, help="sounds encoded at a time")


def options_of(given: argparse.Namespace) -> "probes.Options":
    """What the flags of `add_options` say."""
    # Imported late: --help needs no JAX.
    from f3tok_jax.probing import probes

    return probes.Options(
        labels=given.label,
        exclude=[parse_filter(text, "--exclude") for text in given.exclude],
        only=[parse_filter(text, "--only") for text in given.only],
        leave_out=given.leave_out,
        num_seeds=given.num_seeds,
        poolings=[how for how in given.pooling.split(",") if how],
        recipe=_recipe(given),
        group=given.group,
        batch_size=given.batch_size,
    )


def _recipe(given: argparse.Namespace) -> "classifiers.Recipe":
    from f3tok_jax.probing import logistic_probe
    from f3tok_jax.probing import xares_probe

    if given.recipe == _XARES:
        epochs = {} if given.num_epochs is None else {"num_epochs": given.num_epochs}
        return xares_probe.Recipe(**epochs)
    if given.num_epochs is not None:
        raise ValueError(
            f"--num_epochs is of --recipe={_XARES}, got {given.num_epochs} with "
            f"--recipe={given.recipe}, which is taken to its end: leave it out"
        )
    return logistic_probe.Recipe()


def parse_filter(text: str, flag: str) -> tuple[str, str]:
    """Reads "label=value"; raises ValueError, which names `flag`, for anything else."""
    label, equals, value = text.partition("=")
    if not label or not equals:
        raise ValueError(f"{flag} must be label=value, got {text!r}")
    return label, value
