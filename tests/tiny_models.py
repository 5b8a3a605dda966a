# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Autoencoders small enough to run in a test."""

import functools

import jax
import jax.numpy as jnp
import ml_collections

from configs import autoencoder as recipe
from f3tok_jax import autoencoder as autoencoder_lib
from f3tok_jax import autoencoder_stage
from f3tok_jax import compiled


def config(preset: str = "tiny", **model) -> ml_collections.ConfigDict:
    """The recipe of a preset with two stages of narrow layers, or as `model` has it, and short crops."""
    config = recipe.get_config(preset)
    bins = config.model.hop_length // config.model.fold
    # Compilation is what a test waits for, and grows with the number of layers.
    model = dict(strides=((2, 2), (2, bins // 10))) | model
    stages = len(model["strides"])
    config.model.update(
        dict(
            encoder_channels=(8,) * stages,
            decoder_channels=(8,) * stages,
            latent_dim=8,
            compute_dtype="float32",
        )
        | model
    )
    config.num_steps = 100
    config.optimizer.generator.warmup_steps = 2
    config.optimizer.discriminator.warmup_steps = 2
    config.data.update(dict(batch_size=8, crop_frames=2))
    config.losses.adversarial_crop = 0
    return config


@functools.lru_cache
def built(preset: str = "tiny", **model) -> tuple[autoencoder_lib.Autoencoder, dict]:
    """An untrained autoencoder and its variables."""
    autoencoder = autoencoder_stage.make_autoencoder(config(preset, **model))
    waveform = jnp.zeros((1, autoencoder.samples_per_latent))
    params = compiled.run_once(
        functools.partial(autoencoder_stage.init_params, autoencoder), jax.random.key(0), waveform
    )
    # The last layer starts near zero: raised, so that a difference in the sound can be seen.
    output = params["decoder"]["output"]
    output["kernel"] = 10.0 * output["kernel"]
    return autoencoder, {"params": params}
