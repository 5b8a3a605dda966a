# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Layers of the transformer against NumPy, and where their arrays lie."""

import jax
from jax.experimental import layout
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.devices import sharding
from f3tok_jax.models.transformer import layers


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("use_bias", [False, True])
def test_heads_are_the_columns_of_one_product_and_back(use_bias):
    x = _random(2, 5, 6)
    into = layers.IntoHeads(
        12, num_heads=3, axes=("embed", "heads"), compute_dtype="float32", use_bias=use_bias
    )
    kernel, bias = _random(6, 12), _random(12) * use_bias
    params = {"kernel": kernel} | ({"bias": bias} if use_bias else {})
    heads = into.apply({"params": params}, x)
    wanted = (x @ kernel + bias).reshape(2, 5, 3, 4).swapaxes(1, 2)
    # float32 sums of 6 terms.
    np.testing.assert_allclose(heads, wanted, atol=1e-5)
    back = layers.FromHeads(6, axes=("heads", "embed"), compute_dtype="float32")
    merged = back.apply({"params": {"kernel": kernel.T.copy()}}, heads)
    np.testing.assert_allclose(merged, (x @ kernel + bias) @ kernel.T, atol=1e-4)


def test_a_layer_norm_standardises_scales_and_shifts():
    x, scale, bias = 3.0 + _random(2, 5, 6), 1.0 + _random(6), _random(6)
    found = layers.LayerNorm(1e-6).apply({"params": {"scale": scale, "bias": bias}}, x)
    wanted = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(found, wanted * scale + bias, atol=1e-5)


def test_a_rotation_turns_complex_numbers():
    x, angles = _random(1, 2, 3, 8), _random(1, 1, 3, 4)
    both = np.concatenate([angles, angles], axis=-1)
    found = layers.rotate(x, np.cos(both), np.sin(both))
    turned = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * angles)
    np.testing.assert_allclose(
        found, np.concatenate([turned.real, turned.imag], axis=-1), atol=1e-6
    )


def _text(function, shape: tuple[int, ...]) -> str:
    """The compiled program of a function of an array whose first axis lies on eight devices."""
    mesh = sharding.make_mesh(dict(replica=1, fsdp=8, tensor=1))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp"))
    with sharding.use(mesh):
        compiled = jax.jit(function, in_shardings=rows, out_shardings=rows)
        return compiled.lower(jax.ShapeDtypeStruct(shape, jnp.float32)).compile().as_text()


def test_rows_are_pinned_where_they_lie():
    def pinned(x):
        return layers.in_rows(2 * x, "batch", "time", "embed") + 1

    def gathered(x):
        return layout.with_layout_constraint(2 * x, layout.Layout((0, 1, 2))) + 1

    assert "all-gather" not in _text(pinned, (8, 4, 16))
    # Without a part for each device; should this fail, the partitioner has learnt the rule.
    assert "all-gather" in _text(gathered, (8, 4, 16))


def test_a_batch_that_devices_cannot_share_is_left_alone():
    mesh = sharding.make_mesh(dict(replica=1, fsdp=8, tensor=1))
    x = _random(1, 4, 16)
    with sharding.use(mesh):
        same = jax.jit(lambda x: layers.in_rows(x, "batch", "time", "embed"))(x)
    np.testing.assert_array_equal(same, x)
