# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Rows without holes: what is valid moves to the front, in order, and back again.

A row holds one or several examples, each padded to the same length; a transformer would spend its
time on the padding. Shapes are fixed, so one program serves every batch.
"""

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Packing:
    """Where everything is.

    Attributes:
        order: [r, t] int32, the slot that each packed position came from.
        rank: [r, l] int32, the packed position of each slot, t where it is not packed.
        valid: [r, t] bool, True where a position holds something.
    """

    order: jax.Array
    rank: jax.Array
    valid: jax.Array


def rows(x: jax.Array, examples: int) -> jax.Array:
    """Neighbours in a batch put into one row: [b, t, ...] to [b / examples, examples * t, ...]."""
    return x.reshape(x.shape[0] // examples, examples * x.shape[1], *x.shape[2:])


def pack(mask: jax.Array, *, length: int) -> Packing:
    """Plans to move the slots where `mask` is True to the front of rows of `length`.

    Slots for which a row has no room left are lost, those of its last examples; see `lost`.

    Args:
        mask: [r, l] bool.
        length: of the packed rows, at most l.
    """
    if length > mask.shape[1]:
        raise ValueError(f"a packed row is at most as long as its {mask.shape[1]} slots: {length}")
    rank = jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1
    order = jnp.argsort(~mask, axis=1, stable=True)[:, :length].astype(jnp.int32)
    count = rank[:, -1:] + 1
    valid = jnp.arange(length, dtype=jnp.int32)[None] < count
    return Packing(order, jnp.where(mask & (rank < length), rank, length), valid)


def lost(packing: Packing, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How many of the slots of `mask` [r, l] a plan has no room for, and how many they are."""
    wanted = jnp.sum(mask, dtype=jnp.float32)
    return wanted - jnp.sum(packing.valid, dtype=jnp.float32), wanted


def take(packing: Packing, slots: jax.Array) -> jax.Array:
    """Moves slots [r, l, ...] into packed rows [r, t, ...], zero where they hold nothing."""
    return _gather(slots, packing.order, packing.valid)


def put_back(packing: Packing, packed: jax.Array) -> jax.Array:
    """Moves packed rows [r, t, ...] back to their slots [r, l, ...], zero where nothing was."""
    length = packing.order.shape[1]
    return _gather(packed, jnp.minimum(packing.rank, length - 1), packing.rank < length)


def _gather(source: jax.Array, index: jax.Array, valid: jax.Array) -> jax.Array:
    extra = tuple(range(2, source.ndim))
    index, valid = jnp.expand_dims(index, extra), jnp.expand_dims(valid, extra)
    taken = jnp.take_along_axis(source, index, axis=1, mode="clip")
    return jnp.where(valid, taken, jnp.zeros((), source.dtype))
