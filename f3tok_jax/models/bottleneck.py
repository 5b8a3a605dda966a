# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What stands between encoder and decoder: F3's norm and noise; other kinds are in bottleneck_kinds.

Each kind is a dataclass that says how wide the encoder's output is, what of it the latents are, what
the decoder is trained on, and what is asked of latents beside the sound. None holds parameters: what a
kind learns is a layer of the encoder, which makes the latents.
"""

from collections.abc import Mapping
import dataclasses
import math

import jax
import jax.numpy as jnp

Loss = tuple[jax.Array, jax.Array]  # (sum, weight), float32


class Bottleneck:
    """Latents as they come, without noise and without a loss: what the kinds change.

    Attributes:
        normalizes: whether every frame of latents has mean 0 and rms 1. Whoever reads latents of
            another kind divides by the rms that was measured of them.
        has_affine: whether the encoder ends with a learned scale and shift per channel.
        loss_weights: name of a loss -> its weight in the generator's.
    """

    normalizes = False
    has_affine = False

    @property
    def loss_weights(self) -> Mapping[str, float]:
        return {}

    def encoder_dim(self, latent_dim: int) -> int:
        """Width of the encoder's output, for latents of so many values.

        Raises:
            ValueError: for latents that are too narrow for the kind.
        """
        return latent_dim

    def clean(self, encoded: jax.Array) -> jax.Array:
        """Latents [b, t, d] float32 of the encoder's output [b, t, encoder_dim]."""
        return encoded.astype(jnp.float32)

    def noisy(
        self, latents: jax.Array, key: jax.Array, *, encoded: jax.Array, mask: jax.Array
    ) -> jax.Array:
        """What the decoder is trained on.

        Args:
            latents: [b, t, d] float32, of `clean`.
            key: a typed PRNG key.
            encoded: [b, t, encoder_dim], what the latents are of.
            mask: [b, t] bool, frames of sound.

        Returns:
            [b, t, d] float32.
        """
        del key, encoded, mask
        return latents

    def losses(self, latents: jax.Array, *, encoded: jax.Array, mask: jax.Array) -> dict[str, Loss]:
        """What is asked of latents, by the names of `loss_weights`; arguments as of `noisy`.

        Padding counts in none of it. The weight of each is the number of frames of sound.
        """
        del latents, encoded, mask
        return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class F3(Bottleneck):
    """Normalised frames and stochastic perturbation; each can be off.

    Without the norm the noise keeps its rms, and the encoder may grow beyond it.

    Attributes:
        normalize: give every frame mean 0 and rms 1.
        perturb: add noise in training.
        gamma: largest rms of that noise.
        epsilon: added to the variance.
    """

    normalize: bool
    perturb: bool
    gamma: float
    epsilon: float

    def __post_init__(self):
        check("gamma", self.gamma)
        check("epsilon", self.epsilon, above=True)

    @property
    def normalizes(self) -> bool:
        return self.normalize

    def clean(self, encoded: jax.Array) -> jax.Array:
        encoded = encoded.astype(jnp.float32)
        return normalize(encoded, epsilon=self.epsilon) if self.normalize else encoded

    def noisy(
        self, latents: jax.Array, key: jax.Array, *, encoded: jax.Array, mask: jax.Array
    ) -> jax.Array:
        del encoded, mask
        return perturb(latents, key, gamma=self.gamma) if self.perturb else latents


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


def check(key: str, value: float, *, above: bool = False) -> None:
    """Raises ValueError for what is negative, or not positive where `above`, or not finite."""
    if not math.isfinite(value) or value < 0 or (above and not value):
        wanted = "must be positive" if above else "must not be negative"
        raise ValueError(f"config.bottleneck.{key} {wanted}, and finite, got {value}")
