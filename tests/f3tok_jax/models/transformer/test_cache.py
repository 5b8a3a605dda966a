# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A cache: which slots hold what, whatever the chunks, and whether a row finds all that it sees."""

import numpy as np
import pytest

from f3tok_jax.models.transformer import cache as cache_lib

_LAYERS, _ROWS, _HEADS, _WIDTH = 2, 3, 2, 4
# Within and beyond what is written singly, and beyond all slots; ends of the ring fall within.
_SIZES = (3, 30, 75, 3)


def _empty(room: int = 20) -> cache_lib.Cache:
    return cache_lib.empty(_LAYERS, _ROWS, _HEADS, _WIDTH, room=room, dtype="float32")


def _read(cache: cache_lib.Cache, sizes, mask: np.ndarray) -> cache_lib.Cache:
    """`cache` after chunks of what `mask` [b, n] has; keys are the places in it, values twice them."""
    positions = np.where(mask, np.cumsum(mask, axis=1) - 1, -1).astype(np.int32)
    start = 0
    for size in sizes:
        now = slice(start, start + size)
        keys = np.arange(start, start + size, dtype=np.float32)[:, None]
        keys = np.broadcast_to(keys, (_LAYERS, _ROWS, _HEADS, size, _WIDTH))
        cache = cache.written(keys, 2 * keys, positions[:, now])
        start += size
    return cache


def test_what_was_read_last_lies_in_its_slots_whatever_the_chunks():
    total = sum(_SIZES)
    mask = np.random.default_rng(0).random((_ROWS, total)) < 0.7
    cache = _read(_empty(), _SIZES, mask)
    assert cache.num_slots == 32 and cache.num_read == total
    np.testing.assert_array_equal(cache.lengths, mask.sum(axis=1))
    places = np.arange(total - 32, total)
    expected = np.zeros(32)
    expected[places % 32] = places
    for memory, times in ((cache.keys, 1), (cache.values, 2)):
        np.testing.assert_array_equal(
            memory, np.broadcast_to(times * expected[:, None], memory.shape)
        )
    positions = np.where(mask, np.cumsum(mask, axis=1) - 1, -1)
    np.testing.assert_array_equal(np.asarray(cache.positions)[:, places % 32], positions[:, places])


@pytest.mark.parametrize("window, most", [(0, 32), (4, 34), (1, 64)])
def test_a_row_is_whole_as_long_as_it_has_all_that_its_next_position_sees(window, most):
    # One row reads all the time, one pauses after five positions, one has read nothing.
    mask = np.zeros((_ROWS, 64), bool)
    mask[0], mask[1, :5] = True, True
    cache, found = _empty(), []
    for start in range(64):
        found.append(np.asarray(cache.is_whole(window)))
        keys = np.zeros((_LAYERS, _ROWS, _HEADS, 1, _WIDTH), np.float32)
        position = np.where(mask[:, start], np.cumsum(mask, axis=1)[:, start] - 1, -1)
        cache = cache.written(keys, keys, position[:, None].astype(np.int32))
    reads, pauses, empty = np.transpose(found)
    assert empty.all()
    number = np.arange(64)
    np.testing.assert_array_equal(reads, number <= 32 if window == 0 else number >= 0)
    # Its window of 4 sees the third position still, which the 35th overwrites.
    np.testing.assert_array_equal(pauses, number <= most)
