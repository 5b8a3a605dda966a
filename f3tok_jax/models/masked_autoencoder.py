# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Masked autoencoding of mel patches: which are hidden, what tells them, and how well they are told.

Source: Dasheng (arXiv 2406.06992), of masked autoencoders (arXiv 2111.06377).
"""

from flax import linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from f3tok_jax.models import semantic_encoder
from f3tok_jax.models.transformer import layers

_MIN_VARIANCE = 1e-6  # added to that of a patch
_INIT_STD = 0.02  # of the mask token and of the decoder's own products


@flax.struct.dataclass
class Masking:
    """Which mel patches an encoder sees.

    Attributes:
        seen: [b, k] int32, which ones, in the order of drawing.
        is_seen: [b, k] bool, False where an example is too short to have so many.
        place: [b, t] int32, where each is among `seen`, k for one that is hidden or no sound.
        hidden: [b, t] bool, those that are to be told.
    """

    seen: jax.Array
    is_seen: jax.Array
    place: jax.Array
    hidden: jax.Array


def num_seen(count: int, ratio: float) -> int:
    """Of so many mel patches, where a share `ratio` is hidden."""
    return int(count * (1.0 - ratio))


def draw(key: jax.Array, valid: jax.Array, *, ratio: float, group: int) -> Masking:
    """Hides a share of each example's mel patches, neighbours together.

    Args:
        key: of the draw.
        valid: [b, t] bool, those with sound; where there is none, nothing is seen or told.
        ratio: share that is hidden, in (0, 1).
        group: neighbours that are hidden together; the last of those that are seen may be cut.
    """
    batch, count = valid.shape
    noise = jax.random.uniform(key, (batch, -(-count // group)))
    # Neighbours draw one number, and keep their order; what is no sound comes last.
    noise = jnp.repeat(noise, group, axis=1)[:, :count] + jnp.where(valid, 0.0, 1.0)
    order = jnp.argsort(noise, axis=1, stable=True)
    rank = jnp.argsort(order, axis=1)
    most = num_seen(count, ratio)
    share = (1.0 - ratio) * jnp.sum(valid, axis=1, keepdims=True, dtype=jnp.float32)
    # Of 8 patches, 0.3 of which are seen, 2.4 in float32 must not become another number than on the host.
    own = jnp.minimum(jnp.floor(share + 1e-4).astype(jnp.int32), most)
    is_seen = jnp.arange(most)[None] < own
    place = jnp.where(rank < own, rank, most)
    return Masking(order[:, :most], is_seen, place, valid & (rank >= own))


def seen_of(masking: Masking, x: jax.Array) -> jax.Array:
    """[b, k, d], those of [b, t, d] that are seen."""
    return jnp.take_along_axis(x, masking.seen[..., None], axis=1)


class Decoder(nn.Module):
    """What was hidden, from features of what was seen: a transformer on both, told where each is."""

    num_layers: int
    width: int
    num_heads: int  # a divisor of the width
    max_patches: int  # that have learned places
    patch_size: int  # values of a mel patch
    remat: str
    compute_dtype: str

    def setup(self):
        self.input = self._dense(self.width, (None, "embed"))
        self.output = self._dense(self.patch_size, ("embed", None))
        normal, zeros = nn.initializers.normal(_INIT_STD), nn.initializers.zeros
        normal = nn.with_logical_partitioning(normal, ("embed",))
        zeros = nn.with_logical_partitioning(zeros, (None, "embed"))
        self.mask_token = self.param("mask_token", normal, (self.width,), jnp.float32)
        places = (self.max_patches, self.width)
        self.positions = self.param("positions", zeros, places, jnp.float32)
        self.transformer = semantic_encoder.make_transformer(
            num_layers=self.num_layers,
            width=self.width,
            num_heads=self.num_heads,
            remat=self.remat,
            compute_dtype=self.compute_dtype,
        )

    def __call__(self, features: jax.Array, masking: Masking) -> jax.Array:
        """Mel patches [b, t, patch_size] float32, as `normalized` has them, of [b, k, d] features."""
        x = self.input(features)
        token = jnp.broadcast_to(self.mask_token.astype(x.dtype), (len(x), 1, self.width))
        both = jnp.concatenate([x, token], axis=1)
        x = jnp.take_along_axis(both, masking.place[..., None], axis=1)
        x = x + self.positions[None, : x.shape[1]].astype(x.dtype)
        is_sound = masking.hidden | (masking.place < masking.seen.shape[1])
        x = self.transformer(x, segments=is_sound.astype(jnp.int32))
        return self.output(x).astype(jnp.float32)

    def _dense(self, features: int, axes: tuple[str | None, str | None]) -> nn.Dense:
        return layers.dense(
            features,
            axes,
            compute_dtype=self.compute_dtype,
            init=nn.initializers.truncated_normal(_INIT_STD),
        )


def normalized(patches: jax.Array) -> jax.Array:
    """Mel patches [b, t, ...] as [b, t, values], each of mean 0 and, unbiased, variance 1."""
    flat = patches.reshape(*patches.shape[:2], -1)
    variance = jnp.var(flat, axis=-1, ddof=1, keepdims=True)
    mean = jnp.mean(flat, axis=-1, keepdims=True)
    return (flat - mean) * jax.lax.rsqrt(variance + _MIN_VARIANCE)


def error(predicted: jax.Array, target: jax.Array, masking: Masking) -> tuple[jax.Array, jax.Array]:
    """Mean squares of the differences of hidden patches [b, t, values]: their sum, and how many."""
    squares = jnp.mean(jnp.square(predicted - target), axis=-1)
    total = jnp.sum(jnp.where(masking.hidden, squares, 0.0))
    return total, jnp.sum(masking.hidden, dtype=jnp.float32)
