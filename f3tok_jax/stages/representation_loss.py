# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the representation stage lowers: RQ-MTP, and what a frozen language model makes of sound."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from f3tok_jax.models import edges
from f3tok_jax.models import packing
from f3tok_jax.models import projector as projector_lib
from f3tok_jax.models import representation_encoder as encoder_lib
from f3tok_jax.models import rq_mtp
from f3tok_jax.models import sequences as sequences_lib
from f3tok_jax.pretrained import frozen as frozen_lib
from f3tok_jax.pretrained import representation as pretrained_representation
from f3tok_jax.runs import lineage
from f3tok_jax.stages import rq_targets
from f3tok_jax.training import stage

Metrics = dict[str, tuple[jax.Array, jax.Array]]  # name -> (sum, weight)

_STEPS_COLLAPSED = 10  # in a row: a batch of few sounds may use few codes; chosen


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """What the stage trains, and what it asks of frozen models; no arrays.

    Attributes:
        encoder: latents to representations.
        heads: of RQ-MTP; None where that loss has no weight.
        projector: representations to audio tokens; None without supervision.
        frozen: autoencoder and language model.
        targets: of RQ-MTP; None where that loss has no weight.
        config: of the run.
    """

    encoder: encoder_lib.RepresentationEncoder
    heads: rq_mtp.Heads | None
    projector: projector_lib.Projector | None
    frozen: frozen_lib.FrozenModels
    targets: rq_targets.Targets | None
    config: ml_collections.ConfigDict


def make_model(config: ml_collections.ConfigDict, run: lineage.Lineage | None = None) -> Model:
    """The modules of a run's config; reads the configs of the frozen models, no weights."""
    run = run or lineage.Lineage(config=config)
    frozen = frozen_lib.FrozenModels(
        run,
        reads_latents=config.data.latents,
        compute_dtype=config.language_model.compute_dtype,
        remat=config.language_model.remat,
    )
    heads = projector = targets = None
    if config.rq.weight:
        targets = rq_targets.Targets(config, frozen)
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
    return Model(
        encoder=pretrained_representation.make_encoder(run),
        heads=heads,
        projector=projector,
        frozen=frozen,
        targets=targets,
        config=config,
    )


def total_loss(
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
    rows = functools.partial(packing.rows, examples=config.packing.examples)
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
    loss, metrics = jnp.float32(0.0), {"lost/frames": packing.lost(plan, slots)}
    if model.heads is not None:
        with jax.named_scope("rq_mtp"):
            # Packed before they are quantized: what has no room needs no label.
            values = packing.take(plan, rows(model.targets.values(batch, latents)))
            labels = model.targets.labels(frozen, values)
            is_true = packing.take(plan, rows(_true_labels(batch, mask, model)))
            outcome = model.heads.apply(
                {"params": params["heads"]}, states, labels, segments, is_true
            )
            loss += config.rq.weight * outcome.total(totals["targets"])
            metrics |= outcome.metrics() | _usage_metrics(labels, segments, config.rq)
    if model.projector is not None:
        back = packing.put_back(plan, states).reshape(*mask.shape, -1)
        supervised = functools.partial(_supervise, frozen=frozen, batch=batch, model=model)
        zero = jnp.float32(0.0)
        nothing = lambda *_: (sequences_lib.Score(zero, zero, zero), (zero, zero))
        operands = (params["projector"], back, mask)
        score, lost = jax.lax.cond(is_supervised, supervised, nothing, *operands)
        loss += config.supervision.weight * score.loss / totals["answers"]
        metrics["answer_loss"] = score.loss, score.weight
        metrics["answer_accuracy"] = score.correct, score.weight
        metrics["lost/positions"] = lost
    return loss, jax.lax.stop_gradient(metrics)


def _supervise(
    params: Any, states: jax.Array, mask: jax.Array, *, frozen: Any, batch: Any, model: Model
) -> tuple[sequences_lib.Score, tuple[jax.Array, jax.Array]]:
    """What the frozen language model makes of the representations [b, t, d], and what it has lost."""
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
        return sequences_lib.score(sequences, hidden, language_model.logits), sequences.lost


def batch_totals(batch: stage.Batch, model: Model) -> dict[str, jax.Array]:
    """What the summed losses are divided by, once: predictions asked for in the whole batch.

    Counted before packing: what has no room in its row weighs nothing, like an example that is not
    there.
    """
    totals = {}
    if model.heads is not None:
        mask = model.frozen.frame_mask(batch)
        labels = jnp.zeros((*mask.shape, 1), jnp.int32)
        segments, num_heads = mask.astype(jnp.int32), model.config.rq.num_heads
        is_true = _true_labels(batch, mask, model)
        _, valid = rq_mtp.shifted_targets(labels, segments, is_true, num_heads=num_heads)
        count = jnp.sum(valid, axis=(1, 2), dtype=jnp.float32)
        totals["targets"] = count * model.config.rq.num_codebooks
    if model.projector is not None:
        answers = jnp.sum(batch["answer"] & batch["text_mask"], dtype=jnp.float32)
        totals["answers"] = jnp.maximum(answers, 1.0)
    return totals


def _true_labels(batch: stage.Batch, mask: jax.Array, model: Model) -> jax.Array:
    """[b, t] bool: frames whose label is that of the recording, where their sound was cut.

    Args:
        batch: of sound or latents, which are alike in it.
        mask: [b, t] bool, of its frames.
        model: of the run.
    """
    sound, rq = model.frozen.sound, model.config.rq
    per_latent = sound.samples_per_latent
    if rq.target == "log_mel":
        before = after = rq_mtp.log_mel_reach(per_latent, frames_per_latent=rq.mel_frames)
    else:
        autoencoder = model.frozen.autoencoder
        before, after = autoencoder.encoder_history, autoencoder.encoder_lookahead
    # As little sound as may stand behind the last frame: latents do not say how much it is.
    num_samples = per_latent * (jnp.sum(mask, axis=1, dtype=jnp.int32) - 1) + 1
    return edges.true_frames(
        num_samples,
        mask.shape[1],
        batch["begins"],
        batch["ends"],
        samples_per_latent=per_latent,
        before=before,
        after=after,
    )


def _segments(mask: jax.Array, examples: int) -> jax.Array:
    """[b, t] int32: which example of its row a frame belongs to, from 1; 0 where none is."""
    number = 1 + jnp.arange(mask.shape[0], dtype=jnp.int32) % examples
    return jnp.where(mask, number[:, None], 0)


def _usage_metrics(labels: jax.Array, segments: jax.Array, rq: Any) -> Metrics:
    usage = rq_mtp.code_usage(labels, segments, codebook_size=rq.codebook_size)
    values, one = rq_mtp.perplexity(usage), jnp.float32(1.0)
    return {_perplexity_name(index): (values[index], one) for index in range(rq.num_codebooks)}


def _perplexity_name(index: int) -> str:
    return f"code_perplexity/{index}"


def signs(section: Mapping[str, Any]) -> tuple[stage.Sign, ...]:
    """For each codebook, what its metric looks like where it is used too little."""
    limits = dict(codebook_size=section["codebook_size"], min_share=section["min_perplexity"])
    codebooks = range(section["num_codebooks"] if section["weight"] else 0)
    return tuple(
        stage.Sign(
            metrics=(f"train/{_perplexity_name(index)}",),
            shows=functools.partial(rq_mtp.collapse_warning, index, **limits),
            steps=_STEPS_COLLAPSED,
        )
        for index in codebooks
    )
