# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Microbatches: rows stay whole, every example comes once, no device waits for another's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.devices import sharding
from f3tok_jax.training import microbatches


def _together(batch, index, *, examples: int) -> dict[str, jax.Array]:
    """[n, n] how often two examples share a row; how many rows; the microbatches."""
    rows = jax.nn.one_hot(batch["number"], 16).reshape(-1, examples, 16)
    return {
        "together": jnp.einsum("rei,rfj->ij", rows, rows),
        "rows": jnp.float32(rows.shape[0]),
        "calls": jnp.float32(1),
        "indices": jnp.float32(index),
    }


@pytest.mark.parametrize("examples", [1, 2, 4])
def test_examples_share_a_row_with_the_same_others_in_any_number_of_microbatches(examples):
    batch = {"number": jnp.arange(16)}
    share = functools.partial(_together, examples=examples)
    for accumulate in (1, 2, 4):
        found = microbatches.accumulated(share, batch, accumulate, examples_per_row=examples)
        expected = np.kron(np.eye(16 // examples), np.ones((examples, examples)))
        np.testing.assert_array_equal(found["together"], expected)
        assert found["rows"] == 16 // examples and found["calls"] == accumulate
        assert found["indices"] == sum(range(accumulate))


@pytest.mark.parametrize("accumulate", [2, 4])
def test_every_device_has_its_own_rows_of_every_microbatch(accumulate):
    mesh = sharding.make_mesh(dict(replica=1, fsdp=-1, tensor=1))
    batch = {"waveform": np.ones((8 * 4 * 2, 16), np.float32)}
    # What needs no other example needs no other device.
    each = lambda batch, index: jnp.sum(jnp.square(batch["waveform"]).reshape(-1, 2, 16), axis=0)
    with sharding.use(mesh):
        batch = sharding.host_to_global(batch, mesh)
        split = jax.jit(
            functools.partial(
                microbatches.accumulated, each, accumulate=accumulate, examples_per_row=2
            )
        )
        program = split.lower(batch).compile().as_text()
        np.testing.assert_array_equal(split(batch), np.full((2, 16), 32.0))
    for moves in ("all-gather", "all-to-all", "collective-permute"):
        assert moves not in program
