# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Attention: against sums written out with NumPy, the kernels against the plain form."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.devices import sharding
from f3tok_jax.devices import slices
from f3tok_jax.models.transformer import attention
from f3tok_jax.models.transformer import attention_kernel
from f3tok_jax.models.transformer import attention_tiles
from f3tok_jax.models.transformer import layers


def _random(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _inputs(length: int, head_dim: int, batch: int = 2) -> tuple[np.ndarray, ...]:
    return tuple(
        _random(batch, heads, length, head_dim, seed=seed) for seed, heads in enumerate((4, 2, 2))
    )


def _segments(length: int, batch: int = 2) -> np.ndarray:
    """Two segments and padding."""
    row = np.zeros(length, np.int32)
    row[: length // 2] = 1
    row[length // 2 : length - length // 8] = 2
    return np.tile(row, (batch, 1))


def _by_hand(query, key, value, segments, *, causal: bool, window: int) -> np.ndarray:
    """One query at a time, in float64."""
    output = np.zeros(query.shape)
    batch, heads, length, width = query.shape
    for b in range(batch):
        for i in range(length):
            seen = [
                j
                for j in range(length)
                if segments[b, i] == segments[b, j]
                and not (causal and j > i)
                and not (window and abs(i - j) >= window)
            ]
            for h in range(heads):
                g = h // (heads // key.shape[1])
                scores = key[b, g, seen].astype(np.float64) @ query[b, h, i] / np.sqrt(width)
                weights = np.exp(scores - scores.max())
                output[b, h, i] = weights @ value[b, g, seen] / weights.sum()
    return output


def _preparation(length: int, head_dim: int, *, has_norms: bool = False) -> layers.Preparation:
    """Rotates by random angles; norms with random scales."""
    angles = np.tile(_random(1, 1, length, head_dim // 2, seed=3), 2)
    scales = tuple(1 + 0.3 * _random(head_dim, seed=seed) for seed in (4, 5))
    return layers.Preparation((np.cos(angles), np.sin(angles)), scales if has_norms else None, 1e-6)


def _kind(causal: bool, window: int, implementation: str = "plain") -> attention.Kind:
    return attention.Kind(causal, window, implementation)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [0, 3])
def test_plain_equals_sums_by_hand(causal, window):
    inputs, segments = _inputs(12, 8), _segments(12)
    preparation = _preparation(12, 8)
    found = attention.attend(*inputs, preparation, segments, kind=_kind(causal, window))
    prepared = (*preparation(*inputs[:2]), inputs[2])
    expected = _by_hand(*map(np.asarray, prepared), segments, causal=causal, window=window)
    # float32 sums of 12 terms.
    np.testing.assert_allclose(found, expected, atol=2e-6)


def _with_gradients(attend, inputs, preparation, segments):
    """Output of an implementation, and the gradients of a loss of it."""

    def loss(inputs, scales):
        changed = dataclasses.replace(preparation, scales=scales)
        output = attend(*inputs, changed, segments)
        # What stands in padding means nothing.
        output = jnp.where((segments > 0)[:, None, :, None], output, 0.0)
        return jnp.sum(jnp.sin(output)), output

    grads, output = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(
        inputs, preparation.scales
    )
    return output, grads


@pytest.mark.parametrize("causal,window", [(True, 0), (False, 0), (False, 50)])
def test_splash_equals_plain_with_gradients(causal, window):
    inputs, segments = _inputs(200, 64, batch=1), _segments(200, batch=1)
    kind, preparation = _kind(causal, window), _preparation(200, 64)
    results = [
        _with_gradients(attend, inputs, preparation, segments)
        for attend in (
            functools.partial(attention.attend, kind=kind),
            functools.partial(attention.splash, kind=kind, interpret=True),
        )
    ]
    # Sums of up to 200 terms in another order.
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-4, rtol=1e-4), *results)


@pytest.mark.parametrize(
    "length,causal,window,has_norms,rotates",
    [
        (200, True, 0, True, True),
        (200, True, 90, False, True),
        (200, False, 50, True, True),
        (72, False, 0, True, True),
        (72, False, 0, False, False),
    ],
)
def test_rows_equal_plain_with_gradients(monkeypatch, length, causal, window, has_norms, rotates):
    # Rows of two tiles, with one head of queries to a step where norms are; and several short ones in
    # a step of the kernel.
    if has_norms:
        monkeypatch.setattr(attention_kernel, "_QUERIES", 200)
    batch = 1 if length > 128 else 4
    inputs, segments = _inputs(length, 128, batch=batch), _segments(length, batch=batch)
    kind, preparation = _kind(causal, window), _preparation(length, 128, has_norms=has_norms)
    if not rotates:
        preparation = dataclasses.replace(preparation, rotation=None)
    results = [
        _with_gradients(attend, inputs, preparation, segments)
        for attend in (
            functools.partial(attention.attend, kind=kind),
            functools.partial(attention.rows, kind=kind, interpret=True),
        )
    ]
    # float32, sums of up to 200 terms in another order; the scales' gradients are sums over all.
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-5), *results)


@pytest.mark.parametrize("causal,window", [(True, 0), (True, 250), (False, 50), (False, 0)])
def test_tiles_have_all_that_may_be_seen_and_say_where_that_is_not_all(causal, window):
    shape, length = attention_tiles.Shape(causal, window, None, ""), 640
    index = np.arange(length)
    distance = index[:, None] - index[None, :]
    allowed = (distance >= 0) | (not causal)
    allowed &= (np.abs(distance) < window) | (not window)
    covered = np.zeros_like(allowed)
    for queries, seen in shape.tiles(length):
        for keys, is_partial in seen:
            covered[queries, keys] = True
            part = allowed[queries, keys]
            assert part.any() and is_partial == (not part.all())
            if is_partial:
                np.testing.assert_array_equal(shape.allows(queries, keys).T, part)
    assert covered[allowed].all()


@pytest.mark.parametrize("name,head_dim", [("splash", 64), ("rows", 128)])
def test_kernels_run_on_each_devices_own_rows_and_heads(name, head_dim):
    inputs, segments = _inputs(128, head_dim, batch=4), _segments(128, batch=4)
    mesh = sharding.make_mesh(dict(replica=1, fsdp=4, tensor=2))
    attend = functools.partial(getattr(attention, name), kind=_kind(True, 0), interpret=True)
    preparation = _preparation(128, head_dim, has_norms=True)
    alone = _with_gradients(attend, inputs, preparation, segments)
    with sharding.use(mesh):
        together = _with_gradients(attend, inputs, preparation, segments)
    assert {shard.data.shape for shard in together[0].addressable_shards} == {(1, 2, 128, head_dim)}
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-5), alone, together
    )


def test_auto_is_a_kernel_where_length_and_platform_suit():
    def text(length: int, head_dim: int, platform: str) -> str:
        shapes = [
            jax.ShapeDtypeStruct((1, heads, length, head_dim), jnp.bfloat16) for heads in (2, 1, 1)
        ]
        preparation, kind = _preparation(length, head_dim), _kind(True, 0, "auto")
        attend = lambda *heads: attention.attend(*heads, preparation, None, kind=kind)
        traced = jax.jit(attend).trace(*shapes)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    rows, splash = 'kernel_name = "rows', "splash"
    assert rows in text(80, 128, "tpu")
    assert rows in text(600, 128, "tpu")
    assert splash in text(4096, 128, "tpu")
    assert splash in text(600, 64, "tpu")
    assert "tpu_custom_call" not in text(60, 128, "tpu")
    assert "tpu_custom_call" not in text(512, 48, "tpu")
    assert "tpu_custom_call" not in text(512, 128, "cpu")


def test_many_heads_of_long_rows_fit_a_tpus_vector_memory(tpu_compiler):
    """As of Qwen3-4B, of which several steps share a head of keys, compiled as quickly as can be."""
    jax.config.update("jax_exec_time_optimization_effort", -1.0)
    device = slices.devices(slices.parse("v5p:2x2x1"))[0]
    heads = lambda count: jax.ShapeDtypeStruct((8, count, 1024, 128), jnp.bfloat16)
    angles = jax.ShapeDtypeStruct((8, 1024, 128), jnp.float32)
    segments = jax.ShapeDtypeStruct((8, 1024), jnp.int32)
    shape = attention_tiles.Shape(True, 0, 1e-6, "total")

    def loss(query, key, value, cosines, sines, segments):
        scales = (jnp.ones(128, jnp.float32),) * 2
        rotation = cosines, sines
        found = attention_kernel.attend(query, key, value, scales, rotation, segments, shape)
        return jnp.sum(found.astype(jnp.float32) ** 2)

    on = jax.sharding.SingleDeviceSharding(device)
    gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2)), in_shardings=on, out_shardings=on)
    arguments = heads(32), heads(8), heads(8), angles, angles, segments
    compiled = gradients.lower(*arguments).compile()
    assert [one.shape[1] for one in compiled.out_info] == [32, 8, 8]
