# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The third stage: a flow head makes latents out of a language model's states.

Autoencoder, representation encoder and projector stay as they are; so does the language model, or a
difference from its weights is trained with the head.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from data_pipelines import pipeline
from data_pipelines import tasks
from f3tok_jax import adaptation
from f3tok_jax import flow_head
from f3tok_jax import generation_models
from f3tok_jax import generator as generator_lib
from f3tok_jax import microbatches
from f3tok_jax import optimizer
from f3tok_jax import packing
from f3tok_jax import pretrained
from f3tok_jax import sharding
from f3tok_jax import stage
from f3tok_jax import supervision
from f3tok_jax import train_state
from f3tok_jax import transformer

HEAD, LANGUAGE_MODEL = "head", "language_model"  # the players

Metrics = dict[str, tuple[jax.Array, jax.Array]]

_NUM_TIME_BINS = 4  # of the flow loss by time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """What the stage trains and what it reads; no arrays.

    Attributes:
        given: the frozen models and the modules.
        config: of the run.
        sampler: of evaluation.
    """

    given: generation_models.GenerationModels
    config: ml_collections.ConfigDict
    sampler: flow_head.Sampler

    @property
    def generator(self) -> generator_lib.Generator:
        return self.given.generator

    @property
    def trains_language_model(self) -> bool:
        return self.config.language_model.train != "nothing"


def make_model(config: ml_collections.ConfigDict) -> Model:
    """The modules of a run's config; reads the configs of the runs before it, no weights."""
    return Model(
        given=generation_models.GenerationModels(config),
        config=config,
        sampler=flow_head.Sampler(**config.sampling),
    )


def make_stage(config: ml_collections.ConfigDict) -> stage.Stage:
    """The generation stage as the training loop sees it."""
    model = make_model(config)
    sound, folder = model.given.frozen.sound, model.given.heard.language_model.folder
    players = [HEAD] + [LANGUAGE_MODEL] * model.trains_language_model
    optimizers = {
        name: optimizer.make_optimizer(config.optimizer[name], config.num_steps) for name in players
    }
    crop_length = config.data.crop_frames * sound.samples_per_latent
    weights = {name: weight for name, weight in config.text.tasks.items() if weight}
    return stage.Stage(
        batch_spec=_batch_spec(config, model),
        init_state=functools.partial(init_state, model=model, optimizers=optimizers),
        open_data=functools.partial(
            _open_data,
            model=model,
            sample_rate=sound.sample_rate,
            crop_length=crop_length,
            batch_size=config.data.batch_size,
            seed=config.seed,
            random_crop=False,
            text=tasks.TextTasks(folder, weights, config.text.max_tokens) if folder else None,
            autoencoder=model.given.frozen.fingerprints.get("autoencoder"),
            max_replaced=config.data.max_replaced,
            num_threads=config.data.num_threads,
        ),
        frozen_fingerprints=model.given.fingerprints,
        abstract_frozen=model.given.abstract(),
        load_frozen=model.given.load,
        train_step=functools.partial(train_step, model=model, optimizers=optimizers),
        eval_step=functools.partial(eval_step, model=model),
        sample=None,
        best_metric="eval/flow_loss",
        sample_rate=sound.sample_rate,
        seconds_per_batch=config.data.batch_size * crop_length / sound.sample_rate,
        model_flops=model_flops(model),
    )


def _open_data(names: str, *, model: Model, **options: Any) -> pipeline.Pipeline:
    """Opens shards, once it is clear that the models are named that will read them."""
    model.given.check_named()
    return pipeline.Pipeline(names, **options)


def _batch_spec(config: ml_collections.ConfigDict, model: Model) -> dict[str, jax.ShapeDtypeStruct]:
    spec = pretrained.sound_spec(config, model.given.frozen.sound)
    return spec | supervision.text_spec(config.data.batch_size, config.text.max_tokens)


def model_flops(model: Model) -> float:
    """Multiplications and additions of a step's products that no implementation can do without.

    Two per weight and position of the encoder and the language model that stay as they are, six of
    what is trained. Frozen autoencoder not counted.
    """
    config, generator = model.config, model.generator
    examples, frames = config.packing.examples, config.data.crop_frames
    rows = config.data.batch_size // examples
    num_patches = examples * (frames // generator.patch)
    num_patches = min(config.packing.patches or num_patches, num_patches)
    head = generator.head
    sequence = 1 + (head.history + 1) * head.patch
    total = 3.0 * num_patches * config.flow.draws * sum(transformer.forward_flops(head, sequence))
    total += examples * sum(transformer.forward_flops(generator.encoder, frames))
    length = examples * supervision.num_positions(
        frames, config.text.max_tokens, patch=generator.patch
    )
    length = min(config.packing.positions or length, length)
    read = sum(transformer.forward_flops(generator.language_model.transformer, length))
    return rows * (total + (3.0 if model.trains_language_model else 1.0) * read)


def init_state(
    key: jax.Array, *, model: Model, optimizers: Mapping[str, optax.GradientTransformation]
) -> train_state.TrainState:
    """Fresh parameters and optimizers, boxed in their logical axes."""
    key_of = functools.partial(train_state.step_key, key, 0)
    head, section = model.generator.head, model.config.language_model
    width = model.generator.language_model.width
    inputs = (
        jnp.zeros((1, width)),
        jnp.zeros((1, width)),
        jnp.zeros((1,)),
        jnp.zeros((1, head.patch, head.latent_dim)),
        jnp.zeros((1, head.history * head.patch, head.latent_dim)),
    )
    params = {HEAD: head.init(key_of(HEAD), *inputs)["params"]}
    if model.trains_language_model:
        params[LANGUAGE_MODEL] = adaptation.init(
            key_of(LANGUAGE_MODEL),
            model.given.abstract()["language_model"],
            kind=section.train,
            rank=section.rank,
        )
    return train_state.TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state={name: tx.init(params[name]) for name, tx in optimizers.items()},
        ema_params=params,
    )


def train_step(
    state: train_state.TrainState,
    frozen: Any,
    batch: stage.Batch,
    *,
    model: Model,
    optimizers: Mapping[str, optax.GradientTransformation],
) -> tuple[train_state.TrainState, Metrics]:
    """One step of the head, and of the language model where it is trained."""
    config = model.config
    totals = _totals(batch, model)
    key = train_state.step_key(config.seed, state.step, "flow")

    def gradients(microbatch, index):
        return jax.grad(_loss, has_aux=True)(
            state.params,
            frozen,
            microbatch,
            totals,
            model=model,
            key=jax.random.fold_in(key, index),
            is_training=True,
        )

    grads, metrics = microbatches.accumulated(gradients, batch, config.optimizer.accumulate)
    norms = {name: optax.tree.norm(grads[name]) for name in optimizers}
    finite = jnp.all(jnp.stack([jnp.isfinite(norm) for norm in norms.values()]))
    state = optimizer.advance(
        state,
        grads,
        dict.fromkeys(optimizers, finite),
        optimizers=optimizers,
        ema_decay=config.optimizer.ema_decay,
    )
    for name, norm in norms.items():
        metrics[f"gradient_norm/{name}"] = norm, jnp.float32(1.0)
    metrics["nonfinite"] = jnp.float32(~finite), jnp.float32(1.0)
    return state, {f"train/{name}": value for name, value in metrics.items()}


def eval_step(
    state: train_state.TrainState, frozen: Any, batch: stage.Batch, *, model: Model
) -> Metrics:
    """The losses of the averaged weights, and how far sampled patches are from the true ones."""
    key = train_state.step_key(model.config.seed, 0, "evaluation")
    _, metrics = _loss(
        state.ema_params,
        frozen,
        batch,
        _totals(batch, model),
        model=model,
        key=key,
        is_training=False,
    )
    return {f"eval/{name}": value for name, value in metrics.items()}


def abstract_params(model: Model) -> dict[str, Any]:
    """Shapes and dtypes of what a run trains, without shardings."""
    state = jax.eval_shape(
        functools.partial(init_state, model=model, optimizers={}), jax.random.key(0)
    )
    return sharding.unbox(state.params)


def generator_weights(params: Any, frozen: Any) -> dict[str, Any]:
    """The weights of generator.Generator, of trained parameters and frozen models."""
    weights = {
        name: frozen[name] for name in ("encoder", "projector", "language_model", "embedding_rms")
    }
    if LANGUAGE_MODEL in params:
        weights["language_model"] = adaptation.apply(
            weights["language_model"], params[LANGUAGE_MODEL]
        )
    return weights | {"head": params[HEAD]}


def _loss(
    params: Any,
    frozen: Any,
    batch: stage.Batch,
    totals: Mapping[str, jax.Array],
    *,
    model: Model,
    key: jax.Array,
    is_training: bool,
) -> tuple[jax.Array, Metrics]:
    """The weighted sum of the losses, divided by the sums of the whole batch, and the metrics."""
    config, generator = model.config, model.generator
    flow, key_of = config.flow, functools.partial(train_state.step_key, key, 0)
    weights = generator_weights(params, frozen)
    latents, mask = model.given.frozen.latents(frozen, batch)
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
    learned = _pack(teaching, config)
    if is_training:
        learned = _disturb(learned, key_of, flow)
    loss, metrics = _flow_loss(weights, learned, key_of("draws"), model=model, totals=totals)
    stop_loss, stop_metrics = _stop_loss(weights, teaching, model=model)
    loss += flow.stop_weight * stop_loss / totals["patches"]
    metrics |= stop_metrics
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


def _pack(teaching: generator_lib.Teaching, config: ml_collections.ConfigDict) -> _Learned:
    """The patches of a batch that are sound, in rows without holes, row after row."""

    def rows(x):
        examples = config.packing.examples
        return x.reshape(x.shape[0] // examples, examples * x.shape[1], *x.shape[2:])

    slots = rows(teaching.mask)
    length = min(config.packing.patches or slots.shape[1], slots.shape[1])
    plan = packing.pack(slots, length=length)

    def flat(x):
        return jax.lax.collapse(packing.take(plan, rows(x)), 0, 2)

    return _Learned(
        states=flat(teaching.states[:, :-1]),
        tokens=flat(teaching.tokens[:, :-1]),
        targets=flat(teaching.targets),
        history=flat(teaching.history),
        mask=plan.valid.reshape(-1),
    )


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
    return dataclasses.replace(
        learned, history=jnp.where(kept, history, 0.0), keeps_condition=keeps
    )


def _flow_loss(
    weights: Any,
    learned: _Learned,
    key: jax.Array,
    *,
    model: Model,
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
    drawn = flow_head.draw(key, target)
    velocity = head.velocity(condition, drawn.time, drawn.noisy, history)
    error = jnp.mean(jnp.square(velocity - drawn.velocity), axis=(1, 2))
    error = jnp.where(mask, error, 0.0)
    metrics = {"flow_loss": (jnp.sum(error), jnp.sum(mask, dtype=jnp.float32))}
    bins = jnp.minimum((drawn.time * _NUM_TIME_BINS).astype(jnp.int32), _NUM_TIME_BINS - 1)
    for index in range(_NUM_TIME_BINS):
        inside = mask & (bins == index)
        metrics[f"flow_loss/t{index / _NUM_TIME_BINS:g}"] = (
            jnp.sum(jnp.where(inside, error, 0.0)),
            jnp.sum(inside, dtype=jnp.float32),
        )
    return jnp.sum(error) / (draws * totals["patches"]), metrics


def _stop_loss(
    weights: Any, teaching: generator_lib.Teaching, *, model: Model
) -> tuple[jax.Array, Metrics]:
    """Cross-entropy of "this was the last patch", nats, summed.

    Where sound fills its row to the end it may have been cut there, and the last patch is not
    scored.
    """
    head = model.generator.head.bind({"params": weights["head"]})
    logits = head.stop_logits(teaching.states[:, 1:])
    mask = teaching.mask
    follows = jnp.pad(mask[:, 1:], ((0, 0), (0, 1)))
    is_last = mask & ~follows
    is_scored = mask.at[:, -1].set(False)
    is_last, goes_on = is_last & is_scored, ~is_last & is_scored
    loss = optax.sigmoid_binary_cross_entropy(logits, is_last.astype(jnp.float32))
    loss = jnp.sum(jnp.where(is_scored, loss, 0.0))

    def share(wrong, among):
        return jnp.sum(wrong & among, dtype=jnp.float32), jnp.sum(among, dtype=jnp.float32)

    return loss, {
        "stop_loss": (loss, jnp.sum(is_scored, dtype=jnp.float32)),
        "stop_missed": share(logits <= 0, is_last),
        "stop_early": share(logits > 0, goes_on),
    }


def _patch_error(
    weights: Any, learned: _Learned, key: jax.Array, *, model: Model
) -> tuple[jax.Array, jax.Array]:
    """Mean square distance of patches sampled after true ones, from the true ones."""
    noise = jax.random.normal(key, learned.targets.shape)
    drawn = model.generator.sample(
        weights, learned.states, learned.tokens, learned.history, noise, sampler=model.sampler
    )
    error = jnp.mean(jnp.square(drawn - learned.targets), axis=(1, 2))
    error = jnp.sum(jnp.where(learned.mask, error, 0.0))
    return error, jnp.sum(learned.mask, dtype=jnp.float32)


def _totals(batch: stage.Batch, model: Model) -> dict[str, jax.Array]:
    """What the summed losses are divided by, once: patches and answers of the whole batch."""
    mask = model.given.frozen.frame_mask(batch)
    patch = model.generator.patch
    whole = mask[:, : mask.shape[1] // patch * patch].reshape(mask.shape[0], -1, patch)
    patches = jnp.sum(jnp.all(whole, axis=-1), dtype=jnp.float32)
    answers = jnp.sum(batch["answer"] & batch["text_mask"], dtype=jnp.float32)
    return {"patches": jnp.maximum(patches, 1.0), "answers": jnp.maximum(answers, 1.0)}
