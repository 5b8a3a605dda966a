# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Supervision by a frozen language model: representations become tokens that it must understand.

    [audio start] r_1 ... r_N [audio end] instruction answer end-of-text

The language model reads this and is scored on the answer. Its weights stay as they are; the
gradient goes through its activations into the projector and the representations. The generation
stage has it read the same parts in another order: text, then the sound that is made of it.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp

from f3tok_jax.models.transformer import layers

PROJECTORS = ("linear", "swiglu")

_EPSILON = 1e-6  # of the mean square


class Projector(nn.Module):
    """Representations to embeddings of the language model, `patch` frames to one.

    Frozen language models diverge on inputs of another scale than their own, so the output is
    normalised to rms 1 (times a learned gain that starts there); multiply it by the rms of the
    model's token embeddings.
    """

    patch: int  # P frames become one audio token
    width: int  # of the language model
    kind: str = "linear"  # or "swiglu", with a hidden layer of twice the width
    compute_dtype: str = "float32"

    def setup(self):
        if self.kind not in PROJECTORS:
            raise ValueError(f"projector kind must be one of {PROJECTORS}, got {self.kind!r}")
        if self.patch < 1:
            raise ValueError(f"projector patch must be at least 1 frame, got {self.patch}")
        if self.kind == "swiglu":
            self.gate = self._dense(2 * self.width, ("embed", "hidden"))
            self.up = self._dense(2 * self.width, ("embed", "hidden"))
        into = ("hidden", "embed") if self.kind == "swiglu" else ("embed", None)
        self.output = self._dense(self.width, into)
        ones = nn.with_logical_partitioning(nn.initializers.ones, (None,))
        self.gain = self.param("gain", ones, (self.width,), jnp.float32)
        normal = nn.with_logical_partitioning(nn.initializers.normal(1.0), (None, "embed"))
        self.boundaries = self.param("boundaries", normal, (2, self.width), jnp.float32)

    def __call__(self, representations: jax.Array) -> jax.Array:
        """Projects [b, t, d] to audio tokens [b, ceil(t / patch), width], float32.

        The last patch is filled with zeros; so must be what is no sound.
        """
        missing = -representations.shape[1] % self.patch
        x = jnp.pad(representations, ((0, 0), (0, missing), (0, 0)))
        x = x.reshape(x.shape[0], -1, self.patch * x.shape[-1]).astype(self.compute_dtype)
        if self.kind == "swiglu":
            x = nn.silu(self.gate(x)) * self.up(x)
        x = self.output(x).astype(jnp.float32)
        x *= jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + _EPSILON)
        return x * self.gain[None, None]

    @nn.nowrap
    def forward_flops(self, frames: int, width: int) -> float:
        """Multiplications and additions of `frames` representations of `width`."""
        joined, hidden = self.patch * width, 2 * self.width
        weights = joined * self.width
        if self.kind == "swiglu":
            weights = 2 * joined * hidden + hidden * self.width
        return 2.0 * weights * frames / self.patch

    def start_and_end(self) -> jax.Array:
        """Embeddings [2, width] of "audio starts" and "audio ends", learned, of rms 1 at first."""
        return self.boundaries

    def _dense(self, features: int, axes: tuple[str | None, ...]) -> nn.Dense:
        return layers.dense(
            features,
            axes,
            compute_dtype=self.compute_dtype,
            init=nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal"),
            use_bias=False,
        )
