# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Measures an autoencoder on held-out shards, beside two references at as many values per second.

    python -m f3tok_jax.evaluate --workdir=runs/autoencoder --shards=DIR/test --output=results.json

Rows of the table: the model, the model decoding latents with noise of strength alpha added,
principal components of raw frames, and a mel spectrum with Griffin-Lim. Writes the table as JSON
and some of the sounds to listen/ beside it. A run of the generation stage is measured by
evaluate_generation, which has arguments of its own.

Exit codes: 0 finished, 1 wrong arguments, data or work folder; one sentence on stderr says which.
"""

import argparse
from collections.abc import Callable, Sequence
import functools
import itertools
import pathlib
import sys
from typing import Any

from f3tok_jax.evaluation import generation as generation_evaluation
from f3tok_jax.evaluation import reconstruction as reconstruction_evaluation
from f3tok_jax.evaluation import scores as scores_lib
from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import config as config_lib


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    if _stage_of(arguments) == "generation":
        return _main_of_generation(arguments)
    parser = argparse.ArgumentParser(
        prog="python -m f3tok_jax.evaluate",
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--workdir", required=True, help="run folder of an autoencoder")
    add("--shards", required=True, help="held-out shard set, or tfds:NAME@SPLIT#FEATURE")
    add("--output", required=True, type=pathlib.Path, help="JSON file to write")
    add("--step", type=int, help="of the checkpoint; the newest whole one if absent")
    add("--num_examples", type=int, default=200, help="evenly spaced over the set; 0 for all")
    add(
        "--fit_shards",
        default="",
        help="the same, or a mixture, for the PCA reference; the run's training data if absent",
    )
    add("--batch_size", type=int, default=8, help="sounds coded at a time")
    add(
        "--visqol_examples",
        type=int,
        default=2,
        help="examples of a second or more that ViSQOL hears, slowly; 0 for none",
    )
    add("--listen", type=int, default=4, help="examples of which sounds are written")
    given = parser.parse_args(arguments)
    try:
        results = reconstruction_evaluation.evaluate(
            given.workdir,
            given.shards,
            given.output,
            step=given.step,
            num_examples=given.num_examples,
            fit_shards=given.fit_shards,
            batch_size=given.batch_size,
            visqol_examples=given.visqol_examples,
            num_listen=given.listen,
        )
    except (ValueError, OSError, checkpoint.CheckpointError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    latents = results["latents"]
    print(scores_lib.format_table(results))
    print(
        f"latents: {latents['dim']} values at {latents['rate']:g} Hz, rms {latents['rms']:.3f}, "
        f"effective "
        f"rank {latents['effective_rank']:.1f}, over {latents['num_frames']} frames"
    )
    titles = {row["name"]: row["title"] for row in results["rows"]}
    distances = results["spectral_frechet_distance"].items()
    print(
        "Frechet distance of log spectra (lower): "
        + ", ".join(f"{titles[name]} {value:.2f}" for name, value in distances)
    )
    for name, reason in results["missing"].items():
        print(f"{name}: {reason}")
    print(
        f"{results['num_examples']} examples, {results['seconds']:.1f} s of sound, step "
        f"{results['step']}: "
        f"{given.output}"
    )
    return 0


def _stage_of(arguments: Sequence[str] | None) -> str | None:
    """The stage of the run that --workdir names, None where it cannot be told."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--workdir")
    workdir = parser.parse_known_args(arguments)[0].workdir
    if not workdir or not config_lib.exists(workdir):
        return None
    try:
        return config_lib.load(workdir).stage
    except ValueError:
        return None


def _main_of_generation(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m f3tok_jax.evaluate",
        description=__doc__.split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--workdir", required=True, help="run folder of the generation stage")
    add("--shards", required=True, help="held-out shard set of sound with texts")
    add("--output", required=True, type=pathlib.Path, help="JSON file to write")
    add("--step", type=int, help="of the checkpoint; the newest whole one if absent")
    add("--num_examples", type=int, default=200, help="evenly spaced over the set")
    add("--judge_shards", default="", help="recordings that the judge is trained on")
    add("--judge_label", default="", help="what it tells apart, such as digit")
    add(
        "--transcribe",
        action="store_true",
        help="character error rate by the run's own representation encoder and language model",
    )
    lists = "; several values, with commas, for a row of the table each"
    add("--guidance", default="", help="default the run's" + lists)
    add("--steps", default="", help="of the sampler; default the run's" + lists)
    add("--temperature", default="", help="default the run's" + lists)
    add("--renormalize", default="", help="true, false; default the run's" + lists)
    add("--seed", type=int, default=0, help="of the noise")
    add("--listen", type=int, default=4, help="examples of which sounds are written")
    given = parser.parse_args(arguments)
    try:
        results = generation_evaluation.evaluate(
            given.workdir,
            given.shards,
            given.output,
            step=given.step,
            num_examples=given.num_examples,
            judge_shards=given.judge_shards,
            judge_label=given.judge_label,
            transcribe=given.transcribe,
            changes=_changes(given),
            seed=given.seed,
            num_listen=given.listen,
            say=functools.partial(print, flush=True),
        )
    except (ValueError, OSError, checkpoint.CheckpointError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    print(generation_evaluation.format_table(results))
    print(f"{results['num_examples']} examples, step {results['step']}: {given.output}")
    return 0


def _changes(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Every combination of the values that are given for the sampler."""

    def values(name: str, text: str, parse: Callable[[str], Any]) -> list[dict[str, Any]]:
        try:
            return [{name: parse(value)} for value in text.split(",") if value] or [{}]
        except ValueError:
            raise ValueError(f"--{name} must be values with commas between, got {text!r}") from None

    parts = (
        values("guidance", given.guidance, float),
        values("num_steps", given.steps, int),
        values("temperature", given.temperature, float),
        values("renormalize", given.renormalize, _truth),
    )
    return [
        dict(itertools.chain(*(p.items() for p in chosen))) for chosen in itertools.product(*parts)
    ]


def _truth(value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise ValueError(value)
    return value.lower() == "true"


if __name__ == "__main__":
    sys.exit(main())
