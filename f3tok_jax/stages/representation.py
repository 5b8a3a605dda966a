# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The second stage: the representation encoder, on the latents of a frozen autoencoder.

Two losses teach it: to predict random-quantized labels of the frames ahead (RQ-MTP), and to be
understood by a frozen language model.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from data_pipelines.reading import pipeline
from data_pipelines.reading import tasks
from f3tok_jax.models import packing
from f3tok_jax.models import projector as projector_lib
from f3tok_jax.models import representation_encoder as encoder_lib
from f3tok_jax.models import rq_mtp
from f3tok_jax.models import sequences as sequences_lib
from f3tok_jax.models.transformer import transformer
from f3tok_jax.pretrained import representation as pretrained_representation
from f3tok_jax.runs import lineage
from f3tok_jax.training import microbatches
from f3tok_jax.training import optimizer
from f3tok_jax.training import stage
from f3tok_jax.training import state as train_state

Metrics = dict[str, tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """What the stage trains, and what it asks of frozen models; no arrays.

    Attributes:
        encoder: latents to representations.
        heads: of RQ-MTP; None where that loss has no weight.
        projector: representations to audio tokens; None without supervision.
        frozen: autoencoder, language model and labels.
        config: of the run.
    """

    encoder: encoder_lib.RepresentationEncoder
    heads: rq_mtp.Heads | None
    projector: projector_lib.Projector | None
    frozen: pretrained_representation.FrozenModels
    config: ml_collections.ConfigDict


def make_model(config: ml_collections.ConfigDict) -> Model:
    """The modules of a run's config; reads the configs of the frozen models, no weights."""
    frozen = pretrained_representation.FrozenModels(config)
    heads = projector = None
    if config.rq.weight:
        heads = rq_mtp.Heads(
            num_heads=config.rq.num_heads,
            num_codebooks=config.rq.num_codebooks,
            codebook_size=config.rq.codebook_size,
            kind=config.rq.head,
            bottleneck_dim=config.rq.bottleneck_dim,
            compute_dtype=config.model.compute_dtype,
        )
    if config.supervision.weight:
        projector = pretrained_representation.make_projector(config, frozen.language_model.width)
    encoder = pretrained_representation.make_encoder(config, frozen.sound.latent_dim)
    return Model(encoder=encoder, heads=heads, projector=projector, frozen=frozen, config=config)


def make_stage(config: ml_collections.ConfigDict) -> stage.Stage:
    """The representation stage as the training loop sees it."""
    model = make_model(config)
    sound = model.frozen.sound
    optimizers = {
        lineage.ENCODER: optimizer.make_optimizer(config.optimizer.encoder, config.num_steps)
    }
    crop_length = config.data.crop_frames * sound.samples_per_latent
    text = None
    if model.projector is not None and config.language_model.folder:
        text = tasks.TextTasks(
            config.language_model.folder,
            {name: weight for name, weight in config.supervision.tasks.items() if weight},
            config.supervision.max_tokens,
        )
    return stage.Stage(
        batch_spec=_batch_spec(config, sound),
        init_state=functools.partial(init_state, model=model, optimizers=optimizers),
        open_data=functools.partial(
            _open_data,
            frozen=model.frozen,
            sample_rate=sound.sample_rate,
            crop_length=crop_length,
            batch_size=config.data.batch_size,
            seed=config.seed,
            random_crop=False,
            text=text,
            autoencoder=model.frozen.fingerprints.get("autoencoder"),
            max_replaced=config.data.max_replaced,
            num_threads=config.data.num_threads,
        ),
        frozen_fingerprints=model.frozen.fingerprints,
        measure=model.frozen.measure,
        abstract_frozen=model.frozen.abstract(),
        load_frozen=model.frozen.load,
        train_step=functools.partial(train_step, model=model, optimizers=optimizers),
        eval_step=functools.partial(eval_step, model=model),
        sample=None,
        warnings=functools.partial(_collapse_warnings, section=config.rq),
        best_metric="eval/answer_loss" if model.projector is not None else "eval/rq_loss/k1",
        sample_rate=sound.sample_rate,
        seconds_per_batch=config.data.batch_size * crop_length / sound.sample_rate,
        model_flops=model_flops(model),
    )


def _open_data(
    names: str, *, frozen: pretrained_representation.FrozenModels, **options: Any
) -> pipeline.Pipeline:
    """Opens shards, once it is clear that the models are named that will read them."""
    frozen.check_named()
    return pipeline.Pipeline(names, **options)


def model_flops(model: Model) -> float:
    """Multiplications and additions of a step's products that no implementation can do without.

    Six per weight and position that is trained, four per weight of the frozen language model (no
    gradient of its weights), twelve per pair of attention. Frozen autoencoder not counted.
    """
    config = model.config
    rows = config.data.batch_size // config.packing.examples
    frames = config.packing.examples * config.data.crop_frames
    frames = min(config.packing.frames or frames, frames)
    total = 3.0 * sum(transformer.forward_flops(model.encoder, frames))
    if model.heads is not None:
        rq = config.rq
        labels = rq.num_codebooks * rq.codebook_size
        width = config.model.width if rq.head == "linear" else rq.bottleneck_dim
        weights = rq.num_heads * width * labels
        weights += (rq.head != "linear") * rq.num_heads * config.model.width * width
        total += 6.0 * weights * frames
    if model.projector is None:
        return rows * total
    section, language_model = config.supervision, model.frozen.language_model
    length = config.packing.examples * sequences_lib.num_positions(
        config.data.crop_frames, section.max_tokens, patch=section.patch
    )
    length = min(config.packing.positions or length, length)
    # Forward, and backward through activations: attention's two products have two gradients each.
    dense, attended = transformer.forward_flops(language_model.transformer, length)
    total += 2.0 * dense + 3.0 * attended
    scored = config.packing.examples * section.max_tokens
    total += 4.0 * scored * language_model.vocabulary_size * language_model.width
    return rows * total


def _batch_spec(
    config: ml_collections.ConfigDict, sound: lineage.Sound
) -> dict[str, jax.ShapeDtypeStruct]:
    spec = lineage.sound_spec(config, sound)
    if config.supervision.weight:
        spec |= sequences_lib.text_spec(config.data.batch_size, config.supervision.max_tokens)
    return spec


def init_state(
    key: jax.Array, *, model: Model, optimizers: Mapping[str, optax.GradientTransformation]
) -> train_state.TrainState:
    """Fresh parameters and optimizer, boxed in their logical axes."""
    key_of = functools.partial(train_state.step_key, key, 0)
    config = model.config
    latents = jnp.zeros((1, 8, model.frozen.sound.latent_dim))
    segments = jnp.ones((1, 8), jnp.int32)
    params = {"encoder": model.encoder.init(key_of("encoder"), latents)["params"]}
    states = jnp.zeros((1, 8, config.model.width))
    if model.heads is not None:
        labels = jnp.zeros((1, 8, config.rq.num_codebooks), jnp.int32)
        params["heads"] = model.heads.init(key_of("heads"), states, labels, segments)["params"]
    if model.projector is not None:
        params["projector"] = model.projector.init(key_of("projector"), states)["params"]
    return train_state.TrainState(
        step=jnp.zeros((), jnp.int32),
        params={lineage.ENCODER: params},
        opt_state={name: tx.init(params) for name, tx in optimizers.items()},
        ema_params={lineage.ENCODER: params},
    )


def train_step(
    state: train_state.TrainState,
    frozen: Any,
    batch: stage.Batch,
    *,
    model: Model,
    optimizers: Mapping[str, optax.GradientTransformation],
) -> tuple[train_state.TrainState, Metrics]:
    """One step: RQ-MTP from the beginning, the language model from its share of the run on."""
    config = model.config
    first_supervised = round(config.supervision.start * config.num_steps)
    totals = _totals(batch, model)
    noise_key = train_state.step_key(config.seed, state.step, "noise")

    def gradients(microbatch, index):
        grads, metrics = jax.grad(_loss, has_aux=True)(
            state.params[lineage.ENCODER],
            frozen,
            microbatch,
            totals,
            model=model,
            is_supervised=state.step >= first_supervised,
            noise_key=jax.random.fold_in(noise_key, index),
        )
        return {lineage.ENCODER: grads}, metrics

    grads, metrics = microbatches.accumulated(gradients, batch, config.optimizer.accumulate)
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(norm)
    state = optimizer.advance(
        state,
        grads,
        {lineage.ENCODER: finite},
        optimizers=optimizers,
        ema_decay=config.optimizer.ema_decay,
    )
    metrics["gradient_norm"] = norm, jnp.float32(1.0)
    metrics["nonfinite"] = jnp.float32(~finite), jnp.float32(1.0)
    return state, {f"train/{name}": value for name, value in metrics.items()}


def eval_step(
    state: train_state.TrainState, frozen: Any, batch: stage.Batch, *, model: Model
) -> Metrics:
    """Both losses of the averaged weights, without noise."""
    totals = _totals(batch, model)
    _, metrics = _loss(
        state.ema_params[lineage.ENCODER],
        frozen,
        batch,
        totals,
        model=model,
        is_supervised=True,
        noise_key=None,
    )
    return {f"eval/{name}": value for name, value in metrics.items()}


def _loss(
    params: Any,
    frozen: Any,
    batch: stage.Batch,
    totals: Mapping[str, jax.Array],
    *,
    model: Model,
    is_supervised: jax.Array | bool,
    noise_key: jax.Array | None,
) -> tuple[jax.Array, Metrics]:
    """The weighted sum of both losses, divided by the sums of the whole batch, and the metrics."""
    config = model.config
    latents, mask = model.frozen.latents(frozen, batch)
    segments = _segments(mask, config.packing.examples)
    rows = functools.partial(_rows, examples=config.packing.examples)
    slots = rows(mask)
    length = min(config.packing.frames or slots.shape[1], slots.shape[1])
    plan = packing.pack(slots, length=length)
    segments = packing.take(plan, rows(segments))
    with jax.named_scope("representation_encoder"):
        states = model.encoder.apply(
            {"params": params["encoder"]},
            packing.take(plan, rows(latents)),
            segments=segments,
            noise_key=noise_key,
        )
    loss, metrics = jnp.float32(0.0), {}
    if model.heads is not None:
        with jax.named_scope("rq_mtp"):
            labels = model.frozen.labels(frozen, batch, latents)
            labels = packing.take(plan, rows(labels))
            outcome = model.heads.apply({"params": params["heads"]}, states, labels, segments)
            loss += config.rq.weight * outcome.total(totals["targets"])
            metrics |= outcome.metrics() | _usage_metrics(labels, segments, config)
    if model.projector is not None:
        back = packing.put_back(plan, states).reshape(*mask.shape, -1)
        supervised = functools.partial(_supervise, frozen=frozen, batch=batch, model=model)
        score = jax.lax.cond(
            is_supervised,
            supervised,
            lambda *_: sequences_lib.Score(*[jnp.float32(0.0)] * 3),
            params["projector"],
            back,
            mask,
        )
        loss += config.supervision.weight * score.loss / totals["answers"]
        metrics["answer_loss"] = score.loss, score.weight
        metrics["answer_accuracy"] = score.correct, score.weight
    return loss, jax.lax.stop_gradient(metrics)


def _supervise(
    params: Any,
    states: jax.Array,
    mask: jax.Array,
    *,
    frozen: Any,
    batch: stage.Batch,
    model: Model,
) -> sequences_lib.Score:
    """What the frozen language model makes of the representations [b, t, d]."""
    config, projector = model.config, model.projector
    with jax.named_scope("projector"):
        audio = projector.apply({"params": params}, states) * frozen["embedding_rms"]
        boundaries = projector.apply({"params": params}, method="start_and_end")
    missing = -mask.shape[1] % config.supervision.patch
    patches = jnp.pad(mask, ((0, 0), (0, missing)))
    patches = jnp.any(patches.reshape(mask.shape[0], -1, config.supervision.patch), axis=-1)
    language_model = model.frozen.language_model.bind({"params": frozen["language_model"]})
    with jax.named_scope("language_model"):
        sequences = sequences_lib.make_sequences(
            audio,
            patches,
            boundaries * frozen["embedding_rms"],
            batch["text"],
            batch["text_mask"],
            batch["answer"],
            embed=language_model.embed,
            examples_per_row=config.packing.examples,
            length=config.packing.positions,
        )
        hidden = language_model(
            sequences.embeddings, positions=sequences.positions, segments=sequences.segments
        )
        return sequences_lib.score(sequences, hidden, language_model.logits)


def _totals(batch: stage.Batch, model: Model) -> dict[str, jax.Array]:
    """What the summed losses are divided by, once: predictions asked for in the whole batch.

    Counted before packing: what has no room in its row weighs nothing, like an example that is not
    there.
    """
    totals = {}
    if model.heads is not None:
        mask = model.frozen.frame_mask(batch)
        labels = jnp.zeros((*mask.shape, 1), jnp.int32)
        _, valid = rq_mtp.shifted_targets(
            labels, mask.astype(jnp.int32), num_heads=model.config.rq.num_heads
        )
        count = jnp.sum(valid, axis=(1, 2), dtype=jnp.float32)
        totals["targets"] = count * model.config.rq.num_codebooks
    if model.projector is not None:
        answers = jnp.sum(batch["answer"] & batch["text_mask"], dtype=jnp.float32)
        totals["answers"] = jnp.maximum(answers, 1.0)
    return totals


def _segments(mask: jax.Array, examples: int) -> jax.Array:
    """[b, t] int32: which example of its row a frame belongs to, from 1; 0 where none is."""
    number = 1 + jnp.arange(mask.shape[0], dtype=jnp.int32) % examples
    return jnp.where(mask, number[:, None], 0)


def _rows(x: jax.Array, examples: int) -> jax.Array:
    """[b, t, ...] to [b / examples, examples * t, ...]."""
    return x.reshape(x.shape[0] // examples, examples * x.shape[1], *x.shape[2:])


def _usage_metrics(
    labels: jax.Array, segments: jax.Array, config: ml_collections.ConfigDict
) -> Metrics:
    usage = rq_mtp.code_usage(labels, segments, codebook_size=config.rq.codebook_size)
    values = rq_mtp.perplexity(usage)
    return {
        _perplexity_name(index): (values[index], jnp.float32(1.0))
        for index in range(config.rq.num_codebooks)
    }


def _perplexity_name(index: int) -> str:
    return f"code_perplexity/{index}"


def _collapse_warnings(
    values: Mapping[str, float], *, section: Mapping[str, Any]
) -> dict[str, str]:
    """One sentence for each codebook that is used too little, by the name of its metric."""
    if not section["weight"]:
        return {}
    names = [f"train/{_perplexity_name(index)}" for index in range(section["num_codebooks"])]
    sentences = rq_mtp.collapse_warnings(
        [values[name] for name in names],
        codebook_size=section["codebook_size"],
        min_share=section["min_perplexity"],
    )
    return {names[index]: sentence for index, sentence in sentences.items()}
