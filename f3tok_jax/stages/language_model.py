# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The embedded language model: trained on the text of shard sets, written as a Hugging Face folder.

It is asked about sound in the words of the tasks, often after a context that says what there is to
hear; frozen, it supervises the representation encoder.
"""

from collections.abc import Callable, Mapping
import functools
import math
import os
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from data_pipelines.reading import mixture_pipeline
from data_pipelines.reading import tasks
from data_pipelines.reading import text_pipeline
from f3tok_jax.devices import sharding
from f3tok_jax.models import language_model as language_model_lib
from f3tok_jax.models.transformer import transformer
from f3tok_jax.pretrained import language_model as pretrained_language_model
from f3tok_jax.pretrained import weights
from f3tok_jax.runs import language_model_folder
from f3tok_jax.runs import lineage
from f3tok_jax.runs import places as places_lib
from f3tok_jax.training import microbatches
from f3tok_jax.training import optimizer
from f3tok_jax.training import players
from f3tok_jax.training import stage
from f3tok_jax.training import state as train_state

PLAYER = "language_model"

Metrics = dict[str, tuple[jax.Array, jax.Array]]

_STEPS_GUESSED = 500  # in a row; fresh weights need far fewer to find out which tokens are rare


def make_model(config: ml_collections.ConfigDict) -> language_model_lib.LanguageModel:
    """The language model of a run's config."""
    try:
        return language_model_lib.make(
            config.model.shape.to_dict(),
            compute_dtype=config.model.compute_dtype,
            remat=config.model.remat,
        )
    except ValueError as error:
        raise ValueError(f"{error} (config.model.shape)") from error


def make_stage(
    config: ml_collections.ConfigDict, run: lineage.Lineage | None = None
) -> stage.Stage:
    """The stage as the training loop sees it; its one player is "language_model"."""
    model, run = make_model(config), run or lineage.Lineage(config=config)
    data = config.data
    if data.length > model.max_length:
        raise ValueError(
            f"config.data.length={data.length} must be at most the {model.max_length} positions "
            "of config.model.shape.max_position_embeddings"
        )
    optimizers = players.make_players(config, [PLAYER])
    shape = (data.batch_size, data.length)
    return stage.Stage(
        batch_spec={
            name: jax.ShapeDtypeStruct(shape, jnp.int32) for name in ("text", "segments", "scored")
        },
        init_state=functools.partial(init_state, model=model, optimizers=optimizers),
        open_data=functools.partial(open_data, config=config, run=run),
        train_step=functools.partial(
            train_step,
            model=model,
            optimizers=optimizers,
            ema_decay=config.optimizer.ema_decay,
            accumulate=config.optimizer.accumulate,
        ),
        eval_step=functools.partial(eval_step, model=model),
        frozen_fingerprints=_fingerprints(run),
        watched=(
            stage.Watched(
                metric="train/loss", lever=f"lower config.optimizer.{PLAYER}.learning_rate"
            ),
            optimizer.watched_norm(PLAYER),
        ),
        signs=(
            stage.Sign(
                metrics=("train/loss",),
                shows=functools.partial(_only_guesses, vocabulary_size=model.vocabulary_size),
                steps=_STEPS_GUESSED,
            ),
        ),
        best_metric="eval/loss",
        best_from=players.last_start(optimizers),
        per_batch=float(data.batch_size * data.length),
        unit="positions",
        valid=lambda batch: batch["segments"] > 0,
        model_flops=model_flops(
            model, data.batch_size, data.length, documents=data.documents_per_row
        ),
    )


def _fingerprints(run: lineage.Lineage) -> dict[str, str]:
    """Of the tokenizer, which is as much of the model as its weights."""
    path = run.tokenizer
    return {"tokenizer": language_model_folder.tokenizer_fingerprint(path)} if path else {}


def model_flops(
    model: language_model_lib.LanguageModel, batch_size: int, length: int, *, documents: int = 1
) -> float:
    """Multiplications and additions of a step's products: six per weight and position, twelve per
    pair of attention. Rows are taken to be full, of so many documents of one length."""
    logits = 2.0 * length * model.vocabulary_size * model.width
    forward = transformer.forward_flops(model.transformer, length, segments=documents)
    return 3.0 * batch_size * (sum(forward) + logits)


def open_data(
    mixture: str, *, config: ml_collections.ConfigDict, run: lineage.Lineage, **hosts: Any
) -> stage.Data:
    """Packed documents of `mixture`, tokenized as config.tokenizer says.

    Raises:
        ValueError: where there is no tokenizer, or it does not match the table.
    """
    data = config.data
    if not config.tokenizer:
        raise ValueError(
            "config.tokenizer must name a tokenizer.json, got ''; train one with "
            "python -m data_pipelines.train_tokenizer"
        )
    pretrained_language_model.check_tokenizer(run.tokenizer, config.model.shape.vocab_size)
    weights = {name: weight for name, weight in data.tasks.items() if weight}
    return text_pipeline.TextPipeline(
        mixture,
        mixture_pipeline.Options(
            batch_size=data.batch_size, seed=config.seed, max_replaced=data.max_replaced, **hosts
        ),
        text=tasks.TextTasks(run.tokenizer, weights, data.length),
        forms=text_pipeline.Forms(data.context, data.max_repeats),
        length=data.length,
        documents_per_row=data.documents_per_row,
    )


def init_state(
    key: jax.Array, *, model: language_model_lib.LanguageModel, optimizers: Mapping[str, Any]
) -> train_state.TrainState:
    """Fresh parameters and optimizer, in boxes with their logical names."""
    key = train_state.step_key(key, 0, PLAYER)
    return optimizer.init_state({PLAYER: language_model_lib.init_params(model, key)}, optimizers)


def train_step(
    state: train_state.TrainState,
    frozen: Any,
    batch: stage.Batch,
    *,
    model: language_model_lib.LanguageModel,
    optimizers: optimizer.Players,
    ema_decay: float,
    accumulate: int,
) -> tuple[train_state.TrainState, Metrics]:
    """One step on the tokens that are scored."""
    del frozen
    # What the summed loss is divided by, once, over all microbatches.
    num_scored = jnp.maximum(jnp.sum(_targets(batch)[1] > 0, dtype=jnp.float32), 1.0)

    def gradients(microbatch, index):
        del index

        def loss(params):
            total, metrics = score(model, params, microbatch)
            return total / num_scored, metrics

        return jax.grad(loss, has_aux=True)(state.params[PLAYER])

    grads, metrics = microbatches.accumulated(gradients, batch, accumulate)
    return optimizer.finish_step(
        state, {PLAYER: grads}, metrics, optimizers=optimizers, ema_decay=ema_decay
    )


def eval_step(
    state: train_state.TrainState,
    frozen: Any,
    batch: stage.Batch,
    *,
    model: language_model_lib.LanguageModel,
) -> Metrics:
    """The losses of the averaged weights."""
    del frozen
    _, metrics = score(model, state.ema_params[PLAYER], batch)
    return {f"eval/{name}": value for name, value in metrics.items()}


def score(
    model: language_model_lib.LanguageModel, params: Any, batch: stage.Batch
) -> tuple[jax.Array, Metrics]:
    """Cross-entropy of the scored tokens, in nats.

    Args:
        model: to be scored.
        params: its parameters.
        batch: "text", "segments" and "scored", [b, t] int32 each.

    Returns:
        The sum; and the metrics "loss" of all, "context_loss" and "context_accuracy" of the answers
        that stand in their context.
    """
    targets, scored = _targets(batch)
    with jax.named_scope("language_model"):
        logits = model.apply(
            {"params": params}, batch["text"], segments=batch["segments"], method="predict"
        )
    with jax.named_scope("losses"):
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, targets)
        is_scored = (scored > text_pipeline.NOT_SCORED).astype(jnp.float32)
        in_context = (scored == text_pipeline.SCORED_IN_CONTEXT).astype(jnp.float32)
        hits = (jnp.argmax(logits, axis=-1) == targets).astype(jnp.float32)
        total, num_in_context = jnp.sum(losses * is_scored), jnp.sum(in_context)
    return total, jax.lax.stop_gradient(
        {
            "loss": (total, jnp.sum(is_scored)),
            "context_loss": (jnp.sum(losses * in_context), num_in_context),
            "context_accuracy": (jnp.sum(hits * in_context), num_in_context),
        }
    )


def _targets(batch: stage.Batch) -> tuple[jax.Array, jax.Array]:
    """The token after each, and how it is scored: not at all where another document begins."""
    after = lambda x: jnp.pad(x[:, 1:], ((0, 0), (0, 1)))
    follows = (after(batch["segments"]) == batch["segments"]) & (batch["segments"] > 0)
    return after(batch["text"]), jnp.where(follows, after(batch["scored"]), 0)


def _only_guesses(loss: float, *, vocabulary_size: int) -> str:
    """Whether the loss is that of tokens drawn with equal chances, or worse."""
    guessing = math.log(vocabulary_size)
    if loss < guessing:
        return ""
    return (
        f"the language model only guesses: its loss is {loss:.3g}, that of {vocabulary_size} "
        f"tokens with equal chances {guessing:.3g}; lower config.optimizer.{PLAYER}.learning_rate, "
        "or give it a longer warm-up"
    )


def load(
    run: lineage.Lineage, *, say: Callable[[str], None] = print
) -> tuple[language_model_lib.LanguageModel, Any, lineage.Lineage]:
    """The module of a run of this stage, its averaged weights, and the run at their step."""
    model = make_model(run.config)
    abstract = sharding.unbox(language_model_lib.abstract_params(model))
    params, run = weights.restore(run, {PLAYER: abstract}, say=say)
    return model, params[PLAYER], run


def export(
    workdir: str | os.PathLike,
    folder: str | os.PathLike,
    step: int | None = None,
    *,
    places: places_lib.Places | None = None,
) -> int:
    """Writes a run's averaged weights, config and tokenizer as a Hugging Face folder.

    Args:
        workdir: run folder of this stage.
        folder: to write.
        step: of the checkpoint; the newest whole one if None.
        places: where the run's tokenizer may lie.

    Returns:
        The step that was written.

    Raises:
        ValueError: where the folder is not a run of this stage or holds no such checkpoint.
    """
    run = lineage.Lineage.read(os.fspath(workdir), step, stage=PLAYER, places=places)
    model, params, run = load(run)
    pretrained_language_model.write(folder, model, params, run.tokenizer)
    return run.step


STAGE = stage.Definition(
    name=PLAYER,
    make=make_stage,
    scopes=("language_model",),
    evaluation="language_model",
    words=stage.Words(
        title="Language model",
        introduction="A language model learns the texts that go with the sounds. Frozen, it then "
        "teaches the representation encoder.",
        curves={
            "loss": "Cross entropy, in nats per token, of the texts that are to be learned.",
            "context_loss": "The same, of answers that stand in the text before them.",
            "context_accuracy": "Share of the tokens of those answers that it finds most likely.",
            "filled": "Share of the rows that is text; the rest is padding.",
        },
    ),
)
