# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The third stage: a flow head makes latents out of a language model's states.

The autoencoder stays as it is. So do the language model, the representation encoder and its
projector, or differences from their weights are trained with the head: the task stage.
"""

import functools
from typing import Any

import jax
import ml_collections

from f3tok_jax.models import adaptation
from f3tok_jax.models import sequences
from f3tok_jax.models.transformer import transformer
from f3tok_jax.pretrained import generation as pretrained_generation
from f3tok_jax.runs import lineage
from f3tok_jax.stages import generation_loss
from f3tok_jax.stages import generation_patch
from f3tok_jax.stages import sound as sound_lib
from f3tok_jax.training import microbatches
from f3tok_jax.training import optimizer
from f3tok_jax.training import players
from f3tok_jax.training import stage
from f3tok_jax.training import state as train_state
from f3tok_jax.training import validation


def validate(config: ml_collections.ConfigDict) -> None:
    """Refuses shares, noises and weights that are none, and what has nothing to learn."""
    source = validation.source(config)
    validation.positive(config, "flow.draws", "text.max_tokens")
    validation.shares(config, "flow.condition_drop", "flow.history_drop", "text.drop")
    validation.not_negative(
        config, "flow.history_noise", "flow.encoder_noise", "flow.stop_weight", "flow.text_weight"
    )
    if config.language_model.train not in adaptation.KINDS or config.language_model.rank < 1:
        raise ValueError(
            f"config.language_model.train must be one of {adaptation.KINDS} and its rank at least "
            f"1, got {config.language_model.train!r} and {config.language_model.rank} ({source})"
        )
    if config.representation.train not in pretrained_generation.TRAINED:
        raise ValueError(
            f"config.representation.train must be one of {pretrained_generation.TRAINED}, got "
            f"{config.representation.train!r} ({source})"
        )
    if not any(config.text.tasks.values()):
        raise ValueError(f"config.text.tasks ({source}) must give some task a weight above 0")


def make_stage(
    config: ml_collections.ConfigDict, run: lineage.Lineage | None = None
) -> stage.Stage:
    """The generation stage as the training loop sees it; see stage.Definition.make."""
    model = pretrained_generation.Model(run or lineage.Lineage(config=config))
    folder = model.representation.language_model_folder
    text = sound_lib.text_tasks(folder, config.text.tasks, config.text.max_tokens)
    spec = model.run.sound.batch_spec(config.data)
    optimizers = players.make_players(config, model.players)
    needs = functools.partial(row_needs, patch=model.generator.patch)
    rows = sound_lib.shared_rows(config, model.run.sound, needs, max_tokens=config.text.max_tokens)
    return stage.Stage(
        **sound_lib.of_latents(config, model.run, text, rows, model.check_named),
        batch_spec=spec | sequences.text_spec(config.data.batch_size, config.text.max_tokens),
        # Boxed in their logical axes.
        init_state=lambda key: optimizer.init_state(model.init_params(key), optimizers),
        abstract_frozen=model.abstract(),
        load_frozen=model.load,
        train_step=functools.partial(train_step, model=model, optimizers=optimizers),
        eval_step=functools.partial(eval_step, model=model),
        watched=(
            stage.Watched(
                metric="train/flow_loss", lever="lower config.optimizer.head.learning_rate"
            ),
            *(optimizer.watched_norm(player, generation_loss.NORM) for player in optimizers),
        ),
        signs=generation_loss.signs(config),
        best_metric="eval/flow_loss",
        best_from=players.last_start(optimizers),
        model_flops=model_flops(model),
    )


def row_needs(num_frames: int, num_tokens: int, *, patch: int) -> dict[str, int]:
    """What an example takes of the rows of head and language model: whole patches, and what is read.

    Text may be dropped in training: then it takes less.
    """
    patches = num_frames // patch
    return {"patches": patches, "positions": patches and num_tokens + 1 + patches}


def model_flops(model: pretrained_generation.Model) -> float:
    """Multiplications and additions of a step's products that no implementation can do without.

    Two per weight and position of the encoder and the language model that stay as they are, four
    where a gradient passes through them, six of what is trained. Frozen autoencoder not counted. Rows
    are taken to be full, of as many examples as share one, of one length.
    """
    config, generator = model.config, model.generator
    examples, crop = config.packing.examples, config.data.crop_frames
    rows = config.data.batch_size // examples
    num_patches = examples * (crop // generator.patch)
    num_patches = min(config.packing.patches or num_patches, num_patches)
    head = generator.head
    sequence = 1 + (head.history + 1) * head.patch
    total = 3.0 * num_patches * config.flow.draws * sum(transformer.forward_flops(head, sequence))
    passes = 3.0 if model.trains_encoder else 1.0
    frames = num_patches * generator.patch
    heard = transformer.forward_flops(generator.encoder, frames, segments=examples)
    total += passes * sum(heard)
    tokens = config.text.max_tokens
    length = examples * sequences.num_positions(crop, tokens, patch=generator.patch)
    length = min(config.packing.positions or length, length)
    dense, attended = transformer.forward_flops(
        generator.language_model.transformer, length, segments=examples
    )
    passes = (2.0, 3.0) if model.trains_encoder else (1.0, 1.0)
    if model.trains_language_model:
        passes = (3.0, 3.0)
    return rows * (total + passes[0] * dense + passes[1] * attended)


def train_step(
    state: train_state.TrainState,
    frozen: Any,
    batch: stage.Batch,
    *,
    model: pretrained_generation.Model,
    optimizers: optimizer.Players,
) -> tuple[train_state.TrainState, generation_loss.Metrics]:
    """One step of the head, and of the language model and the encoder where they are trained."""
    config = model.config
    totals = generation_loss.batch_totals(batch, model)
    key = train_state.step_key(config.seed, state.step, "flow")

    def gradients(microbatch, index):
        options = dict(model=model, key=jax.random.fold_in(key, index), is_training=True)
        gradient = jax.grad(generation_loss.total_loss, has_aux=True)
        return gradient(state.params, frozen, microbatch, totals, **options)

    grads, metrics = microbatches.accumulated(
        gradients,
        batch,
        config.optimizer.accumulate,
        examples_per_row=config.packing.examples,
    )
    return optimizer.finish_step(
        state,
        grads,
        metrics,
        optimizers=optimizers,
        ema_decay=config.optimizer.ema_decay,
        norm_name=generation_loss.NORM,
    )


def eval_step(
    state: train_state.TrainState,
    frozen: Any,
    batch: stage.Batch,
    *,
    model: pretrained_generation.Model,
) -> generation_loss.Metrics:
    """The losses of the averaged weights, and how far sampled patches are from the true ones."""
    key = train_state.step_key(model.config.seed, 0, "evaluation")
    totals, params = generation_loss.batch_totals(batch, model), state.ema_params
    _, metrics = generation_loss.total_loss(
        params, frozen, batch, totals, model=model, key=key, is_training=False
    )
    return {f"eval/{name}": value for name, value in metrics.items()}


STAGE = stage.Definition(
    name="generation",
    make=make_stage,
    validate=validate,
    derived=sound_lib.derived,
    scopes=("autoencoder", "representation_encoder", "projector", "language_model", "flow_head"),
    programs={
        "patch": generation_patch.lower,
        "patches": functools.partial(generation_patch.lower, num_rows=64),
    },
    evaluation="generation",
    words=stage.Words(
        title="Generator",
        introduction="A generator makes sound from text: the language model reads the text and what "
        "has been made so far, and a flow head turns its state into the next few latents, which the "
        "autoencoder decodes.",
        curves={
            "flow_loss": "Mean square error of the velocity from noise to latents; its parts by the "
            "time on the way, from noise at 0 to sound at 1.",
            "patch_error": "Mean square distance of patches, made after the true ones, from the "
            "true ones; latents have mean square 1.",
            "stop_loss": "",
            "stop_missed": "Share of ends that the generator would have passed by.",
            "stop_early": "Share of other patches that it would not have made any more.",
            "lost": "Share of the language model's positions and of the flow head's patches that had "
            "no room in their row, and taught nothing.",
            "filled": "Share of the batches that is sound; the rest is padding.",
        },
        program="evaluate",
        results="results*.json",
    ),
)
