# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The sound of a run: what its latents are of, and so what its batches hold."""

import dataclasses
import math
from typing import Any

import ml_collections

# In config.family of an autoencoder: it hears through a frozen semantic encoder, too.
SEMANTIC = "semantic_autoencoder"


@dataclasses.dataclass(frozen=True)
class Sound:
    """What latents are of: Hz, samples, channels."""

    sample_rate: int
    samples_per_latent: int
    latent_dim: int

    @property
    def latent_rate(self) -> float:
        """Latents per second, Hz."""
        return self.sample_rate / self.samples_per_latent

    def batch_spec(self, data: ml_collections.ConfigDict) -> dict[str, Any]:
        """What a batch must have of it, by config.data: latents, or waveforms, their mask, and
        whether they begin and end where a recording does; name -> jax.ShapeDtypeStruct."""
        import jax
        import jax.numpy as jnp

        shape = (data.batch_size, data.crop_frames)
        if data.get("latents"):
            heard = {"latents": jax.ShapeDtypeStruct((*shape, self.latent_dim), jnp.float32)}
        else:
            shape = (data.batch_size, data.crop_frames * self.samples_per_latent)
            heard = {"waveform": jax.ShapeDtypeStruct(shape, jnp.float32)}
        shapes = {"mask": shape, "begins": shape[:1], "ends": shape[:1]}
        return heard | {name: jax.ShapeDtypeStruct(one, jnp.bool_) for name, one in shapes.items()}


def is_semantic(config: ml_collections.ConfigDict) -> bool:
    """Whether the config of an autoencoder is of those that hear through a semantic encoder, too."""
    return config.get("family", "") == SEMANTIC


def of_autoencoder(config: ml_collections.ConfigDict) -> Sound:
    """Of the latents of an autoencoder's config."""
    model = config.model
    if is_semantic(config):
        hops = model.patch_frames
    else:
        hops = math.prod(time for time, _ in model.strides)
    return Sound(model.sample_rate, model.hop_length * hops, model.latent_dim)
