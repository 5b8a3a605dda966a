# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the generation stage lowers: the flow's error, the stop's and the text's cross-entropy."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from f3tok_jax.losses import flow as flow_loss
from f3tok_jax.models import flow_head
from f3tok_jax.models import generator as generator_lib
from f3tok_jax.models import packing
from f3tok_jax.pretrained import generation as pretrained_generation
from f3tok_jax.training import stage
from f3tok_jax.training import state as train_state

Metrics = dict[str, tuple[jax.Array, jax.Array]]  # name -> (sum, weight)

NORM = "gradient_norm/{player}"  # metric

# What a collapse looks like, in many more steps in a row than a head needs to leave its fresh
# weights, which predict a velocity of 0 and no end; chosen.
_LEAST_VELOCITY, _STEPS_STILL = 0.05, 500
_MOST_MISSED, _STEPS_ENDLESS = 0.999, 3000


def total_loss(
    params: Any,
    frozen: Any,
    batch: stage.Batch,
    totals: Mapping[str, jax.Array],
    *,
    model: pretrained_generation.Model,
    key: jax.Array,
    is_training: bool,
) -> tuple[jax.Array, Metrics]:
    """The weighted sum of the losses, nats and squares per patch, and its parts as metrics.

    Args:
        params: what is trained: "head", and the differences of "language_model" and "encoder".
        frozen: what `Model.load` gave.
        batch: a microbatch.
        totals: of the whole batch, from `batch_totals`.
        model: of the run.
        key: of all that is drawn.
        is_training: with what training drops and disturbs; without, sampled patches are measured.
    """
    config, generator = model.config, model.generator
    flow, key_of = config.flow, functools.partial(train_state.step_key, key, 0)
    weights = pretrained_generation.generator_weights(params, frozen)
    latents, mask = model.frozen.latents(frozen, batch)
    text_mask = batch["text_mask"]
    if is_training:
        silent = jax.random.bernoulli(key_of("text"), config.text.drop, (text_mask.shape[0], 1))
        text_mask &= ~silent
    teaching = generator.teach(
        weights,
        latents,
        mask,
        batch["text"],
        text_mask,
        batch["answer"],
        examples_per_row=config.packing.examples,
        length=config.packing.positions,
        noise_key=key_of("encoder_noise") if is_training and flow.encoder_noise else None,
        score_text=model.trains_language_model and flow.text_weight > 0,
    )
    learned, lost = _pack(teaching, batch["begins"], config)
    if is_training:
        learned = _disturb(learned, key_of, flow)
    loss, metrics = _flow_loss(weights, learned, key_of("draws"), model=model, totals=totals)
    stop_loss, stop_metrics = _stop_loss(weights, teaching, batch["ends"], model=model)
    loss += flow.stop_weight * stop_loss / totals["stops"]
    metrics |= stop_metrics | {"lost/patches": lost, "lost/positions": teaching.lost}
    if teaching.text is not None:
        loss += flow.text_weight * teaching.text.loss / totals["answers"]
        metrics["text_loss"] = teaching.text.loss, teaching.text.weight
    if not is_training:
        metrics["patch_error"] = _patch_error(weights, learned, key_of("sampling"), model=model)
    return loss, jax.lax.stop_gradient(metrics)


@dataclasses.dataclass(frozen=True)
class _Learned:
    """Patches without holes, flat: [n, ...] arrays."""

    states: jax.Array
    tokens: jax.Array
    targets: jax.Array
    history: jax.Array
    mask: jax.Array
    keeps_condition: jax.Array | None = None


def _pack(
    teaching: generator_lib.Teaching, begins: jax.Array, config: ml_collections.ConfigDict
) -> tuple[_Learned, tuple[jax.Array, jax.Array]]:
    """The patches that teach the flow, in rows without holes, row after row; how many are lost."""
    rows = functools.partial(packing.rows, examples=config.packing.examples)
    slots = rows(_taught(teaching.mask, begins))
    length = min(config.packing.patches or slots.shape[1], slots.shape[1])
    plan = packing.pack(slots, length=length)

    def flat(x):
        return jax.lax.collapse(packing.take(plan, rows(x)), 0, 2)

    # An encoder that is trained is taught by the language model, which reads it.
    tokens = teaching.tokens[:, :-1]
    if not config.flow.token_gradient:
        tokens = jax.lax.stop_gradient(tokens)
    learned = _Learned(
        states=flat(teaching.states[:, :-1]),
        tokens=flat(tokens),
        targets=flat(teaching.targets),
        history=flat(teaching.history),
        mask=plan.valid.reshape(-1),
    )
    # Those without room in the language model's rows are counted, too.
    return learned, packing.lost(plan, rows(_taught(teaching.sound, begins)))


def _taught(patches: jax.Array, begins: jax.Array) -> jax.Array:
    """Which of patches [b, n] teach the flow: not the first of sound that was going on before.

    What comes before a first patch, no history and the start of audio, says that sound begins here:
    it would teach to begin in the middle of a word. Later patches have heard that it goes on.
    """
    return patches.at[:, 0].set(patches[:, 0] & begins)


def _scored(patches: jax.Array, sound: jax.Array, ends: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Which of `patches` [b, n] the head should stop after, and which go on.

    A sound ends with its last whole patch: what is left, less than a patch, is never made. Where a
    sound was cut nobody knows whether its last whole patch was the recording's: it is neither, even
    with part of a patch after it.

    Args:
        patches: [b, n] bool, that may be asked.
        sound: [b, n] bool, patches that are sound as a whole, `patches` among them.
        ends: [b] bool, whether the recording ends with the sound.
    """
    follows = jnp.pad(sound[:, 1:], ((0, 0), (0, 1)))
    return patches & ~follows & ends[:, None], patches & follows


def _disturb(learned: _Learned, key_of: Any, flow: ml_collections.ConfigDict) -> _Learned:
    """Drops conditions and histories, and adds noise to histories, patch by patch."""
    count = learned.mask.shape[0]
    history = learned.history
    if flow.history_noise:
        scale = flow.history_noise * jax.random.uniform(key_of("history_scale"), (count, 1, 1))
        # Where there is nothing before the first patch, there is none of it either.
        present = jnp.any(history != 0, axis=-1, keepdims=True)
        noise = jax.random.normal(key_of("history_noise"), history.shape)
        history = history + jnp.where(present, scale * noise, 0.0)
    kept = jax.random.uniform(key_of("history_drop"), (count, 1, 1)) >= flow.history_drop
    keeps = jax.random.uniform(key_of("condition_drop"), (count,)) >= flow.condition_drop
    history = jnp.where(kept, history, 0.0)
    return dataclasses.replace(learned, history=history, keeps_condition=keeps)


def _flow_loss(
    weights: Any,
    learned: _Learned,
    key: jax.Array,
    *,
    model: pretrained_generation.Model,
    totals: Mapping[str, jax.Array],
) -> tuple[jax.Array, Metrics]:
    """Mean square error of the velocity, for several draws per state of the language model."""
    draws, head = model.config.flow.draws, model.generator.head
    head = head.bind({"params": weights["head"]})
    condition = head.condition(learned.states, learned.tokens)
    if learned.keeps_condition is not None:
        condition = jnp.where(learned.keeps_condition[:, None], condition, 0.0)
    condition, history, target, mask = (
        jnp.repeat(x, draws, axis=0)
        for x in (condition, learned.history, learned.targets, learned.mask)
    )
    drawn = flow_loss.draw(key, target)
    velocity = head.velocity(condition, drawn.time, drawn.noisy, history)
    error, metrics = flow_loss.measure(velocity, drawn, mask)
    return error / (draws * totals["patches"]), metrics


def _stop_loss(
    weights: Any,
    teaching: generator_lib.Teaching,
    ends: jax.Array,
    *,
    model: pretrained_generation.Model,
) -> tuple[jax.Array, Metrics]:
    """Cross-entropy of "this was the last patch", nats, summed.

    What the generator would do after the true patches is measured: the share of last patches that
    it would pass by, and of others which it would not have made any more.
    """
    head = model.generator.head.bind({"params": weights["head"]})
    logits = head.stop_logits(teaching.states[:, 1:])
    is_last, goes_on = _scored(teaching.mask, teaching.sound, ends)
    is_scored = is_last | goes_on
    survives = jnp.where(is_scored, flow_head.log_survival(logits), 0.0)
    has_ended = flow_head.has_ended(jnp.cumsum(survives, axis=1))
    loss = optax.sigmoid_binary_cross_entropy(logits, is_last.astype(jnp.float32))
    loss = jnp.sum(jnp.where(is_scored, loss, 0.0))

    def share(wrong, among):
        return jnp.sum(wrong & among, dtype=jnp.float32), jnp.sum(among, dtype=jnp.float32)

    return loss, {
        "stop_loss": (loss, jnp.sum(is_scored, dtype=jnp.float32)),
        "stop_missed": share(~has_ended, is_last),
        "stop_early": share(has_ended, goes_on),
    }


def _patch_error(
    weights: Any, learned: _Learned, key: jax.Array, *, model: pretrained_generation.Model
) -> tuple[jax.Array, jax.Array]:
    """Mean square distance of patches sampled after true ones, from the true ones."""
    noise = jax.random.normal(key, learned.targets.shape)
    drawn = model.generator.sample(
        weights, learned.states, learned.tokens, learned.history, noise, sampler=model.sampler
    )
    error = jnp.mean(jnp.square(drawn - learned.targets), axis=(1, 2))
    error = jnp.sum(jnp.where(learned.mask, error, 0.0))
    return error, jnp.sum(learned.mask, dtype=jnp.float32)


def batch_totals(batch: stage.Batch, model: pretrained_generation.Model) -> dict[str, jax.Array]:
    """What the summed losses are divided by, once: patches, stops and answers of the whole batch.

    Counted before packing, like representation_loss.batch_totals.
    """
    mask = model.frozen.frame_mask(batch)
    patch = model.generator.patch
    whole = mask[:, : mask.shape[1] // patch * patch].reshape(mask.shape[0], -1, patch)
    sound = jnp.all(whole, axis=-1)
    is_last, goes_on = _scored(sound, sound, batch["ends"])
    counted = {
        "patches": _taught(sound, batch["begins"]),
        "stops": is_last | goes_on,
        "answers": batch["answer"] & batch["text_mask"],
    }
    sums = {name: jnp.sum(which, dtype=jnp.float32) for name, which in counted.items()}
    return {name: jnp.maximum(count, 1.0) for name, count in sums.items()}


def signs(config: ml_collections.ConfigDict) -> tuple[stage.Sign, ...]:
    """What the metrics of `total_loss` look like when the head has collapsed."""
    still = stands_still("flow head", pretrained_generation.HEAD)
    endless = stage.Sign(metrics=("train/stop_missed",), shows=_never_ends, steps=_STEPS_ENDLESS)
    return (still, endless) if config.flow.stop_weight else (still,)


def stands_still(model: str, player: str) -> stage.Sign:
    """Of a model, as a user calls it, that predicts no velocity."""

    def shows(velocity_rms: float) -> str:
        if velocity_rms > _LEAST_VELOCITY:
            return ""
        return (
            f"the {model} predicts a velocity of {velocity_rms:.2g} where noise alone has 1: it has "
            f"collapsed; raise config.optimizer.{player}.learning_rate, or lower it where "
            f"gradient_norm is large, and look at {NORM.format(player=player)}"
        )

    return stage.Sign(metrics=("train/velocity_rms",), shows=shows, steps=_STEPS_STILL)


def _never_ends(missed: float) -> str:
    if missed < _MOST_MISSED:
        return ""
    return (
        f"the generator passes by {missed:.1%} of the last patches: it never stops; raise "
        "config.flow.stop_weight, and look at stop_loss"
    )
