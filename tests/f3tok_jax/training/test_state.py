# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Random streams, the running average and the guard against non-finite steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.training import state as train_state


def _bits(*arguments) -> tuple[int, ...]:
    return tuple(np.asarray(jax.random.key_data(train_state.step_key(*arguments))).tolist())


def test_keys_differ_by_seed_step_and_stream_and_repeat():
    keys = [
        _bits(seed, step, stream)
        for seed in (0, 1)
        for step in (0, 1, 1000)
        for stream in ("noise", "dropout")
    ]
    assert len(set(keys)) == len(keys)
    assert _bits(0, 3, "noise") == _bits(0, 3, "noise")
    assert _bits(jax.random.key(0), 3, "noise") == _bits(0, 3, "noise")
    jitted = jax.jit(lambda step: jax.random.key_data(train_state.step_key(0, step, "noise")))(
        jnp.int32(3)
    )
    assert tuple(np.asarray(jitted).tolist()) == _bits(0, 3, "noise")


def test_the_hash_of_a_name_is_a_published_one_and_not_of_this_process():
    assert train_state.stable_hash("123456789") == 0xCBF43926  # the check value of CRC-32


def test_the_same_noise_on_one_and_on_eight_devices():
    mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,))
    draw = lambda: jax.random.normal(train_state.step_key(0, 5, "noise"), (16, 3))
    spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    np.testing.assert_array_equal(jax.jit(draw, out_shardings=spec)(), jax.jit(draw)())


def test_the_average_moves_by_its_share():
    average = {"w": jnp.array([1.0, 2.0])}
    new = {"w": jnp.array([2.0, 0.0])}
    np.testing.assert_allclose(
        train_state.update_ema(average, new, decay=0.9)["w"], [1.1, 1.8], rtol=1e-6
    )


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_non_finite_step_changes_nothing(value):
    old = {"w": jnp.ones(3), "count": jnp.int32(4)}
    new = {"w": jnp.array([1.0, value, 2.0]), "count": jnp.int32(5)}
    kept = train_state.select_finite(jnp.all(jnp.isfinite(new["w"])), new, old)
    np.testing.assert_array_equal(kept["w"], old["w"])
    assert kept["count"] == 4
    taken = train_state.select_finite(jnp.all(jnp.isfinite(old["w"])), old, new)
    np.testing.assert_array_equal(taken["w"], old["w"])
