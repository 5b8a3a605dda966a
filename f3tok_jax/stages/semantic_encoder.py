# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The stage of a semantic encoder: masked autoencoding of mel spectra, where no published one is given.

The mel bands' means and variances are measured before the first step and stay as they are, in training
too, where Dasheng's move with every batch.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from f3tok_jax.models import masked_autoencoder
from f3tok_jax.models import semantic_encoder as encoder_lib
from f3tok_jax.models.transformer import transformer
from f3tok_jax.pretrained import semantic_encoder as pretrained
from f3tok_jax.runs import lineage
from f3tok_jax.signal import decibels
from f3tok_jax.stages import sound as sound_lib
from f3tok_jax.training import microbatches
from f3tok_jax.training import optimizer
from f3tok_jax.training import players
from f3tok_jax.training import stage
from f3tok_jax.training import state as train_state
from f3tok_jax.training import validation

PLAYER = pretrained.STAGE
Metrics = dict[str, tuple[jax.Array, jax.Array]]

_SAMPLE_RATE = 16_000  # Hz, at which all semantic encoders hear
_STEPS_GUESSED = 500  # in a row; fresh weights need fewer to tell what is usual; chosen


def validate(config: ml_collections.ConfigDict) -> None:
    """Refuses a geometry that does not fit together, and masks that leave nothing to see or to tell."""
    model, masking, source = config.model, config.masking, validation.source(config)
    validation.positive(
        config,
        *(f"decoder.{name}" for name in ("num_layers", "width", "num_heads")),
        *("masking.group", "mel_norm.statistics_seconds"),
    )
    for section, has in (("model", model), ("decoder", config.decoder)):
        if has.width % has.num_heads:
            raise ValueError(
                f"config.{section}.width={has.width} ({source}) must be a multiple of "
                f"config.{section}.num_heads={has.num_heads}"
            )
    if model.sample_rate != _SAMPLE_RATE:
        raise ValueError(
            f"config.model.sample_rate={model.sample_rate} ({source}) must be {_SAMPLE_RATE}, at which "
            "semantic encoders hear: build shards at that rate"
        )
    crop = config.data.crop_frames
    if crop > model.max_patches:
        raise ValueError(
            f"config.data.crop_frames={crop} ({source}) must be at most config.model.max_patches="
            f"{model.max_patches}, which have learned places"
        )
    if not 0.0 < masking.ratio < 1.0 or not masked_autoencoder.num_seen(crop, masking.ratio):
        raise ValueError(
            f"config.masking.ratio={masking.ratio} ({source}) must lie between 0 and 1 and leave something "
            f"to be seen of config.data.crop_frames={crop}: lower it or raise that"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """What the stage trains; no arrays.

    Attributes:
        encoder: of which later stages read the features.
        decoder: which tells what the encoder has not seen; nothing reads it later.
        config: of the run.
    """

    encoder: encoder_lib.SemanticEncoder
    decoder: masked_autoencoder.Decoder
    config: ml_collections.ConfigDict

    @property
    def patch_size(self) -> int:
        """Values of a mel patch."""
        return self.encoder.num_mels * self.encoder.patch_frames

    def score(
        self, params: Any, frozen: Any, batch: stage.Batch, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Error of the patches of a batch that `key` hides: the sum, and how many they are."""
        mask, options = batch["mask"], self.config.masking
        waveform = jnp.where(mask, batch["waveform"], 0.0)
        valid = self.encoder.feature_mask(mask)
        masking = masked_autoencoder.draw(key, valid, ratio=options.ratio, group=options.group)
        with jax.named_scope("semantic_encoder"):
            variables = {"params": params["encoder"], encoder_lib.STATISTICS: frozen}
            patches = self.encoder.mel_patches(waveform, mask)
            seen = masked_autoencoder.seen_of(
                masking, self.encoder.apply(variables, patches, method="embed")
            )
            features = self.encoder.apply(variables, seen, masking.is_seen, method="encode")
        with jax.named_scope("masked_decoder"):
            told = self.decoder.apply({"params": params["decoder"]}, features, masking)
        with jax.named_scope("losses"):
            return masked_autoencoder.error(told, masked_autoencoder.normalized(patches), masking)


def make_model(config: ml_collections.ConfigDict) -> Model:
    """The modules of a run's config."""
    encoder = pretrained.make(config)
    decoder = masked_autoencoder.Decoder(
        **config.decoder,
        max_patches=config.model.max_patches,
        patch_size=encoder.num_mels * encoder.patch_frames,
        remat=config.model.remat,
        compute_dtype=config.model.compute_dtype,
    )
    return Model(encoder=encoder, decoder=decoder, config=config)


def make_stage(
    config: ml_collections.ConfigDict, run: lineage.Lineage | None = None
) -> stage.Stage:
    """The stage as the training loop sees it; its one player is "semantic_encoder"."""
    run, model = run or lineage.Lineage(config=config), make_model(config)
    optimizers, sound = players.make_players(config, [PLAYER]), run.sound
    open_data = functools.partial(sound_lib.open_pipeline, config=config, sound=sound)
    return stage.Stage(
        batch_spec=sound.batch_spec(config.data),
        init_state=functools.partial(init_state, model=model, optimizers=optimizers),
        open_data=functools.partial(open_data, crops={}),
        statistics=stage.Statistics(
            num_examples=_num_examples(config),
            example={
                name: jax.ShapeDtypeStruct(array.shape[1:], array.dtype)
                for name, array in sound.batch_spec(config.data).items()
            },
            open_data=lambda **rows: open_data(
                run.places.mapped_mixture(config.data.train), crops={"random_crop": False}, **rows
            ),
            sums=functools.partial(_sums, model=model),
            finish=_finish,
        ),
        abstract_frozen=pretrained.abstract_statistics(model.encoder),
        load_frozen=_load_frozen,
        train_step=functools.partial(train_step, model=model, optimizers=optimizers),
        eval_step=functools.partial(eval_step, model=model),
        watched=(
            stage.Watched(
                metric="train/loss", lever=f"lower config.optimizer.{PLAYER}.learning_rate"
            ),
            optimizer.watched_norm(PLAYER),
        ),
        signs=(stage.Sign(metrics=("train/loss",), shows=_only_guesses, steps=_STEPS_GUESSED),),
        best_metric="eval/loss",
        best_from=players.last_start(optimizers),
        sample_rate=sound.sample_rate,
        per_batch=sound_lib.seconds_per_batch(config, sound),
        model_flops=model_flops(model),
    )


def _num_examples(config: ml_collections.ConfigDict) -> int:
    """Of which the statistics are taken."""
    samples = sound_lib.crop_length(config, lineage.Lineage(config=config).sound)
    wanted = config.mel_norm.statistics_seconds * config.model.sample_rate
    return -(-wanted // samples)


def _sums(frozen: Any, batch: stage.Batch, *, model: Model) -> tuple[jax.Array, ...]:
    """Of the mel bands in decibels: sums, sums of squares, and how many frames."""
    del frozen
    mask, encoder = batch["mask"], model.encoder
    levels = encoder.mel_decibels(jnp.where(mask, batch["waveform"], 0.0), mask)
    lengths = jnp.sum(mask, axis=1, dtype=jnp.int32)
    counts = jnp.where(lengths > 0, decibels.num_frames(lengths, encoder.hop_length), 0)
    total = jnp.sum(levels, axis=(0, 1))  # what is no sound is 0
    return total, jnp.sum(jnp.square(levels), axis=(0, 1)), jnp.sum(counts).astype(jnp.float32)


def _finish(sums: Sequence[np.ndarray]) -> dict[str, list[float]]:
    """Mean and variance of each mel band, of added `_sums`."""
    total, squares, count = sums
    if not count or not np.isfinite(total).all():
        raise ValueError(
            "the mel bands need frames of finite sound to be measured on, got "
            f"{int(count)} of config.data.train: look at its shards"
        )
    mean = total / count
    variance = np.maximum(squares / count - np.square(mean), 0.0)
    return {pretrained.MEAN: mean.tolist(), pretrained.VARIANCE: variance.tolist()}


def _load_frozen(shardings: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    arrays = pretrained.statistics(measured)[encoder_lib.STATISTICS]
    return jax.device_put(arrays, {name: shardings[name] for name in arrays})


def model_flops(model: Model) -> float:
    """Multiplications and additions of a step's products: three passes' worth of what is trained, two
    where no gradient need go further back. The encoder has what is seen alone, and of the decoder's last
    product what is hidden counts."""
    config, encoder, decoder = model.config, model.encoder, model.decoder
    count = config.data.crop_frames
    seen = masked_autoencoder.num_seen(count, config.masking.ratio)
    blocks = [
        sum(transformer.forward_flops(encoder_lib.make_transformer(**shape), length))
        for shape, length in ((_shape(encoder), seen), (_shape(decoder), count))
    ]
    first = 2.0 * seen * model.patch_size * encoder.width
    edges = 2.0 * seen * encoder.width * decoder.width
    edges += 2.0 * (count - seen) * decoder.width * model.patch_size
    return config.data.batch_size * (2.0 * first + 3.0 * (sum(blocks) + edges))


def _shape(module: Any) -> dict[str, Any]:
    names = ("num_layers", "width", "num_heads", "remat", "compute_dtype")
    return {name: getattr(module, name) for name in names}


def init_state(
    key: jax.Array, *, model: Model, optimizers: optimizer.Players
) -> train_state.TrainState:
    """Fresh parameters and optimizer, boxed in their logical axes."""
    key_of = functools.partial(train_state.step_key, key, 0)
    encoder, frames = model.encoder, model.encoder.patch_frames
    sound = jnp.zeros((1, 4 * frames * encoder.hop_length))
    masking = masked_autoencoder.draw(
        key, jnp.ones((1, 4), jnp.bool_), ratio=0.5, group=model.config.masking.group
    )
    features = jnp.zeros((1, 2, encoder.width))
    decoder = model.decoder.init(key_of("decoder"), features, masking)
    params = {
        "encoder": encoder.init(key_of("encoder"), sound)["params"],
        "decoder": decoder["params"],
    }
    return optimizer.init_state({PLAYER: params}, optimizers)


def train_step(
    state: train_state.TrainState,
    frozen: Any,
    batch: stage.Batch,
    *,
    model: Model,
    optimizers: optimizer.Players,
) -> tuple[train_state.TrainState, Metrics]:
    """One step on what is hidden."""
    config = model.config
    key = train_state.step_key(config.seed, state.step, "mask")
    # What the summed errors are divided by, as far as it does not depend on the draws: once.
    num_patches = jnp.sum(model.encoder.feature_mask(batch["mask"]), dtype=jnp.float32)
    num_hidden = jnp.maximum(config.masking.ratio * num_patches, 1.0)

    def gradients(microbatch, index):
        def loss(params):
            own = jax.random.fold_in(key, index)
            total, weight = model.score(params, frozen, microbatch, own)
            return total / num_hidden, {"loss": (total, weight)}

        return jax.grad(loss, has_aux=True)(state.params[PLAYER])

    grads, metrics = microbatches.accumulated(gradients, batch, config.optimizer.accumulate)
    return optimizer.finish_step(
        state,
        {PLAYER: grads},
        metrics,
        optimizers=optimizers,
        ema_decay=config.optimizer.ema_decay,
    )


def eval_step(
    state: train_state.TrainState, frozen: Any, batch: stage.Batch, *, model: Model
) -> Metrics:
    """The loss of the averaged weights, with the same patches hidden each time."""
    key = train_state.step_key(model.config.seed, 0, "evaluated mask")
    return {"eval/loss": model.score(state.ema_params[PLAYER], frozen, batch, key)}


def _only_guesses(loss: float) -> str:
    """Whether the loss is that of the mean of each patch, 1 but for a 256th, or worse."""
    if loss < 0.98:
        return ""
    return (
        f"the semantic encoder only guesses: its loss is {loss:.3g}, that of each patch's own mean 1; lower "
        f"config.optimizer.{PLAYER}.learning_rate, or give it a longer warm-up"
    )


STAGE = stage.Definition(
    name=PLAYER,
    make=make_stage,
    validate=validate,
    derived=sound_lib.derived,
    scopes=("semantic_encoder", "masked_decoder"),
    words=stage.Words(
        title="Semantic encoder",
        introduction="A semantic encoder turns sound into features that say what is heard, 25 a second. "
        "It learns by hearing a part of a sound and telling the rest (masked autoencoding). Frozen, "
        "it gives other tokenizers their semantic half where no published encoder is given.",
        curves={
            "loss": "Mean square, of the hidden parts of mel spectra, of what is told less what is heard, "
            "each part of variance 1.",
            "filled": "Share of the batches that is sound; the rest is padding.",
        },
    ),
)
