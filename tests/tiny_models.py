# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Autoencoders small enough to run in a test."""

import functools
import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import sounds

from configs import autoencoder as recipe
from f3tok_jax import autoencoder as autoencoder_lib
from f3tok_jax import autoencoder_stage
from f3tok_jax import pretrained
from f3tok_jax import checkpoint
from f3tok_jax import compiled
from f3tok_jax import config as config_lib
from f3tok_jax import language_model
from f3tok_jax import language_model_folder
from f3tok_jax import sharding


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
    autoencoder = pretrained.make_autoencoder(config(preset, **model))
    waveform = jnp.zeros((1, autoencoder.samples_per_latent))
    params = compiled.run_once(
        functools.partial(pretrained.init_params, autoencoder), jax.random.key(0), waveform
    )
    # The last layer starts near zero: raised, so that a difference in the sound can be seen.
    output = params["decoder"]["output"]
    output["kernel"] = 10.0 * output["kernel"]
    return autoencoder, {"params": params}


def write_run(folder: str | os.PathLike, *, train: str = "", seed: int = 0) -> None:
    """Writes a run folder whose checkpoint of step 3 has random weights; `train` are its shards."""
    settings = config()
    settings.data.train = train
    config_lib.save(settings, str(folder))
    stage = autoencoder_stage.make_stage(settings)
    rng = np.random.default_rng(seed)

    def weights(leaf):  # compiling the real initialisation would take longer than most tests
        return jnp.asarray(0.2 * rng.normal(size=leaf.shape), leaf.dtype)

    state = jax.tree.map(weights, jax.eval_shape(stage.init_state, jax.random.key(0)))
    writer = checkpoint.Checkpointer(
        str(folder), config_json=config_lib.to_json(settings), data_fingerprint=""
    )
    writer.save(3, state)
    writer.close()


def add_damaged_step(folder: str | os.PathLike) -> None:
    """Adds a newer checkpoint, of step 5, with every large file cut in half."""
    checkpoints = pathlib.Path(folder) / "checkpoints"
    shutil.copytree(checkpoints / "3", checkpoints / "5")
    for path in (checkpoints / "5" / "state").rglob("d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_language_model(folder: pathlib.Path, *, seed: int = 0) -> str:
    """Writes a Hugging Face folder: random weights, one layer, a token per byte; returns it."""
    fields = dict(
        model_type="qwen3",
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        vocab_size=260,
        max_position_embeddings=256,
        rms_norm_eps=1e-6,
        rope_theta=1e4,
        tie_word_embeddings=True,
    )
    model = language_model.make(fields, compute_dtype="float32", remat="none")
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.1 * rng.normal(size=leaf.shape), leaf.dtype),
        sharding.unbox(language_model.abstract_params(model)),
    )
    tokenizer = sounds.tokenizer(folder / "tokenizer") / "tokenizer.json"
    language_model_folder.write(folder / "model", model, params, tokenizer)
    return str(folder / "model")
