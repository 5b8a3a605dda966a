# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Fingerprints: equal on every mesh, different after any one flipped bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.devices import sharding
from f3tok_jax.runs import fingerprint


def _of(array) -> str:
    return fingerprint.of({"x": jnp.asarray(array)})[0]["x"]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.int8, jnp.bool_])
def test_the_same_on_every_mesh(dtype):
    mesh = sharding.make_mesh(dict(replica=2, fsdp=4, tensor=1))
    array = jax.random.normal(jax.random.key(0), (3, 16, 8)).astype(dtype)
    prints = set()
    for spec in [(), (None, "fsdp"), (None, ("replica", "fsdp")), (None, "replica", "fsdp")]:
        placed = jax.device_put(
            array, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
        )
        prints.add(fingerprint.of({"x": placed})[0]["x"])
    prints.add(_of(array))
    prints.add(fingerprint.of_whole({"x": np.asarray(array)})["x"])
    assert len(prints) == 1


def test_every_single_flipped_bit_is_noticed():
    array = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    before = _of(array)
    for position in range(array.size):
        for bit in range(32):
            words = array.copy().view(np.uint32).reshape(-1)
            words[position] ^= np.uint32(1 << bit)
            assert _of(words.view(np.float32).reshape(array.shape)) != before


def test_exchanged_values_and_exchanged_axes_are_noticed():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    exchanged = array.copy()
    exchanged[0, 0], exchanged[2, 3] = array[2, 3], array[0, 0]
    prints = [
        _of(array),
        _of(exchanged),
        _of(array.reshape(4, 3)),
        _of(array.astype(np.int32)),
        _of(-0.0 * array),
    ]
    assert len(set(prints)) == len(prints)


def test_large_leaves_are_hashed_in_chunks_without_a_seam():
    # Longer than a chunk: its parts, hashed apart on two devices, must give the sum of the whole.
    array = jnp.arange(2 * fingerprint._CHUNK + 6, dtype=jnp.int32)
    mesh = sharding.make_mesh(dict(replica=1, fsdp=2, tensor=1), jax.devices()[:2])
    placed = jax.device_put(
        array, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    )
    assert fingerprint.of({"x": placed})[0]["x"] == _of(array)


def test_counts_nonfinite_values_by_path():
    tree = {
        "params": {"kernel": jnp.array([1.0, jnp.nan, jnp.inf])},
        "bias": jnp.zeros(2),
        "step": jnp.int32(1),
    }
    assert fingerprint.of(tree)[1] == {"params/kernel": 2}


@pytest.mark.parametrize("shape", [(), (5,), (3, 4, 2), (0, 3)])
def test_a_fingerprint_says_how_large_its_array_is(shape):
    prints, _ = fingerprint.of({"a": jnp.zeros(shape)})
    assert fingerprint.size_of(prints["a"]) == np.zeros(shape).size
