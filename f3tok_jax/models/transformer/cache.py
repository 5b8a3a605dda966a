# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a causal transformer remembers of what it has read.

Letters in shapes are those of `attention`.
"""

import flax.struct
import jax
import jax.numpy as jnp

# Caches have a multiple of so many slots. Then they fill the tiles of a TPU's memory, and XLA lays
# them out as they are declared: products read them where they lie, one row after another.
_SLOTS = 32
# Up to so many positions are written one by one, in place. For a scatter XLA lays the cache out anew
# and copies it whole, which many are worth.
_MAX_WRITES = 8


@flax.struct.dataclass
class Cache:
    """Keys and values of every layer, row by row.

    What the rows read together lies in one slot of all of them, whatever its position in each, and
    padding takes one, too: so one write in place does for all rows. The n-th that was read lies in
    slot n modulo s.

    Attributes:
        keys: [num_layers, b, g, s, d], compute dtype.
        values: as keys.
        positions: [b, s] int32, the position in each slot, -1 for none.
        lengths: [b] int32, positions seen so far.
        num_read: [] int32, positions read so far, padding included.
    """

    keys: jax.Array
    values: jax.Array
    positions: jax.Array
    lengths: jax.Array
    num_read: jax.Array

    @property
    def num_slots(self) -> int:
        return self.positions.shape[1]

    def is_whole(self, window: int) -> jax.Array:
        """[b] bool, whether a row finds all that its next position sees, of `window` positions."""
        reach = jnp.minimum(self.lengths, window - 1) if window else self.lengths
        oldest = (self.lengths - reach)[:, None]
        return jnp.sum(self.positions >= oldest, axis=1) == reach

    def written(self, keys: jax.Array, values: jax.Array, positions: jax.Array) -> "Cache":
        """The next cache.

        Args:
            keys: [num_layers, b, g, k, d] of what all rows have read now.
            values: likewise.
            positions: [b, k] int32, -1 for padding.
        """
        count = positions.shape[1]
        first = max(0, count - self.num_slots)  # of more than there are slots, the last
        slots = (self.num_read + jnp.arange(first, count)) % self.num_slots

        def put(memory, new, axis):
            return _written(memory, jax.lax.slice_in_dim(new, first, count, axis=axis), slots, axis)

        return Cache(
            keys=put(self.keys, keys, 3),
            values=put(self.values, values, 3),
            positions=put(self.positions, positions, 1),
            lengths=self.lengths + jnp.sum(positions >= 0, axis=1, dtype=jnp.int32),
            num_read=self.num_read + count,
        )


def empty(
    num_layers: int, batch_size: int, num_heads: int, head_dim: int, *, room: int, dtype: str
) -> Cache:
    """A cache of nothing.

    Args:
        num_layers: of the transformer.
        batch_size: rows.
        num_heads: of keys and values.
        head_dim: width of a head.
        room: slots at least.
        dtype: of keys and values.
    """
    slots = _SLOTS * -(-room // _SLOTS)
    shape = (num_layers, batch_size, num_heads, slots, head_dim)
    return Cache(
        keys=jnp.zeros(shape, dtype),
        values=jnp.zeros(shape, dtype),
        positions=jnp.full((batch_size, slots), -1, jnp.int32),
        lengths=jnp.zeros((batch_size,), jnp.int32),
        num_read=jnp.int32(0),
    )


def _written(memory: jax.Array, new: jax.Array, slots: jax.Array, axis: int) -> jax.Array:
    """`memory` with `new` in place of what lies at `slots` of an axis."""
    if len(slots) > _MAX_WRITES:
        return memory.at[(slice(None),) * axis + (slots,)].set(new)
    for place, slot in enumerate(slots):
        found = jax.lax.slice_in_dim(new, place, place + 1, axis=axis)
        memory = jax.lax.dynamic_update_slice_in_dim(memory, found, slot, axis=axis)
    return memory
