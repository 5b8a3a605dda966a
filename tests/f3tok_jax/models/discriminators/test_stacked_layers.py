# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Rows on positions: where they begin and end, and what neighbours see."""

import jax.numpy as jnp
import numpy as np

from f3tok_jax.models.discriminators import stacked_layers


def test_rows_do_not_see_each_other_and_end_in_zeros():
    # Two entries: two rows of three steps, and three rows of two steps of which one is valid.
    stack = [stacked_layers.Rows(2, 3, 3), stacked_layers.Rows(3, 2, 1)]
    positions = stacked_layers.Positions(stack, 8)
    assert positions.valid[:, 0, :, 0].tolist() == [
        [True] * 6 + [False] * 2,
        [True, False] * 3 + [False] * 2,
    ]
    x = jnp.stack([jnp.arange(1.0, 9.0)] * 2)[:, None, :, None]
    before, here, after = np.moveaxis(np.asarray(positions.joined(x))[:, 0], -1, 0)
    np.testing.assert_array_equal(before, [[0, 1, 2, 0, 4, 5, 0, 7], [0, 1, 0, 3, 0, 5, 0, 7]])
    np.testing.assert_array_equal(here, [np.arange(1, 9)] * 2)
    np.testing.assert_array_equal(after, [[2, 3, 0, 5, 6, 0, 8, 0], [2, 0, 4, 0, 6, 0, 8, 0]])
    kept = np.asarray(positions.keep_valid(x))[:, 0, :, 0]
    np.testing.assert_array_equal(kept, [[1, 2, 3, 4, 5, 6, 0, 0], [1, 0, 3, 0, 5, 0, 0, 0]])


def test_shifts_pads_and_unstacks():
    x = jnp.arange(3.0)[None, None, :, None]
    for offset, expected in ((-1, [0, 0, 1]), (0, [0, 1, 2]), (2, [2, 0, 0])):
        np.testing.assert_array_equal(stacked_layers.shift(x, offset)[0, 0, :, 0], expected)
    assert stacked_layers.pad_to(x, 5, axis=2).shape == (1, 1, 5, 1)
    assert stacked_layers.pad_to(x, axis=2, multiple=4).shape == (1, 1, 4, 1)
    assert [part.shape for part in stacked_layers.unstack(x)] == [(1, 3, 1)]
