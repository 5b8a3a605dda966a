# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Packing: everything valid moves to the front and back, and nothing else does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.models import packing


def _example(seed: int, num_rows: int = 4, num_slots: int = 13):
    rng = np.random.default_rng(seed)
    return rng.random((num_rows, num_slots)) < 0.6, rng.normal(size=(num_rows, num_slots, 3))


def test_valid_slots_move_to_the_front_in_order():
    mask, values = _example(0)
    plan = packing.pack(jnp.array(mask), length=13)
    packed = np.array(packing.take(plan, jnp.array(values, jnp.float32)))
    for row, (is_valid, row_values) in enumerate(zip(mask, values)):
        count = is_valid.sum()
        np.testing.assert_array_equal(packed[row, :count], row_values[is_valid].astype(np.float32))
        assert not packed[row, count:].any()
        np.testing.assert_array_equal(np.array(plan.valid)[row], np.arange(13) < count)


def test_put_back_undoes_take():
    mask, values = _example(1)
    plan = packing.pack(jnp.array(mask), length=13)
    values = jnp.array(values, jnp.float32)
    back = packing.put_back(plan, packing.take(plan, values))
    np.testing.assert_array_equal(back, jnp.where(mask[..., None], values, 0.0))


def test_what_has_no_room_is_lost_and_only_that():
    mask = jnp.array([[True, False, True, True, True]])
    plan = packing.pack(mask, length=3)
    slots = jnp.array([[1.0, 2.0, 3.0, 4.0, 5.0]])
    np.testing.assert_array_equal(packing.take(plan, slots), [[1.0, 3.0, 4.0]])
    back = packing.put_back(plan, packing.take(plan, slots))
    np.testing.assert_array_equal(back, [[1.0, 0.0, 3.0, 4.0, 0.0]])


def test_gradient_reaches_the_packed_slots_alone():
    mask = jnp.array([[True, False, True, True]])
    plan = packing.pack(mask, length=2)
    gradient = jax.grad(lambda slots: jnp.sum(packing.take(plan, slots) * jnp.array([[2.0, 3.0]])))
    np.testing.assert_array_equal(gradient(jnp.ones((1, 4))), [[2.0, 0.0, 3.0, 0.0]])


def test_nan_in_padding_stays_there():
    mask = jnp.array([[True, False]])
    slots = jnp.array([[1.0, jnp.nan]])
    plan = packing.pack(mask, length=2)
    np.testing.assert_array_equal(packing.take(plan, slots), [[1.0, 0.0]])


def test_a_row_longer_than_its_slots_is_refused():
    with pytest.raises(ValueError, match="at most as long as its 4 slots: 5"):
        packing.pack(jnp.ones((1, 4), bool), length=5)
