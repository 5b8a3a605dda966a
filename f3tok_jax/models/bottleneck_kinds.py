# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The bottlenecks that F3's is held against: a KL-VAE, VibeVoice's sigma-VAE, and the soft norm."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from f3tok_jax.models import bottleneck


@dataclasses.dataclass(frozen=True, kw_only=True)
class KlVae(bottleneck.Bottleneck):
    """A Gaussian whose mean and logarithm of the variance the encoder says; the latents are the mean.

    Attributes:
        weight: of the divergence from a standard normal, "kl", summed over channels.
        half: whether the divergence has its factor 1/2. Stable Audio leaves it out: a weight there is
            twice that here.
        free_nats: of every value, below which nothing is asked of it: free bits, in the unit of the
            divergence as `half` has it; 0 for none.
        logvar_clip: largest magnitude of the logarithm; what lies beyond has no gradient.

    Source: Auto-Encoding Variational Bayes (arXiv 1312.6114); free bits of arXiv 1606.04934.
    """

    weight: float
    half: bool
    free_nats: float
    logvar_clip: float

    def __post_init__(self):
        bottleneck.check("kl_vae.weight", self.weight)
        bottleneck.check("kl_vae.free_nats", self.free_nats)
        bottleneck.check("kl_vae.logvar_clip", self.logvar_clip, above=True)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        return {"kl": self.weight}

    def encoder_dim(self, latent_dim: int) -> int:
        return 2 * latent_dim

    def clean(self, encoded: jax.Array) -> jax.Array:
        return encoded[..., : encoded.shape[-1] // 2].astype(jnp.float32)

    def _logvar(self, encoded: jax.Array) -> jax.Array:
        said = encoded[..., encoded.shape[-1] // 2 :].astype(jnp.float32)
        return jnp.clip(said, -self.logvar_clip, self.logvar_clip)

    def noisy(
        self, latents: jax.Array, key: jax.Array, *, encoded: jax.Array, mask: jax.Array
    ) -> jax.Array:
        del mask
        deviation = jnp.exp(0.5 * self._logvar(encoded))
        return latents + deviation * jax.random.normal(key, latents.shape)

    def losses(
        self, latents: jax.Array, *, encoded: jax.Array, mask: jax.Array
    ) -> dict[str, bottleneck.Loss]:
        logvar = self._logvar(encoded)
        divergence = jnp.square(latents) + jnp.exp(logvar) - 1.0 - logvar
        if self.half:
            divergence = 0.5 * divergence
        if self.free_nats:
            divergence = jnp.maximum(divergence, self.free_nats)
        return {"kl": _over_frames(jnp.sum(divergence, axis=-1), mask)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SigmaVae(bottleneck.Bottleneck):
    """Noise of a deviation that is drawn, not learned: latents + s * eps, one s per example.

    Of its divergence from a standard normal only the part of the mean depends on the encoder.
    VibeVoice samples where it is used, too; here the latents in use are the mean.

    Attributes:
        weight: of the mean square of the latents, "latent_square".
        noise_std: of s, a normal deviate, whose sign is without meaning.

    Source: VibeVoice (arXiv 2508.19205), and its code: noise_std 0.5 / 0.8, whose mean magnitude is 0.5.
    """

    weight: float
    noise_std: float

    def __post_init__(self):
        bottleneck.check("sigma_vae.weight", self.weight)
        bottleneck.check("sigma_vae.noise_std", self.noise_std)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        return {"latent_square": self.weight}

    def noisy(
        self, latents: jax.Array, key: jax.Array, *, encoded: jax.Array, mask: jax.Array
    ) -> jax.Array:
        del encoded, mask
        scale_key, noise_key = jax.random.split(key)
        scale = self.noise_std * jax.random.normal(scale_key, (latents.shape[0], 1, 1))
        return latents + scale * jax.random.normal(noise_key, latents.shape)

    def losses(
        self, latents: jax.Array, *, encoded: jax.Array, mask: jax.Array
    ) -> dict[str, bottleneck.Loss]:
        del encoded
        return {"latent_square": _over_frames(jnp.mean(jnp.square(latents), axis=-1), mask)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftNorm(bottleneck.Bottleneck):
    """A learned scale and shift per channel, and a penalty where latents are not standard normal.

    The penalty is m^2 + v - log v - 1 of a mean m and a variance v, which is at least `min_variance`
    and of n - 1 degrees of freedom: of each channel over the time of an example, "soft_norm_time", and
    of each frame over its channels, "soft_norm_channels". An example weighs as its frames do; one of a
    single frame has no variance over time, and adds nothing there. Published decoders add a little
    noise where they are used, too; here there is none.

    Attributes:
        weight: of the part over time.
        channels_weight: of the part over channels, times `weight`.
        min_variance: see above.
        noise_ratio: deviation of the noise in training, of each channel's own over time.

    Source: SoftNormBottleneck of stable-audio-tools, which is SAME's (arXiv 2605.18613).
    """

    has_affine = True

    weight: float
    channels_weight: float
    min_variance: float
    noise_ratio: float

    def __post_init__(self):
        bottleneck.check("soft_norm.weight", self.weight)
        bottleneck.check("soft_norm.channels_weight", self.channels_weight)
        bottleneck.check("soft_norm.min_variance", self.min_variance, above=True)
        bottleneck.check("soft_norm.noise_ratio", self.noise_ratio)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        over_channels = self.weight * self.channels_weight
        return {"soft_norm_time": self.weight, "soft_norm_channels": over_channels}

    def encoder_dim(self, latent_dim: int) -> int:
        if latent_dim < 2:
            raise ValueError(
                "config.model.latent_dim must be at least 2 for config.bottleneck.kind='soft_norm', "
                f"which asks for a variance over channels, got {latent_dim}"
            )
        return latent_dim

    def noisy(
        self, latents: jax.Array, key: jax.Array, *, encoded: jax.Array, mask: jax.Array
    ) -> jax.Array:
        del encoded
        _, variance = _moments(latents, mask[..., None], axis=1)
        # A root has no finite gradient at 0, where a channel is constant.
        deviation = jnp.sqrt(jnp.maximum(variance, 1e-12))
        return latents + self.noise_ratio * deviation * jax.random.normal(key, latents.shape)

    def losses(
        self, latents: jax.Array, *, encoded: jax.Array, mask: jax.Array
    ) -> dict[str, bottleneck.Loss]:
        del encoded
        over_time = self._penalty(*_moments(latents, mask[..., None], axis=1))
        over_channels = self._penalty(*_moments(latents, jnp.ones((1, 1, 1), bool), axis=2))
        has_variance = mask & (jnp.sum(mask, axis=1, keepdims=True) > 1)
        of_examples = jnp.mean(over_time, axis=-1) * has_variance
        return {
            "soft_norm_time": _over_frames(of_examples, mask),
            "soft_norm_channels": _over_frames(over_channels[..., 0], mask),
        }

    def _penalty(self, mean: jax.Array, variance: jax.Array) -> jax.Array:
        variance = jnp.maximum(variance, self.min_variance)
        return jnp.square(mean) + variance - jnp.log(variance) - 1.0


KINDS: Mapping[str, type[bottleneck.Bottleneck]] = {
    "f3": bottleneck.F3,
    "kl_vae": KlVae,
    "sigma_vae": SigmaVae,
    "soft_norm": SoftNorm,
}


def make(section: Mapping[str, Any]) -> bottleneck.Bottleneck:
    """The bottleneck of config.bottleneck, whose fields of F3 lie in it, those of others below it.

    Raises:
        ValueError: for a kind that there is none of, or a value out of range.
    """
    kind = section.get("kind", "f3")  # Runs of earlier versions have that one, and do not say so.
    if kind not in KINDS:
        raise ValueError(f"config.bottleneck.kind must be one of {(*KINDS,)}, got {kind!r}")
    if kind != "f3":
        return KINDS[kind](**section[kind])
    return bottleneck.F3(
        **{field.name: section[field.name] for field in dataclasses.fields(bottleneck.F3)}
    )


def _over_frames(values: jax.Array, mask: jax.Array) -> bottleneck.Loss:
    """Of values [b, t] the sum over frames of sound, and how many those are."""
    return jnp.sum(jnp.where(mask, values, 0.0)), jnp.sum(mask, dtype=jnp.float32)


def _moments(values: jax.Array, mask: jax.Array, *, axis: int) -> tuple[jax.Array, jax.Array]:
    """Mean and unbiased variance along an axis, which is kept, over what `mask` allows."""
    mask = jnp.broadcast_to(mask, values.shape)
    count = jnp.sum(mask, axis=axis, keepdims=True, dtype=jnp.float32)
    total = jnp.sum(jnp.where(mask, values, 0.0), axis=axis, keepdims=True)
    mean = total / jnp.maximum(count, 1.0)
    squares = jnp.where(mask, jnp.square(values - mean), 0.0)
    return mean, jnp.sum(squares, axis=axis, keepdims=True) / jnp.maximum(count - 1.0, 1.0)
