# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What blocks hear beside their sequence: a vector, which modulates them, and another sequence.

Source: adaptive layer norm of DiT (arXiv 2212.09748), shared by all blocks as in PixArt-alpha (arXiv
2310.00426), with a low-rank part of each block's own and cross-attention behind self-attention as in
UniFlow-Audio (github.com/wsntxxn/UniFlow-Audio).
"""

from typing import NamedTuple

from flax import linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from f3tok_jax.models.transformer import attention as attention_lib
from f3tok_jax.models.transformer import layers

PER_BLOCK = 6  # shift, scale and gate, of attention and of the feed-forward layer


@flax.struct.dataclass
class Condition:
    """What all blocks are given.

    Attributes:
        vector: [b, width], of which every block makes its own part of the modulation.
        modulation: [b, PER_BLOCK * width], what blocks have of it in common.
        context: [b, s, any width], which positions attend to; zeros add nothing.
        mask: [b, s] bool, True where there is some.
    """

    vector: jax.Array
    modulation: jax.Array
    context: jax.Array
    mask: jax.Array


class Change(NamedTuple):
    """Of one branch of a block: [b, 1, width] float32 each."""

    shift: jax.Array
    scale: jax.Array
    gate: jax.Array

    def of(self, normed: jax.Array) -> jax.Array:
        """What goes into the branch, of the norm's output [b, t, width]."""
        return modulated(normed, self.shift, self.scale)

    def gated(self, output: jax.Array, *, bounded: bool = False) -> jax.Array:
        """What the branch adds, of its output: all of it, or tanh(1) of it if `bounded`, at first."""
        gate = 1.0 + self.gate
        return (output * (jnp.tanh(gate) if bounded else gate)).astype(output.dtype)


def modulated(x: jax.Array, shift: jax.Array, scale: jax.Array) -> jax.Array:
    """[b, t, width] in the dtype of `x`; zeros of both, [b, 1, width], leave it as it is."""
    return (x * (1.0 + scale) + shift).astype(x.dtype)


class Modulation(nn.Module):
    """The changes of one block: what all blocks share, and what it adds; zero at first."""

    width: int
    rank: int
    compute_dtype: str

    @nn.compact
    def __call__(self, condition: Condition) -> tuple[Change, Change]:
        x = nn.silu(condition.vector)[:, None].astype(self.compute_dtype)
        into = dict(compute_dtype=self.compute_dtype)
        x = layers.Linear(self.rank, axes=("embed", None), name="down", **into)(x)
        up = layers.Linear(
            PER_BLOCK * self.width,
            axes=(None, "embed"),
            use_bias=True,
            init_scale=0.0,
            name="up",
            **into,
        )
        found = condition.modulation[:, None] + up(x).astype(jnp.float32)
        parts = jnp.split(found, PER_BLOCK, axis=-1)
        return Change(*parts[:3]), Change(*parts[3:])


class CrossAttention(nn.Module):
    """Attends from a sequence to the context. Without biases: a context of zeros adds nothing."""

    width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    qk_norm: bool
    norm_epsilon: float
    init_scale: float  # of the output's kernel
    compute_dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, condition: Condition) -> jax.Array:
        context = condition.context.astype(self.compute_dtype)
        query = self._heads("query", self.num_heads, "heads", x)
        key, value = (
            self._heads(name, self.num_kv_heads, "kv_heads", context) for name in ("key", "value")
        )
        scales = layers.head_scales(self.head_dim) if self.qk_norm else None
        query, key = layers.Preparation(None, scales, self.norm_epsilon)(query, key)
        attended = attention_lib.attend_across(query, key, value, condition.mask)
        output = layers.FromHeads(
            self.width,
            axes=("heads", "embed"),
            init_scale=self.init_scale,
            compute_dtype=self.compute_dtype,
            name="output",
        )
        return output(attended)

    def _heads(self, name: str, num_heads: int, axis_name: str, x: jax.Array) -> jax.Array:
        linear = layers.IntoHeads(
            num_heads * self.head_dim,
            num_heads=num_heads,
            axes=("embed", axis_name),
            compute_dtype=self.compute_dtype,
            name=name,
        )
        return linear(x)
