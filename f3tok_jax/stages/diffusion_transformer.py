# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The stage of a diffusion transformer: all latents of a sound at once, of a text and a length.

It is what LoSATok and DashengTokenizer are measured by, beside the flow head of this package: another
generator on the same latents, which needs no representation encoder.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from f3tok_jax.losses import flow as flow_loss
from f3tok_jax.models import diffusion_transformer
from f3tok_jax.models import sequences
from f3tok_jax.models.transformer import transformer
from f3tok_jax.pretrained import diffusion_transformer as pretrained
from f3tok_jax.runs import lineage
from f3tok_jax.stages import first_examples
from f3tok_jax.stages import generation_loss
from f3tok_jax.stages import sound as sound_lib
from f3tok_jax.training import microbatches
from f3tok_jax.training import optimizer
from f3tok_jax.training import players
from f3tok_jax.training import stage
from f3tok_jax.training import state as train_state
from f3tok_jax.training import validation

PLAYER = pretrained.PLAYER
Metrics = generation_loss.Metrics


def validate(config: ml_collections.ConfigDict) -> None:
    """Refuses shares that are none, and texts of which nothing is asked."""
    validation.positive(config, "model.modulation_rank", "text.max_tokens")
    validation.positive(config, "data.statistics_frames")
    validation.shares(config, "flow.condition_drop")
    if not any(config.text.tasks.values()):
        source = validation.source(config)
        raise ValueError(f"config.text.tasks ({source}) must give some task a weight above 0")


def make_stage(
    config: ml_collections.ConfigDict, run: lineage.Lineage | None = None
) -> stage.Stage:
    """The stage as the training loop sees it; see stage.Definition.make."""
    model = pretrained.Model(run or lineage.Lineage(config=config))
    run, frozen, section = model.run, model.frozen, config.text
    text = sound_lib.text_tasks(run.language_model_folder, section.tasks, section.max_tokens)
    spec = run.sound.batch_spec(config.data)
    optimizers = players.make_players(config, [PLAYER])
    return stage.Stage(
        **sound_lib.of_latents(config, run, text, None, frozen.check_named),
        batch_spec=spec | sequences.text_spec(config.data.batch_size, section.max_tokens),
        # Boxed in their logical axes.
        init_state=lambda key: optimizer.init_state(model.init_params(key), optimizers),
        statistics=_statistics(model),
        abstract_frozen=frozen.abstract(),
        load_frozen=model.load_frozen,
        train_step=functools.partial(train_step, model=model, optimizers=optimizers),
        eval_step=functools.partial(eval_step, model=model),
        watched=(
            stage.Watched(
                metric="train/flow_loss", lever=f"lower config.optimizer.{PLAYER}.learning_rate"
            ),
            optimizer.watched_norm(PLAYER, generation_loss.NORM),
        ),
        signs=(generation_loss.stands_still("diffusion transformer", PLAYER),),
        best_metric="eval/flow_loss",
        best_from=players.last_start(optimizers),
        model_flops=model_flops(model),
    )


def _statistics(model: pretrained.Model) -> stage.Statistics | None:
    """The rms of latents that are not normalised."""
    if model.run.normalizes_latents:
        return None
    return first_examples.statistics(
        model.config,
        model.frozen,
        lambda batch, latents, mask: first_examples.energy(latents, mask),
        lambda energy: {lineage.LATENT_RMS: first_examples.rms(energy)},
        num_frames=model.config.data.statistics_frames,
    )


def model_flops(model: pretrained.Model) -> float:
    """Multiplications and additions of a step's products that no implementation can do without.

    Six per weight and position that is trained, two of the language model, which reads texts alone.
    Frozen autoencoder not counted. Rows are taken to be full.
    """
    config, language_model = model.config, model.frozen.language_model
    tokens, frames = config.text.max_tokens, config.data.crop_frames
    own = diffusion_transformer.forward_flops(
        model.module, frames, num_tokens=tokens, text_width=language_model.width
    )
    read = sum(transformer.forward_flops(language_model.transformer, tokens))
    return config.data.batch_size * (3.0 * own + read)


def loss(
    params: Any,
    frozen: Any,
    batch: stage.Batch,
    num_frames: jax.Array,
    *,
    model: pretrained.Model,
    key: jax.Array,
    is_training: bool,
) -> tuple[jax.Array, Metrics]:
    """The mean square error of velocities, a frame as good as another, and its parts as metrics.

    Args:
        params: by player.
        frozen: what `Model.load_frozen` gave.
        batch: a microbatch.
        num_frames: of sound in the whole batch.
        model: of the run.
        key: of all that is drawn.
        is_training: whether some examples go without their text, for guidance.
    """
    config, key_of = model.config, functools.partial(train_state.step_key, key, 0)
    latents, mask = model.frozen.latents(frozen, batch)
    text = model.read(frozen, batch["text"], batch["text_mask"])
    if is_training:
        drawn = jax.random.uniform(key_of("condition_drop"), (text.shape[0], 1, 1))
        text = jnp.where(drawn >= config.flow.condition_drop, text, 0.0)
    drawn = flow_loss.draw(key_of("draws"), latents)
    velocity = model.module.apply(
        {"params": params[PLAYER]}, drawn.noisy, mask, drawn.time, text, batch["text_mask"]
    )
    error, metrics = flow_loss.measure(velocity, drawn, mask)
    return error / num_frames, jax.lax.stop_gradient(metrics)


def train_step(
    state: train_state.TrainState,
    frozen: Any,
    batch: stage.Batch,
    *,
    model: pretrained.Model,
    optimizers: optimizer.Players,
) -> tuple[train_state.TrainState, Metrics]:
    """One step."""
    config = model.config
    num_frames = _num_frames(batch, model)
    key = train_state.step_key(config.seed, state.step, "flow")

    def gradients(microbatch, index):
        options = dict(model=model, key=jax.random.fold_in(key, index), is_training=True)
        return jax.grad(loss, has_aux=True)(state.params, frozen, microbatch, num_frames, **options)

    grads, metrics = microbatches.accumulated(gradients, batch, config.optimizer.accumulate)
    return optimizer.finish_step(
        state,
        grads,
        metrics,
        optimizers=optimizers,
        ema_decay=config.optimizer.ema_decay,
        norm_name=generation_loss.NORM,
    )


def eval_step(
    state: train_state.TrainState, frozen: Any, batch: stage.Batch, *, model: pretrained.Model
) -> Metrics:
    """The loss of the averaged weights, with every text."""
    options = dict(model=model, is_training=False)
    options["key"] = train_state.step_key(model.config.seed, 0, "evaluation")
    _, metrics = loss(state.ema_params, frozen, batch, _num_frames(batch, model), **options)
    return {f"eval/{name}": value for name, value in metrics.items()}


def _num_frames(batch: stage.Batch, model: pretrained.Model) -> jax.Array:
    """Of sound in a batch, at least one."""
    return jnp.maximum(jnp.sum(model.frozen.frame_mask(batch), dtype=jnp.float32), 1.0)


STAGE = stage.Definition(
    name=PLAYER,
    make=make_stage,
    validate=validate,
    derived=sound_lib.derived,
    scopes=("autoencoder", "language_model", "diffusion_transformer"),
    evaluation=PLAYER,
    words=stage.Words(
        title="Diffusion transformer",
        introduction="A diffusion transformer makes all latents of a sound at once, of noise, a text "
        "that a frozen language model has read, and the length that the sound is to have; the "
        "autoencoder decodes them.",
        curves={
            "flow_loss": "Mean square error of the velocity from noise to latents; its parts by the "
            "time on the way, from noise at 0 to sound at 1.",
            "filled": "Share of the batches that is sound; the rest is padding.",
        },
        program="evaluate",
        results="results*.json",
    ),
)
