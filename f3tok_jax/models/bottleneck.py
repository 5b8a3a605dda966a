# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The noise-regularised bottleneck: channel normalisation and stochastic perturbation."""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bottleneck:
    """Which parts of the bottleneck are on, and how strong.

    Attributes:
        normalize: give every frame mean 0 and rms 1.
        perturb: add noise where a key is given, that is in training.
        gamma: largest rms of that noise.
        epsilon: added to the variance.
    """

    normalize: bool
    perturb: bool
    gamma: float
    epsilon: float

    def __post_init__(self):
        if self.gamma < 0:
            raise ValueError(f"bottleneck.gamma must not be negative, got {self.gamma}")
        if self.epsilon <= 0:
            raise ValueError(f"bottleneck.epsilon must be positive, got {self.epsilon}")

    def clean(self, encoded: jax.Array) -> jax.Array:
        """Latents [b, t, d] float32 of the encoder's output [b, t, d]."""
        encoded = encoded.astype(jnp.float32)
        return normalize(encoded, epsilon=self.epsilon) if self.normalize else encoded

    def noisy(self, latents: jax.Array, key: jax.Array | None) -> jax.Array:
        """What the decoder is trained on: perturbed latents; the clean ones without a key."""
        if key is None or not self.perturb:
            return latents
        return perturb(latents, key, gamma=self.gamma)


def normalize(latents: jax.Array, *, epsilon: float) -> jax.Array:
    """Gives every frame mean 0 and rms 1 over its channels, without learned scale or shift.

    Written with rsqrt of the variance because its gradient is finite at variance 0, as in silence.

    Args:
        latents: [b, t, d] float32.
        epsilon: added to the population variance.

    Returns:
        [b, t, d] float32.

    Source: F3-Tokenizer (arXiv 2606.06357) Eq. 1; the code of NextStep-1 (arXiv 2508.10711).
    """
    centred = latents - jnp.mean(latents, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + epsilon)


def perturb(
    latents: jax.Array, key: jax.Array, *, gamma: float, segments: jax.Array | None = None
) -> jax.Array:
    """Adds alpha * eps: eps standard normal, alpha ~ U(0, gamma), one alpha per example.

    Args:
        latents: [b, t, d] float32.
        key: a typed PRNG key.
        gamma: largest noise rms.
        segments: [b, t] int32 from 0 to t, the examples of each row; default one per row.

    Returns:
        [b, t, d] float32.

    Source: F3-Tokenizer Eq. 2.
    """
    alpha_key, noise_key = jax.random.split(key)
    batch_size, length, _ = latents.shape
    if segments is None:
        alpha = jax.random.uniform(alpha_key, (batch_size, 1), maxval=gamma)
    else:
        per_segment = jax.random.uniform(alpha_key, (batch_size, length + 1), maxval=gamma)
        alpha = jnp.take_along_axis(per_segment, segments, axis=1)
    return latents + alpha[..., None] * jax.random.normal(noise_key, latents.shape)
