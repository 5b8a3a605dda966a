# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The stage of LoSATok's semantic bottleneck: features of a frozen semantic encoder, in few dimensions."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from f3tok_jax.losses import semantic as semantic_losses
from f3tok_jax.models import semantic_bottleneck as bottleneck_lib
from f3tok_jax.models import semantic_encoder as encoder_lib
from f3tok_jax.pretrained import semantic_encoder as pretrained
from f3tok_jax.runs import lineage
from f3tok_jax.stages import sound as sound_lib
from f3tok_jax.training import microbatches
from f3tok_jax.training import optimizer
from f3tok_jax.training import players
from f3tok_jax.training import stage
from f3tok_jax.training import state as train_state
from f3tok_jax.training import validation

PLAYER = "semantic_bottleneck"  # the stage's name, and its only player
Metrics = dict[str, tuple[jax.Array, jax.Array]]

_LOSSES = ("feature_reconstruction", "time_relation")


def validate(config: ml_collections.ConfigDict) -> None:
    """Refuses sizes that there cannot be, and losses that teach nothing."""
    validation.positive(config, "model.hidden_dim", "model.latent_dim")
    validation.not_negative(config, *(f"losses.weights.{name}" for name in _LOSSES))
    weights = config.losses.weights
    if not weights.feature_reconstruction:
        raise ValueError(
            f"config.losses.weights.feature_reconstruction={weights.feature_reconstruction} "
            f"({validation.source(config)}) must be above 0: without it half of the bottleneck, which "
            "leads back to features, would learn nothing"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """What the stage trains, and what it hears with; no arrays.

    Attributes:
        bottleneck: the module that is trained.
        encoder: frozen, whose features it has.
        config: of the run.
    """

    bottleneck: bottleneck_lib.SemanticBottleneck
    encoder: encoder_lib.SemanticEncoder
    config: ml_collections.ConfigDict

    def features(self, frozen: Any, batch: stage.Batch) -> tuple[jax.Array, jax.Array]:
        """Features [b, t, d] of a batch and their mask [b, t]; no gradient flows to them."""
        with jax.named_scope("semantic_encoder"):
            mask = batch["mask"]
            waveform = jnp.where(mask, batch["waveform"], 0.0)
            features = self.encoder.apply(frozen, waveform, mask)
            return jax.lax.stop_gradient(features), self.encoder.feature_mask(mask)

    def losses(self, params: Any, features: jax.Array, mask: jax.Array) -> Metrics:
        """What is asked of the bottleneck, by name."""
        with jax.named_scope("semantic_bottleneck"):
            latents, output = self.bottleneck.apply({"params": params}, features)
        with jax.named_scope("losses"):
            return {
                "feature_reconstruction": semantic_losses.feature_reconstruction(
                    features, output, mask
                ),
                "time_relation": semantic_losses.time_relation(features, latents, mask),
            }


def make_model(config: ml_collections.ConfigDict, run: lineage.Lineage | None = None) -> Model:
    """The modules of a run: the encoder's fields are those of its own run, or of its recipe."""
    run = run or lineage.Lineage(config=config)
    encoder = pretrained.of_heard(run)
    bottleneck = bottleneck_lib.SemanticBottleneck(feature_dim=encoder.width, **config.model)
    return Model(bottleneck=bottleneck, encoder=encoder, config=config)


def make_stage(
    config: ml_collections.ConfigDict, run: lineage.Lineage | None = None
) -> stage.Stage:
    """The stage as the training loop sees it."""
    run = run or lineage.Lineage(config=config)
    model, sound = make_model(config, run), run.sound
    optimizers = players.make_players(config, [PLAYER])
    return stage.Stage(
        batch_spec=sound.batch_spec(config.data),
        init_state=functools.partial(init_state, model=model, optimizers=optimizers),
        open_data=functools.partial(
            sound_lib.open_pipeline,
            config=config,
            sound=sound,
            crops={},
            check=functools.partial(pretrained.check_heard, run),
        ),
        abstract_frozen=pretrained.abstract_variables(model.encoder),
        load_frozen=functools.partial(_load_frozen, run=run),
        frozen_fingerprints=run.frozen_fingerprints(),
        train_step=functools.partial(train_step, model=model, optimizers=optimizers),
        eval_step=functools.partial(eval_step, model=model),
        watched=(
            *(
                stage.Watched(
                    metric=f"train/{name}", lever=f"lower config.optimizer.{PLAYER}.learning_rate"
                )
                for name in _LOSSES
            ),
            optimizer.watched_norm(PLAYER),
        ),
        best_metric="eval/loss",
        best_from=players.last_start(optimizers),
        sample_rate=sound.sample_rate,
        per_batch=sound_lib.seconds_per_batch(config, sound),
        model_flops=model_flops(model),
    )


def _load_frozen(
    shardings: Mapping[str, Any], measured: Mapping[str, Any], *, run: lineage.Lineage
) -> dict[str, Any]:
    del measured
    return jax.device_put(pretrained.load_heard(run).variables, shardings)


def model_flops(model: Model) -> float:
    """Multiplications and additions of a step's products with weights that are trained: three passes'
    worth, two of the layer that hears features. Frozen encoder not counted."""
    config, bottleneck = model.config, model.bottleneck
    hears = bottleneck.feature_dim * bottleneck.hidden_dim
    others = hears + 2 * bottleneck.hidden_dim * bottleneck.latent_dim
    frames = config.data.batch_size * config.data.crop_frames
    return 2.0 * frames * (2.0 * hears + 3.0 * others)


def init_state(
    key: jax.Array, *, model: Model, optimizers: optimizer.Players
) -> train_state.TrainState:
    """Fresh parameters and optimizer."""
    features = jnp.zeros((1, 2, model.bottleneck.feature_dim))
    params = model.bottleneck.init(train_state.step_key(key, 0, PLAYER), features)["params"]
    return optimizer.init_state({PLAYER: params}, optimizers)


def train_step(
    state: train_state.TrainState,
    frozen: Any,
    batch: stage.Batch,
    *,
    model: Model,
    optimizers: optimizer.Players,
) -> tuple[train_state.TrainState, Metrics]:
    """One step on features of the frozen encoder."""
    config = model.config
    # What the summed losses are divided by, once, over all microbatches.
    counts = jnp.sum(model.encoder.feature_mask(batch["mask"]), axis=1, dtype=jnp.float32)
    weights = {
        "feature_reconstruction": jnp.maximum(jnp.sum(counts), 1.0),
        "time_relation": jnp.maximum(jnp.sum(jnp.square(counts)), 1.0),
    }

    def gradients(microbatch, index):
        del index
        features, mask = model.features(frozen, microbatch)

        def loss(params):
            metrics = model.losses(params, features, mask)
            total = sum(
                config.losses.weights[name] * value / weights[name]
                for name, (value, _) in metrics.items()
            )
            return total, metrics

        grads, metrics = jax.grad(loss, has_aux=True)(state.params[PLAYER])
        return {PLAYER: grads}, metrics

    grads, metrics = microbatches.accumulated(gradients, batch, config.optimizer.accumulate)
    return optimizer.finish_step(
        state, grads, metrics, optimizers=optimizers, ema_decay=config.optimizer.ema_decay
    )


def eval_step(
    state: train_state.TrainState, frozen: Any, batch: stage.Batch, *, model: Model
) -> Metrics:
    """Both losses of the averaged weights, and their weighted sum, as an example weighs by its frames."""
    features, mask = model.features(frozen, batch)
    metrics = model.losses(state.ema_params[PLAYER], features, mask)
    total, count = 0.0, metrics["feature_reconstruction"][1]
    for name, (value, weight) in metrics.items():
        total += model.config.losses.weights[name] * value * count / jnp.maximum(weight, 1.0)
    return {f"eval/{name}": value for name, value in (metrics | {"loss": (total, count)}).items()}


STAGE = stage.Definition(
    name=PLAYER,
    make=make_stage,
    validate=validate,
    derived=sound_lib.derived,
    scopes=("semantic_encoder", "semantic_bottleneck"),
    words=stage.Words(
        title="Semantic bottleneck",
        introduction="A semantic bottleneck turns the features of a frozen semantic encoder into narrow "
        "ones, which keep how the frames of a sound relate to one another, and lead back to the "
        "features. LoSATok adds them to what its acoustic branch hears.",
        curves={
            "feature_reconstruction": "Mean square difference of directions, of features and of what is "
            "made of them again: (2 - 2 cos) over their width.",
            "time_relation": "Mean square difference of the cosines between frames, of features and of "
            "latents.",
            "loss": "Both, by their weights.",
            "filled": "Share of the batches that is sound; the rest is padding.",
        },
    ),
)
