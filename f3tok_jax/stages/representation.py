# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The second stage: the representation encoder, on the latents of a frozen autoencoder.

Two losses teach it: to predict random-quantized labels of the frames ahead (RQ-MTP), and to be
understood by a frozen language model.
"""

from collections.abc import Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from f3tok_jax.models import sequences as sequences_lib
from f3tok_jax.models.transformer import transformer
from f3tok_jax.runs import lineage
from f3tok_jax.stages import first_examples
from f3tok_jax.stages import representation_loss
from f3tok_jax.stages import rq_targets
from f3tok_jax.stages import sound as sound_lib
from f3tok_jax.training import microbatches
from f3tok_jax.training import optimizer
from f3tok_jax.training import players
from f3tok_jax.training import stage
from f3tok_jax.training import state as train_state
from f3tok_jax.training import validation

_RATE = f"config.optimizer.{lineage.ENCODER}.learning_rate"


def validate(config: ml_collections.ConfigDict) -> None:
    """Refuses losses that teach nothing, and targets that are not there."""
    rq, supervision, source = config.rq, config.supervision, validation.source(config)
    validation.positive(config, "supervision.patch", "supervision.max_tokens")
    if rq.weight < 0 or supervision.weight < 0 or not rq.weight + supervision.weight > 0:
        raise ValueError(
            f"config.rq.weight={rq.weight} and config.supervision.weight={supervision.weight} "
            f"({source}) must not be negative, and one of them above 0"
        )
    if rq.target not in ("latents", "log_mel"):
        got = f"got {rq.target!r} ({source})"
        raise ValueError(f"config.rq.target must be 'latents' or 'log_mel', {got}")
    if rq.normalization not in rq_targets.NORMALIZATIONS:
        raise ValueError(
            f"config.rq.normalization must be one of {rq_targets.NORMALIZATIONS}, got "
            f"{rq.normalization!r} ({source})"
        )
    if rq.normalization == "leading":
        validation.positive(config, "rq.directions")
    if rq.target == "log_mel" and config.data.latents:
        raise ValueError(
            f"config.rq.target='log_mel' ({source}) needs sound, got config.data.latents=True: "
            "train on shards of sound, or on the target 'latents'"
        )
    if supervision.weight and not any(supervision.tasks.values()):
        raise ValueError(
            f"config.supervision.tasks ({source}) must give some task a weight above 0, or "
            "config.supervision.weight be 0"
        )
    start = players.start_of(config, lineage.ENCODER, "projector")
    if supervision.weight and (start is None or (start and not rq.weight)):
        key = f"config.optimizer.{lineage.ENCODER}.modules.projector.start"
        raise ValueError(
            f"{key}={config.optimizer.encoder.modules.projector.start} ({source}), from which on "
            f"the language model teaches, must lie in the run with config.supervision.weight="
            f"{supervision.weight}, and be 0 with config.rq.weight=0, got {rq.weight}"
        )


def make_stage(
    config: ml_collections.ConfigDict, run: lineage.Lineage | None = None
) -> stage.Stage:
    """The representation stage as the training loop sees it; see stage.Definition.make."""
    model = representation_loss.make_model(config, run)
    frozen, targets = model.frozen, model.targets
    absent = [name for name in ("heads", "projector") if getattr(model, name) is None]
    optimizers = players.make_players(config, [lineage.ENCODER], without=absent)
    spec = frozen.sound.batch_spec(config.data)
    text, supervision = None, config.supervision
    if model.projector is not None:
        spec |= sequences_lib.text_spec(config.data.batch_size, supervision.max_tokens)
        folder = frozen.run.language_model_folder
        text = sound_lib.text_tasks(folder, supervision.tasks, supervision.max_tokens)
    needs = functools.partial(
        row_needs, patch=supervision.patch if model.projector is not None else 0
    )
    rows = sound_lib.shared_rows(config, frozen.sound, needs, max_tokens=supervision.max_tokens)
    return stage.Stage(
        **sound_lib.of_latents(config, frozen.run, text, rows, frozen.check_named),
        batch_spec=spec,
        init_state=functools.partial(init_state, model=model, optimizers=optimizers),
        statistics=_statistics(model),
        abstract_frozen=frozen.abstract() | (targets.abstract() if targets else {}),
        load_frozen=functools.partial(_load_frozen, model=model),
        train_step=functools.partial(train_step, model=model, optimizers=optimizers),
        eval_step=functools.partial(eval_step, model=model),
        watched=(
            *(
                stage.Watched(metric=f"train/{name}", lever=f"lower {_RATE}")
                for name in ("rq_loss/k1", "answer_loss")
            ),
            optimizer.watched_norm(lineage.ENCODER),
        ),
        signs=representation_loss.signs(config.rq),
        best_from=players.last_start(optimizers),
        best_metric="eval/answer_loss" if model.projector is not None else "eval/rq_loss/k1",
        model_flops=model_flops(model),
    )


def _statistics(model: representation_loss.Model) -> stage.Statistics | None:
    """What RQ-MTP needs, and the rms of latents that are not normalised, in one pass."""
    frozen, targets = model.frozen, model.targets
    is_scaled = not frozen.run.normalizes_latents
    if not targets and not is_scaled:
        return None

    def sums(batch, latents, mask):
        energy = first_examples.energy(latents, mask) if is_scaled else ()
        return *energy, *(targets.sums(batch, latents, mask) if targets else ())

    def finish(sums):
        energy, others = (sums[:2], sums[2:]) if is_scaled else ((), sums)
        measured = targets.finish(others) if targets else {}
        return measured | ({lineage.LATENT_RMS: first_examples.rms(energy)} if is_scaled else {})

    num_frames = model.config.rq.statistics_frames
    return first_examples.statistics(model.config, frozen, sums, finish, num_frames=num_frames)


def row_needs(num_frames: int, num_tokens: int, *, patch: int) -> dict[str, int]:
    """What an example takes of the rows of encoder and language model; patch 0 without the latter."""
    if not patch:
        return {"frames": num_frames}
    # Without text it takes no room in the language model at all.
    positions = num_tokens and sequences_lib.num_positions(num_frames, num_tokens, patch=patch)
    return {"frames": num_frames, "positions": positions}


def _load_frozen(
    shardings: Mapping[str, Any], measured: Mapping[str, Any], *, model: representation_loss.Model
) -> dict[str, Any]:
    """Everything that the step reads and nothing trains, each where it belongs."""
    # Not measured where the autoencoder normalises.
    rms = measured.get(lineage.LATENT_RMS, 1.0)
    placed = model.frozen.load(shardings, latent_rms=rms)
    return placed | model.targets.load(shardings, measured) if model.targets else placed


def model_flops(model: representation_loss.Model) -> float:
    """Multiplications and additions of a step's products that no implementation can do without.

    Six per weight and position that is trained, four per weight of the frozen language model (no
    gradient of its weights), twelve per pair of attention. Frozen autoencoder not counted. Rows are
    taken to be full, of as many examples as share one, of one length: what of the language model's
    positions is neither audio nor its edges is text, and that alone has logits.
    """
    config = model.config
    examples = config.packing.examples
    rows = config.data.batch_size // examples
    frames = examples * config.data.crop_frames
    frames = min(config.packing.frames or frames, frames)
    total = 3.0 * sum(transformer.forward_flops(model.encoder, frames, segments=examples))
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
    total += 3.0 * model.projector.forward_flops(frames, config.model.width)
    length = examples * sequences_lib.num_positions(
        config.data.crop_frames, section.max_tokens, patch=section.patch
    )
    length = min(config.packing.positions or length, length)
    # Forward, and backward through activations: attention's two products have two gradients each.
    dense, attended = transformer.forward_flops(
        language_model.transformer, length, segments=examples
    )
    total += 2.0 * dense + 3.0 * attended
    heard = examples * sequences_lib.num_positions(frames // examples, 0, patch=section.patch)
    scored = max(0, min(examples * section.max_tokens, length - heard))
    total += 4.0 * scored * language_model.vocabulary_size * language_model.width
    return rows * total


def init_state(
    key: jax.Array,
    *,
    model: representation_loss.Model,
    optimizers: optimizer.Players,
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
    return optimizer.init_state({lineage.ENCODER: params}, optimizers)


def train_step(
    state: train_state.TrainState,
    frozen: Any,
    batch: stage.Batch,
    *,
    model: representation_loss.Model,
    optimizers: optimizer.Players,
) -> tuple[train_state.TrainState, representation_loss.Metrics]:
    """One step: RQ-MTP from the beginning, the language model from the projector's start on."""
    config = model.config
    projector = optimizers[lineage.ENCODER].modules.get("projector")
    is_supervised = projector is not None and projector.learns(state.step)
    totals = representation_loss.batch_totals(batch, model)
    noise_key = train_state.step_key(config.seed, state.step, "noise")

    def gradients(microbatch, index):
        options = dict(model=model, is_supervised=is_supervised)
        options["noise_key"] = jax.random.fold_in(noise_key, index)
        gradient = jax.grad(representation_loss.total_loss, has_aux=True)
        params = state.params[lineage.ENCODER]
        grads, metrics = gradient(params, frozen, microbatch, totals, **options)
        return {lineage.ENCODER: grads}, metrics

    grads, metrics = microbatches.accumulated(
        gradients,
        batch,
        config.optimizer.accumulate,
        examples_per_row=config.packing.examples,
    )
    return optimizer.finish_step(
        state, grads, metrics, optimizers=optimizers, ema_decay=config.optimizer.ema_decay
    )


def eval_step(
    state: train_state.TrainState,
    frozen: Any,
    batch: stage.Batch,
    *,
    model: representation_loss.Model,
) -> representation_loss.Metrics:
    """Both losses of the averaged weights, without noise."""
    totals, params = representation_loss.batch_totals(batch, model), state.ema_params
    options = dict(model=model, is_supervised=True, noise_key=None)
    _, metrics = representation_loss.total_loss(
        params[lineage.ENCODER], frozen, batch, totals, **options
    )
    return {f"eval/{name}": value for name, value in metrics.items()}


STAGE = stage.Definition(
    name="representation",
    make=make_stage,
    validate=validate,
    derived=sound_lib.derived,
    scopes=("autoencoder", "representation_encoder", "rq_mtp", "projector", "language_model"),
    evaluation="transcription",
    words=stage.Words(
        title="Representation encoder",
        introduction="A representation encoder turns the latents of a frozen autoencoder into "
        "vectors that say what is in the sound. It learns by predicting quantized latents some "
        "frames ahead (RQ-MTP), and by making itself understood to a frozen language model that "
        "answers questions on the sound. Probes show what it gains over raw latents.",
        curves={
            "rq_loss": "Cross entropy, in nats, of the quantized latents k frames ahead.",
            "rq_accuracy": "Share of those that are predicted exactly.",
            "answer_loss": "Cross entropy, in nats per token, of the frozen language model's "
            "answers.",
            "answer_accuracy": "Share of the answers' tokens that it finds most likely, given those "
            "before.",
            "code_perplexity": "How many codes of a codebook are in use: the exponential of the "
            "entropy of their frequencies.",
            "lost": "Share of the encoder's frames and of the language model's positions that had no "
            "room in their row, and taught nothing.",
            "filled": "Share of the batches that is sound; the rest is padding.",
        },
        together={"code_perplexity": "a line per codebook"},
        program="probe",
        results="probe*.json",
    ),
)
