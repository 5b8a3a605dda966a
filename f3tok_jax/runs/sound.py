# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The sound of a run: what its latents are of, and so what its batches hold."""

import dataclasses
from typing import Any

import ml_collections


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
