# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The first stage: the autoencoder and its discriminators, in one compiled step."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from f3tok_jax.devices import sharding
from f3tok_jax.losses import reconstruction as reconstruction_losses
from f3tok_jax.models import autoencoder as autoencoder_lib
from f3tok_jax.models import bottleneck_kinds
from f3tok_jax.models import flops
from f3tok_jax.models import semantic_coder
from f3tok_jax.models.discriminators import discriminators as discriminators_lib
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import exported
from f3tok_jax.pretrained import semantic_autoencoder as pretrained_semantic_autoencoder
from f3tok_jax.runs import lineage
from f3tok_jax.runs import sound as run_sound
from f3tok_jax.stages import adversarial
from f3tok_jax.stages import autoencoder_loss
from f3tok_jax.stages import latent_statistics
from f3tok_jax.stages import semantic_autoencoder
from f3tok_jax.stages import sound as sound_lib
from f3tok_jax.training import microbatches
from f3tok_jax.training import optimizer
from f3tok_jax.training import players
from f3tok_jax.training import stage
from f3tok_jax.training import state as train_state
from f3tok_jax.training import validation

Metrics = dict[str, tuple[jax.Array, jax.Array]]

_NORM = "gradient_norm/{player}"
_WON = 0.1  # of the generator's loss: that of discriminators which tell all sounds apart; chosen
_STEPS_WON = 200  # in a row: for a moment they may; chosen


def validate(config: ml_collections.ConfigDict) -> None:
    """Refuses a geometry that does not fit together and losses that do not fit it."""
    model, losses, source = config.model, config.losses, validation.source(config)
    try:
        if run_sound.is_semantic(config):
            semantic_autoencoder.validate(config)
        else:
            autoencoder_lib.check_geometry(model)
            bottleneck_kinds.make(config.bottleneck).encoder_dim(model.latent_dim)
    except ValueError as error:
        raise ValueError(f"{error} ({source})") from error
    if len(losses.mel_windows) != len(losses.mel_bands):
        raise ValueError(
            "config.losses.mel_bands must have one number per window of config.losses.mel_windows, "
            f"{len(losses.mel_windows)}, got {len(losses.mel_bands)} ({source})"
        )
    if losses.spectrum_hz <= 0:
        raise ValueError(
            f"config.losses.spectrum_hz={losses.spectrum_hz} ({source}) must be above 0: to leave the "
            "distance of spectra out, give config.losses.weights.spectrum=0"
        )
    adversarial.validate(config, source)
    if config.train_only not in ("", "decoder"):
        got = f"got {config.train_only!r} ({source})"
        raise ValueError(f"config.train_only must be '' or 'decoder', {got}")
    if config.train_only and not config.init_from.workdir:
        raise ValueError(
            f"config.train_only='decoder' ({source}) must have in config.init_from.workdir the run "
            "whose encoder it keeps, got '': a random one would never learn"
        )
    crop = sound_lib.crop_length(config, lineage.Lineage(config=config).sound)
    if losses.adversarial_crop > crop:
        raise ValueError(
            f"config.losses.adversarial_crop={losses.adversarial_crop} ({source}) must be at most "
            f"the {crop} samples of an example; lower it or raise config.data.crop_frames"
        )


def derived(
    config: ml_collections.ConfigDict, run: lineage.Lineage | None = None
) -> dict[str, float]:
    """What follows from a config, by name with unit."""
    model, derived = config.model, sound_lib.derived(config, run)
    if run_sound.is_semantic(config):
        return derived
    # Bins that remain after folding and every frequency stride; whole in a valid config.
    divisor = model.fold * math.prod(frequency for _, frequency in model.strides)
    return derived | {
        "num_bins": model.frame_length // 2,
        "bins_left": model.frame_length / 2 / divisor,
    }


def leave_out_discriminators(config: ml_collections.ConfigDict) -> None:
    """Changes a config so that the discriminators never join."""
    config.optimizer.discriminator.start = players.NEVER


def _frozen_modules(config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Modules that never learn, whatever the config gives as their start."""
    return ("encoder",) if config.train_only else ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """What the stage trains; no arrays.

    Attributes:
        autoencoder: the player "generator", and what of it is frozen, where anything is.
        discriminators: the player "discriminator"; None where the run never reaches its start.
        config: of the run.
    """

    autoencoder: pretrained_autoencoder.Autoencoder
    discriminators: discriminators_lib.Discriminators | None
    config: ml_collections.ConfigDict

    @property
    def is_semantic(self) -> bool:
        """Whether sound is heard through a frozen semantic encoder, too."""
        return isinstance(self.autoencoder, semantic_coder.SemanticCoder)

    @property
    def loss_weights(self) -> dict[str, float]:
        """Of what is asked of latents, and of features, by name."""
        asked = dict(self.autoencoder.bottleneck.loss_weights)
        return asked | (semantic_autoencoder.loss_weights(self.config) if self.is_semantic else {})

    def reconstruct(
        self,
        params: Any,
        batch: stage.Batch,
        noise_key: jax.Array | None = None,
        *,
        frozen: Any = None,
    ) -> tuple[jax.Array, autoencoder_lib.Coded]:
        """A batch's waveform [b, n] as it is heard, and what becomes of it."""
        if self.config.train_only:  # No gradient passes the latents, and none is computed.
            params = params | {"encoder": jax.lax.stop_gradient(params["encoder"])}
        waveform = jnp.where(batch["mask"], batch["waveform"], 0.0)
        options = dict(mask=batch["mask"], noise_key=noise_key)
        variables = {"params": pretrained_autoencoder.joined(params, frozen)}
        coded = self.autoencoder.apply(variables, waveform, **options)
        if self.is_semantic:
            coded = semantic_autoencoder.supervised(coded, self.config)
        return waveform, coded

    def reconstruct_in_use(
        self, params: Any, batch: stage.Batch, *, frozen: Any = None
    ) -> tuple[jax.Array, autoencoder_lib.Coded]:
        """The same as the model is used: it hears each crop at its level, and what comes out is
        brought back to that of the crop. In training levels differ by config.data.gain_db."""
        gains = self.autoencoder.gains(batch["waveform"], batch["mask"])
        heard = batch | {"waveform": gains * batch["waveform"]}
        waveform, coded = self.reconstruct(params, heard, frozen=frozen)
        return waveform / gains, coded._replace(reconstruction=coded.reconstruction / gains)

    def told(self, coded: autoencoder_lib.Coded, mask: jax.Array) -> Metrics:
        """What is told of latents in sound, whose samples are `mask` [b, n], and asked of them."""
        frames = self.autoencoder.frame_mask(mask)
        return latent_statistics.measure(coded.latents, frames) | coded.losses


def make_stage(
    config: ml_collections.ConfigDict, run: lineage.Lineage | None = None
) -> stage.Stage:
    """The autoencoder stage as the training loop sees it; it builds on no other run, but where it hears
    through a semantic encoder."""
    run = run or lineage.Lineage(config=config)
    discriminators, names = None, ["generator"]
    if players.start_of(config, "discriminator") is not None:
        discriminators = discriminators_lib.Discriminators(**config.discriminators)
        names.append("discriminator")
    autoencoder = pretrained_autoencoder.make(config, run)
    model = Model(autoencoder=autoencoder, discriminators=discriminators, config=config)
    optimizers = players.make_players(config, names, frozen=_frozen_modules(config))
    sound, frozen, check = run.sound, {}, lambda: None
    if model.is_semantic:
        frozen = semantic_autoencoder.frozen_fields(run, autoencoder)
        check = functools.partial(pretrained_semantic_autoencoder.check_named, run)
    crops = {name: config.data[name] for name in ("gain_db", "salient_db")}
    # Runs of earlier versions have a level of their own for crops, or none at all.
    crops["level_db"] = config.data.get("level_db", config.model.get("level_db", 0.0))
    crop = sound_lib.crop_length(config, sound)
    return stage.Stage(
        batch_spec=sound.batch_spec(config.data),
        init_state=functools.partial(init_state, model=model, optimizers=optimizers, crop=crop),
        open_data=functools.partial(
            sound_lib.open_pipeline, config=config, sound=sound, crops=crops, check=check
        ),
        **frozen,
        read_exported=exported.read,
        train_step=functools.partial(train_step, model=model, optimizers=optimizers),
        eval_step=functools.partial(eval_step, model=model),
        sample=functools.partial(sample, model=model),
        watched=(
            stage.Watched(
                metric="train/mel", lever="lower config.optimizer.generator.learning_rate"
            ),
            *(optimizer.watched_norm(player, _NORM) for player in optimizers),
        ),
        signs=(
            stage.Sign(
                metrics=("train/discriminator", "train/adversarial"),
                shows=_discriminators_have_won,
                steps=_STEPS_WON,
            ),
        ),
        best_metric="eval/mel",
        best_from=players.last_start(optimizers),
        sample_rate=config.model.sample_rate,
        per_batch=sound_lib.seconds_per_batch(config, sound),
        model_flops=model_flops(model),
    )


def model_flops(model: Model) -> float:
    """Multiplications and additions of a step's products with weights, as models.flops counts them.

    Of what is trained three passes' worth, two where no gradient need go further back. The
    discriminators hear both sounds: each goes forward, and back to the weights and through the layers;
    the generated one goes back once more, to the generator.
    """
    config, latents = model.config, model.config.data.crop_frames
    encoder, decoder = flops.halves(model.autoencoder, latents)
    if config.train_only:
        total = encoder.total + 2.0 * decoder.first + 3.0 * decoder.others
    else:
        total = 2.0 * encoder.first + 3.0 * (encoder.others + decoder.total)
    if model.discriminators is not None:
        crop = latents * model.autoencoder.samples_per_latent
        heard = flops.discriminators(config.discriminators, config.losses.adversarial_crop or crop)
        total += 5.0 * heard.first + 7.0 * heard.others
    return config.data.batch_size * total


def init_state(
    key: jax.Array,
    *,
    model: Model,
    optimizers: optimizer.Players,
    crop: int,
) -> train_state.TrainState:
    """Fresh parameters and optimizers; their shapes do not depend on the crop's length."""
    waveform = jnp.zeros((1, crop))
    modules = {"generator": model.autoencoder, "discriminator": model.discriminators}
    params = {}
    for name in optimizers:
        own = train_state.step_key(key, 0, name)
        params[name] = pretrained_autoencoder.init_params(modules[name], own, waveform)
    return optimizer.init_state(params, optimizers, averaged=("generator",))


def train_step(
    state: train_state.TrainState,
    frozen: Any,
    batch: stage.Batch,
    *,
    model: Model,
    optimizers: optimizer.Players,
) -> tuple[train_state.TrainState, Metrics]:
    """One step of both players, from the same weights and the same generated sound.

    The generator's gradient meets at its output: the reconstruction losses' and, from
    discriminators' start on, theirs. Before that step they cost nothing. What the bottleneck asks of
    latents has no gradient there: it joins behind, by its weight, whatever balances the others (as
    EnCodec does with its commitment loss); so does what semantic features ask of acoustic ones.
    """
    config, params = model.config, sharding.gather(state.params)
    losses, accumulate = config.losses, config.optimizer.accumulate
    # What the summed losses are divided by, once, over all microbatches.
    num_samples = jnp.maximum(jnp.sum(batch["mask"], dtype=jnp.float32), 1.0)
    frames = model.autoencoder.frame_mask(batch["mask"])
    num_frames = jnp.maximum(jnp.sum(frames, dtype=jnp.float32), 1.0)
    latent_weights = model.loss_weights
    key_of = functools.partial(train_state.step_key, config.seed, state.step)
    batch = adversarial.with_crops(batch, key_of("crop"), losses)
    play = functools.partial(
        adversarial.gradients,
        params.get("discriminator"),
        total_samples=jnp.maximum(jnp.sum(batch["crop_samples"]), 1),
        discriminators=model.discriminators,
        losses=losses,
    )

    def gradients(microbatch, index):
        noise_key = jax.random.fold_in(key_of("noise"), index)
        mask = microbatch["mask"]

        def generate(p):
            waveform, coded = model.reconstruct(p, microbatch, noise_key, frozen=frozen)
            asked = {name: total for name, (total, _) in coded.losses.items()}
            return (coded.reconstruction, asked), (waveform, coded)

        (reconstruction, asked), pull_back, (waveform, coded) = jax.vjp(
            generate, params["generator"], has_aux=True
        )
        at_sound, metrics = autoencoder_loss.gradients(
            waveform, reconstruction, mask, num_samples, config=config
        )
        result, metrics = {}, metrics | model.told(coded, mask)
        if model.discriminators is not None:
            sounds = waveform, jnp.where(mask, reconstruction, 0.0)
            crops = microbatch["crop_start"], microbatch["crop_samples"]
            more_at_sound, result["discriminator"], more = adversarial.once(
                optimizers["discriminator"].plays(state.step), play, *sounds, *crops
            )
            at_sound, metrics = at_sound | more_at_sound, metrics | more
        output_gradient, squared_norms = adversarial.meet(at_sound, losses, accumulate)
        of_latents = {name: latent_weights[name] / num_frames for name in asked}
        (result["generator"],) = pull_back((jnp.where(mask, output_gradient, 0.0), of_latents))
        return result, metrics | squared_norms

    grads, metrics = microbatches.accumulated(gradients, batch, accumulate)
    return optimizer.finish_step(
        state,
        grads,
        adversarial.norms(metrics),
        optimizers=optimizers,
        ema_decay=config.optimizer.ema_decay,
        norm_name=_NORM,
    )


def eval_step(
    state: train_state.TrainState, frozen: Any, batch: stage.Batch, *, model: Model
) -> Metrics:
    """The reconstruction losses of the averaged weights through clean latents."""
    params = sharding.gather(state.ema_params["generator"])
    waveform, coded = model.reconstruct_in_use(params, batch, frozen=frozen)
    # DAC's floor, whatever is trained with: evaluations of two runs can be compared.
    terms = autoencoder_loss.terms(
        waveform, batch["mask"], model.config, mel_floor=reconstruction_losses.MEL_FLOOR
    )
    with jax.named_scope("losses"):
        metrics = {name: term(coded.reconstruction) for name, term in terms.items()}
    metrics |= model.told(coded, batch["mask"])
    return {f"eval/{name}": value for name, value in metrics.items()}


def sample(
    state: train_state.TrainState, frozen: Any, batch: stage.Batch, *, model: Model
) -> dict[str, jax.Array]:
    """The batch and its reconstruction by the averaged weights: waveforms [b, n]."""
    params = sharding.gather(state.ema_params["generator"])
    waveform, coded = model.reconstruct_in_use(params, batch, frozen=frozen)
    return {"reference": waveform, "reconstruction": coded.reconstruction}


def _discriminators_have_won(theirs: float, generators: float) -> str:
    """Undecided, their loss is twice the generator's; once they never err, it is none of it."""
    if theirs > _WON * generators:
        return ""
    return (
        f"the discriminators have won: their loss is {theirs:.2g}, the generator's against them "
        f"{generators:.2g}; lower config.optimizer.discriminator.learning_rate, or go back to a "
        "checkpoint with a later config.optimizer.discriminator.start, and listen to samples/"
    )


STAGE = stage.Definition(
    name="autoencoder",
    make=make_stage,
    validate=validate,
    derived=derived,
    scopes=("encoder", "semantic_encoder", "acoustic", "decoder", "discriminators"),
    step_parts={"generator": leave_out_discriminators},
    evaluation="reconstruction",
    words=stage.Words(
        title="Audio autoencoder",
        introduction="An autoencoder turns sound into a short sequence of latent vectors and back. "
        "This page shows how well it does: sounds that it was not trained on to listen to, how "
        "training went, and figures. Two references without any training loop stand beside it at "
        "the same number of values per second, so that ears and figures have a scale.",
        curves=dict.fromkeys(
            (
                "mel",
                "stft",
                "spectrum",
                "waveform",
                "adversarial",
                "feature_matching",
                "discriminator",
            ),
            "",
        )
        | {
            "kl": "Divergence of the latents from a standard normal, summed over channels, nats.",
            "latent_square": "Mean square of the latents, which a sigma-VAE's penalty is of.",
            "soft_norm_time": "What keeps each channel standard normal over time.",
            "soft_norm_channels": "What keeps each frame standard normal over its channels.",
            "supervision_high": "Mean square distance of acoustic features from semantic ones.",
            "supervision_low": "The same of both once they are narrow.",
            "latent_drift_rms": "How far a channel of the latents is from 0 on average of an example, "
            "rms over channels.",
            "filled": "Share of the batches that is sound; the rest is padding.",
        },
        program="evaluate",
        results="results*.json",
    ),
)
