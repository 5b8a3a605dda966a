# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is told of the latents of a batch, whatever their bottleneck holds them at."""

import jax
import jax.numpy as jnp


def measure(latents: jax.Array, mask: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Sums and weights of what padding does not count in.

    Args:
        latents: [b, t, d] float32.
        mask: [b, t] bool, frames of sound.

    Returns:
        The mean and the mean square over all values, and the mean square of what a channel is on
        average of an example: how far channels drift from 0.
    """
    latents = jnp.where(mask[..., None], latents, 0.0)
    num_frames = jnp.sum(mask, axis=1, keepdims=True, dtype=jnp.float32)
    size = latents.shape[-1] * jnp.sum(num_frames)
    drift = jnp.sum(latents, axis=1) / jnp.maximum(num_frames, 1.0)
    num_drifts = latents.shape[-1] * jnp.sum(num_frames > 0, dtype=jnp.float32)
    return {
        "latent_mean": (jnp.sum(latents), size),
        "latent_mean_square": (jnp.sum(jnp.square(latents)), size),
        "latent_drift_mean_square": (jnp.sum(jnp.square(drift)), num_drifts),
    }
