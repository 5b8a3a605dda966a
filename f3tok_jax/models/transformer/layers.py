# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Layers of a transformer: products with gathered kernels, norms, a rotation, and layouts."""

from collections.abc import Callable
import functools

from flax import linen as nn
import flax.struct
import jax
from jax.experimental import layout
import jax.numpy as jnp
import numpy as np

from f3tok_jax.devices import sharding

# Of a TPU's memory: an array with fewer in its last axis but one is better laid out otherwise.
_TILE_ROWS = 8


class Linear(nn.Module):
    """A product with a kernel [in, out], whose parts are gathered first."""

    features: int
    axes: tuple[str, str]  # logical names of in and out
    compute_dtype: str
    use_bias: bool = False
    init_scale: float = 1.0  # variance, times 1 / in

    @nn.compact
    def __call__(self, x):
        kernel, bias = self._weights(x.shape[-1])
        return x @ kernel + bias[None, None]

    @nn.nowrap
    def _weights(self, num_inputs: int) -> tuple[jax.Array, jax.Array]:
        """Kernel [in, out] and bias [out] in the compute dtype."""
        init = nn.initializers.variance_scaling(self.init_scale, "fan_in", "truncated_normal")
        init, shape = nn.with_logical_partitioning(init, self.axes), (num_inputs, self.features)
        kernel = self.param("kernel", init, shape, jnp.float32)
        bias = jnp.zeros((self.features,), self.compute_dtype)
        if self.use_bias:
            init = nn.with_logical_partitioning(nn.initializers.zeros, self.axes[1:])
            bias = self.param("bias", init, (self.features,), jnp.float32)
        # Cast before it is gathered: half the bytes travel.
        kernel = constrain(kernel.astype(self.compute_dtype), *self.axes)
        return kernel, bias.astype(self.compute_dtype)


class IntoHeads(Linear):
    """[b, t, in] -> [b, num_heads, t, features / num_heads], in rows."""

    num_heads: int = 1

    @nn.compact
    def __call__(self, x):
        kernel, bias = self._weights(x.shape[-1])
        return in_rows(self._product(x, kernel, bias), "batch", self.axes[1], "time", None)

    @nn.nowrap
    def _product(self, x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        if _are_few(x.shape[:2], kernel):
            flat = jax.lax.optimization_barrier(x @ kernel) + bias[None, None]
            return flat.reshape(*x.shape[:2], self.num_heads, -1).swapaxes(1, 2)
        kernel = kernel.reshape(x.shape[-1], self.num_heads, -1)
        bias = bias.reshape(1, self.num_heads, 1, -1)
        return jnp.einsum("bti,ihd->bhtd", x, kernel) + bias


class FromHeads(Linear):
    """[b, heads, t, head_dim] -> [b, t, features]."""

    @nn.compact
    def __call__(self, x):
        _, num_heads, _, head_dim = x.shape
        kernel, bias = self._weights(num_heads * head_dim)
        if _are_few(x.shape[::2], kernel):
            flat = x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)
            return jax.lax.optimization_barrier(flat) @ kernel + bias[None, None]
        kernel = kernel.reshape(num_heads, head_dim, -1)
        return jnp.einsum("bhtd,hdo->bto", x, kernel) + bias[None, None]


def _are_few(positions: tuple[int, int], kernel: jax.Array) -> bool:
    """Whether positions [b, t] are less to lay out anew, head by head, than the kernel is."""
    return positions[0] * positions[1] < kernel.shape[0]


def dense(
    features: int,
    axes: tuple[str | None, str | None],
    *,
    compute_dtype: str,
    init: Callable[..., jax.Array],
    use_bias: bool = True,
) -> nn.Dense:
    """nn.Dense, over any leading axes, whose kernel's parts are gathered first.

    Left to itself, XLA may gather what goes into the product instead: all of a slice's, so that every
    chip needs memory for it, and the more of it the more chips there are.

    Args:
        features: of the output.
        axes: logical names of the kernel's in and out.
        compute_dtype: of the product.
        init: of the kernel.
        use_bias: whether there is one, zero at first.
    """

    def promote(x, kernel, bias, **options):
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, **options)
        return x, constrain(kernel, *axes), bias

    return nn.Dense(
        features,
        use_bias=use_bias,
        dtype=compute_dtype,
        kernel_init=nn.with_logical_partitioning(init, axes),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, axes[1:]),
        promote_dtype=promote,
    )


class RMSNorm(nn.Module):
    """Divides by the root of the mean square over the last axis, in float32, and scales."""

    epsilon: float

    @nn.compact
    def __call__(self, x):
        return normalize(x, norm_scale(self, x.shape[-1], "embed"), self.epsilon)


class LayerNorm(nn.Module):
    """Standardises the last axis, in float32, scales and shifts."""

    epsilon: float

    @nn.compact
    def __call__(self, x):
        full = x.astype(jnp.float32)
        centred = full - jnp.mean(full, -1, keepdims=True)
        scale = norm_scale(self, x.shape[-1], "embed")
        init = nn.with_logical_partitioning(nn.initializers.zeros, ("embed",))
        bias = self.param("bias", init, scale.shape, jnp.float32).astype(jnp.float32)
        bias = bias.reshape((1,) * (x.ndim - 1) + (-1,))
        return (normalize(centred, scale, self.epsilon) + bias).astype(x.dtype)


class HeadScale(nn.Module):
    """The scale [head_dim] of a norm over each head, for whoever computes it; an RMSNorm's."""

    head_dim: int

    @nn.compact
    def __call__(self):
        return norm_scale(self, self.head_dim, None)


def head_scales(head_dim: int) -> tuple[jax.Array, jax.Array]:
    """The scales of norms over each head of queries and of keys; to be called within a module."""
    return tuple(HeadScale(head_dim, name=name)() for name in ("query_norm", "key_norm"))


def norm_scale(module: nn.Module, width: int, axis_name: str | None) -> jax.Array:
    """The parameter "scale" [width] float32 of `module`, ones at first."""
    init = nn.with_logical_partitioning(nn.initializers.ones, (axis_name,))
    return module.param("scale", init, (width,), jnp.float32).astype(jnp.float32)


def normalize(x: jax.Array, scale: jax.Array, epsilon: float) -> jax.Array:
    """`x`, divided by the root of its mean square over the last axis, times `scale`."""
    full = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(full**2, -1, keepdims=True) + epsilon)
    scale = scale.reshape((1,) * (x.ndim - 1) + (-1,))
    return (full * inverse * scale).astype(x.dtype)


@flax.struct.dataclass
class Preparation:
    """What happens to queries and keys between their projections and attention.

    Attributes:
        rotation: cosines and sines [b or 1, 1, t, head_dim] float32; None without one.
        scales: [head_dim] float32 each, of the norms of queries and keys; None without norms.
        epsilon: of the norms.
    """

    rotation: tuple[jax.Array, jax.Array] | None
    scales: tuple[jax.Array, jax.Array] | None
    epsilon: float = flax.struct.field(pytree_node=False)

    def __call__(self, query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Queries and keys [b, heads, t, head_dim] as their scores are taken."""
        if self.scales is not None:
            query = normalize(query, self.scales[0], self.epsilon)
            key = normalize(key, self.scales[1], self.epsilon)
        if self.rotation is not None:
            query, key = rotate(query, *self.rotation), rotate(key, *self.rotation)
        return query, key


def rotate(x: jax.Array, cosines: jax.Array, sines: jax.Array) -> jax.Array:
    """Rotates the pairs (i, i + head_dim / 2) of every head, in float32.

    The halves change places by a product with a permutation, which is exact: cutting a head in two
    would leave half of a TPU's lanes empty in everything that follows.
    """
    half = x.shape[-1] // 2
    swap = np.zeros((2 * half, 2 * half), np.float32)
    swap[np.arange(half) + half, np.arange(half)] = -1.0
    swap[np.arange(half), np.arange(half) + half] = 1.0
    swapped = jnp.matmul(x, jnp.asarray(swap, x.dtype), precision="highest")
    return (x.astype(jnp.float32) * cosines + swapped.astype(jnp.float32) * sines).astype(x.dtype)


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """`x`, sharded by the rules of its axes' logical names."""
    return nn.with_logical_constraint(x, names)


def in_rows(x: jax.Array, *names: str | None) -> jax.Array:
    """`constrain`, and the last axis next to each other in memory, which is a TPU's lanes.

    Left to itself, XLA lays activations out in columns for the attention kernel's sake, and copies
    them for every product.
    """
    x = constrain(x, *names)
    if x.shape[-2] < _TILE_ROWS:
        return x
    rows = layout.Layout(tuple(range(x.ndim)))
    pin = functools.partial(layout.with_layout_constraint, layouts=rows)
    if not sharding.divides(x.shape, names):
        return x
    # The partitioner has no rule for it and would gather the whole: each device pins its own part.
    return sharding.on_each_device(pin, (names,), names)(x)
