# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A language model on held-out texts: how well it foresees them, and how often it answers right."""

from collections.abc import Callable, Mapping
import functools
import math
import pathlib

import jax
import jax.numpy as jnp

from f3tok_jax.runs import lineage
from f3tok_jax.runs import places as places_lib
from f3tok_jax.runs import results as results_lib
from f3tok_jax.stages import language_model as language_model_stage
from f3tok_jax.training import progress
from f3tok_jax.training import state as train_state


def evaluate(
    workdir: str,
    shards: str,
    output: pathlib.Path,
    *,
    step: int | None = None,
    moved: Mapping[str, str] | None = None,
    say: Callable[[str], None] = print,
) -> results_lib.LanguageModel:
    """Goes once through a set by the run's own eval step; writes `output`.

    What does not fit its row of the recipe is left out, as in training.

    Args:
        workdir: of a run of the language_model stage.
        shards: set with texts or labels, of sound or latents.
        output: JSON file to write.
        step: of the checkpoint; None for the newest whole one.
        moved: where the run's tokenizer lies now; see F3Tokenizer.from_pretrained.
        say: where messages go.

    Returns:
        What was written: "loss", nats per scored token, and its exponential, "perplexity"; the same
        of the answers that stand in their context, and "context_accuracy", the share of the tokens of
        these that are found.

    Raises:
        ValueError: if the folder is no such run, or the set has nothing to ask about.
    """
    places = places_lib.Places(moved or {})
    stage_name = language_model_stage.PLAYER
    run = lineage.Lineage.read(workdir, step, stage=stage_name, places=places)
    _, params, run = language_model_stage.load(run, say=say)
    config, step = run.config, run.step
    stage = language_model_stage.make_stage(config, run)
    params = {language_model_stage.PLAYER: params}
    state = train_state.TrainState(step=jnp.int32(step), params={}, opt_state={}, ema_params=params)
    data = stage.open_data(shards, train=False, process_index=0, process_count=1)
    eval_step = jax.jit(functools.partial(stage.eval_step, state, {}))
    averages = progress.Averages()
    num_batches = -(-data.num_records // (config.data.batch_size * config.data.documents_per_row))
    for index in range(num_batches):
        averages.add(jax.device_get(eval_step(data.local_batch(index))))
        say(f"evaluated {index + 1} of {num_batches} batches")
    found = {name.removeprefix("eval/"): value for name, value in averages.ratios().items()}
    if "loss" not in found:
        raise ValueError(f"--shards must have texts that the run's tasks ask for, got {shards}")
    results = results_lib.LanguageModel(
        workdir=workdir,
        step=step,
        shards=shards,
        num_records=data.num_records,
        perplexity=math.exp(found["loss"]),
        **found,
    )
    results_lib.write(output, results)
    return results


def format_table(results: results_lib.LanguageModel) -> str:
    """The figures for a console."""
    text = (
        f"{results.num_records} records: loss {results.loss:.3f} nats per token, perplexity "
        f"{results.perplexity:.2f}"
    )
    if results.context_loss is not None:
        text += (
            f"; of answers in their context loss {results.context_loss:.3f}, tokens found "
            f"{100 * results.context_accuracy:.1f} %"
        )
    return text
