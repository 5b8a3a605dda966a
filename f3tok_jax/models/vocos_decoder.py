# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Latents to sound at one frame rate: ConvNeXt blocks that say a spectrum, and its inverse."""

from flax import linen as nn
import jax
import jax.numpy as jnp

from f3tok_jax.models import initialization
from f3tok_jax.signal import inverse_stft

KERNEL = 7  # frames, of the first convolution and of every block's
_EPSILON = 1e-6  # of the layer norms
_MOST_MAGNITUDE = 100.0  # of a bin, of unscaled transforms


class VocosDecoder(nn.Module):
    """Frames more often than latents, a convolution, blocks, and magnitude and phase of every bin.

    It is not causal, and hears 3 frames to either side in the first convolution and in every block:
    at the published size 39, 0.78 s. Norms, magnitudes, phases and the inverse STFT are float32.

    Source: Vocos (arXiv 2306.00814), with what comes before it in LoSATok (arXiv 2605.27840).
    """

    width: int  # of a frame
    hidden_width: int  # within a block
    num_blocks: int
    frames_per_latent: int
    frame_length: int  # samples, of the inverse STFT
    hop_length: int  # samples
    compute_dtype: str  # of convolutions and products; parameters are float32

    @nn.compact
    def __call__(self, latents: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Sound of whole sequences of latents.

        Args:
            latents: [b, t, d].
            mask: [b, t] bool, latents that are there, which come first: each sound is as if they were
                all, with zeros behind it. None for all.

        Returns:
            [b, t * frames_per_latent * hop_length] float32.
        """
        x = _Upsampling(self.width, self.frames_per_latent, self.compute_dtype, name="upsampling")(
            latents
        )
        if mask is not None:
            mask = jnp.repeat(mask, self.frames_per_latent, axis=1)
        x = nn.Conv(
            self.width,
            (KERNEL,),
            dtype=self.compute_dtype,
            kernel_init=initialization.VOCOS_NORMAL,
            name="embedding",
        )(_kept(x, mask))
        x = _norm("embedding_norm")(x)
        for index in range(self.num_blocks):
            block = _Block(
                self.hidden_width, 1 / self.num_blocks, self.compute_dtype, name=f"block_{index}"
            )
            x = block(x, mask)
        x = _norm("final_norm")(x)
        x = nn.Dense(
            2 * (self.frame_length // 2 + 1),
            kernel_init=initialization.VOCOS_NORMAL,
            name="head",
        )(x)
        said, phase = jnp.split(_kept(x, mask), 2, axis=-1)
        # The exponential of what is cut, not the cut of an exponential, whose gradient is not finite.
        magnitude = jnp.exp(jnp.minimum(said, jnp.log(_MOST_MAGNITUDE)))
        return inverse_stft.spectra_to_waveform(
            magnitude * jnp.cos(phase),
            magnitude * jnp.sin(phase),
            mask,
            frame_length=self.frame_length,
            hop_length=self.hop_length,
        )


class _Upsampling(nn.Module):
    """A transposed convolution whose kernel is its stride: `factor` frames of each latent."""

    width: int
    factor: int
    compute_dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[b, t, d] to [b, t * factor, width]."""
        shape = x.shape[-1], self.factor * self.width
        kernel = self.param("kernel", initialization.TORCH_UNIFORM, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.compute_dtype)
        frames = (x @ kernel).reshape(x.shape[0], x.shape[1] * self.factor, self.width)
        return frames + bias[None, None]


class _Block(nn.Module):
    """A convolution of each channel by itself, a norm, two linear maps, added to what came in."""

    hidden_width: int
    layer_scale: float  # of what is added, at first
    compute_dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """[b, t, c] float32 to the same."""
        width = x.shape[-1]
        options = dict(dtype=self.compute_dtype, kernel_init=initialization.VOCOS_NORMAL)
        y = _Depthwise(self.compute_dtype, name="depthwise")(_kept(x, mask))
        y = _norm("norm")(y)
        y = nn.gelu(nn.Dense(self.hidden_width, name="hidden", **options)(y), approximate=False)
        y = nn.Dense(width, name="output", **options)(y)
        gain = self.param("gain", nn.initializers.constant(self.layer_scale), (width,))
        return x + gain[None, None] * y.astype(jnp.float32)


class _Depthwise(nn.Module):
    """A convolution over time of every channel by itself, as a sum of shifted products.

    So few products are an element-wise loop on any machine; XLA for CPUs leaves a convolution of as
    many groups as channels, and its gradients, to slow ones.
    """

    compute_dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[b, t, c] to the same, with zeros around it."""
        length, width = x.shape[1:]
        kernel = self.param("kernel", initialization.VOCOS_NORMAL, (KERNEL, width))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.compute_dtype)
        padded = jnp.pad(x, ((0, 0), (KERNEL // 2, KERNEL // 2), (0, 0)))
        taps = [padded[:, i : i + length] * kernel[None, None, i] for i in range(KERNEL)]
        return sum(taps) + bias[None, None]


def _norm(name: str) -> nn.LayerNorm:
    # In float32, whatever goes in; the fast variance is a difference of squares.
    return nn.LayerNorm(epsilon=_EPSILON, use_fast_variance=False, dtype=jnp.float32, name=name)


def _kept(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """`x` [b, t, c] with zeros where there is no frame, as behind the end of a sound."""
    return x if mask is None else jnp.where(mask[..., None], x, 0)
