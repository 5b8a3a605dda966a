# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A representation stage of toy shapes on latents, without a run behind it, and a batch for it."""

import pathlib

import jax.numpy as jnp
import numpy as np

from f3tok_jax.runs import config as config_lib
from f3tok_jax.stages import representation_loss
from f3tok_jax.training import stage as stage_lib
from tests.support import tiny_models

RECIPE = str(pathlib.Path(__file__).parents[2] / "configs" / "representation.py") + ":tiny"
_SMALL = tiny_models.overrides(
    autoencoder=dict(recipe=dict(model=dict(latent_dim=4))),
    model=tiny_models.SHAPE | dict(input_noise=0.0),
    language_model=dict(shape=tiny_models.LANGUAGE_MODEL),
    num_steps=6,
    rq=dict(codebook_size=8, num_codebooks=2, num_heads=3),
    supervision=dict(max_tokens=3),
    data=dict(latents=True, batch_size=8, crop_frames=12),
    packing=dict(examples=1, frames=0, positions=0),
    optimizer=dict(encoder=dict(warmup_steps=2, modules=dict(projector=dict(start=0.0)))),
    mesh=dict(min_shard_size=64),
)

# Latents of sound, of 12, and text tokens, of 3.
FRAMES, TEXTS = (12, 9, 12, 7, 5, 3, 12, 10), (3, 2, 3, 0, 1, 2, 3, 2)


def make_config(*more: str):
    return config_lib.read(RECIPE, [*_SMALL, *more])


def make_model(config) -> representation_loss.Model:
    """The modules of a config, and an autoencoder whose geometry the latents have."""
    model = representation_loss.make_model(config)
    model.frozen.autoencoder = tiny_models.built()[0]
    return model


def make_batch(*, seed: int = 0) -> dict[str, np.ndarray]:
    mask = np.arange(12)[None] < np.array(FRAMES)[:, None]
    position = np.arange(3)[None]
    text_mask = position < np.array(TEXTS)[:, None]
    rng = np.random.default_rng(seed)
    latents = rng.normal(size=(8, 12, 4)) * mask[..., None]
    return dict(
        latents=latents.astype(np.float32),
        mask=mask,
        begins=np.ones(8, bool),
        ends=np.ones(8, bool),
        text=(rng.integers(1, 11, (8, 3)) * text_mask).astype(np.int32),
        text_mask=text_mask,
        answer=text_mask & (position > 0),
    )


def random_frozen(stage: stage_lib.Stage):
    """Frozen arrays of a stage; latents are standardised as they are."""
    frozen = tiny_models.random_weights(stage.abstract_frozen)
    return frozen | {
        "mean": jnp.zeros_like(frozen["mean"]),
        "std": jnp.ones_like(frozen["std"]),
    }
