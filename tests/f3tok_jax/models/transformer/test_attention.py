# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Attention: against sums written out with NumPy, the splash kernel against the plain form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.devices import sharding
from f3tok_jax.models.transformer import attention


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


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [0, 3])
def test_plain_equals_sums_by_hand(causal, window):
    inputs, segments = _inputs(12, 8), _segments(12)
    options = dict(causal=causal, window=window)
    found = attention.attend(*inputs, segments=segments, implementation="plain", **options)
    # float32 sums of 12 terms.
    np.testing.assert_allclose(found, _by_hand(*inputs, segments, **options), atol=2e-6)


@pytest.mark.parametrize("causal,window", [(True, 0), (False, 0), (False, 50)])
def test_splash_equals_plain_with_gradients(causal, window):
    inputs, segments = _inputs(200, 64, batch=1), _segments(200, batch=1)
    is_valid = (segments > 0)[:, None, :, None]
    options = dict(causal=causal, window=window)

    def loss(query, key, value, attend):
        output = attend(query, key, value)
        return jnp.sum(jnp.sin(output) * is_valid), output * is_valid

    plain = functools.partial(
        attention.attend, segments=segments, implementation="plain", **options
    )
    splash = functools.partial(attention.splash, segments=segments, interpret=True, **options)
    results = [
        jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True), static_argnums=3)(
            *inputs, attend
        )
        for attend in (plain, splash)
    ]
    # Sums of up to 200 terms in another order.
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-4, rtol=1e-4), *results)


def test_splash_runs_on_each_devices_own_rows_and_heads():
    inputs, segments = _inputs(128, 64, batch=4), _segments(128, batch=4)
    mesh = sharding.make_mesh(dict(replica=1, fsdp=4, tensor=2))
    attend = functools.partial(attention.splash, causal=True, window=0, interpret=True)
    alone = jax.jit(attend)(*inputs, segments)
    with sharding.use(mesh):
        together = jax.jit(attend)(*inputs, segments)
    assert {shard.data.shape for shard in together.addressable_shards} == {(1, 2, 128, 64)}
    np.testing.assert_allclose(alone, together, atol=1e-6)


def test_auto_is_splash_where_length_and_platform_suit():
    def text(length: int, head_dim: int, platform: str) -> str:
        shapes = [
            jax.ShapeDtypeStruct((1, heads, length, head_dim), jnp.bfloat16) for heads in (2, 1, 1)
        ]
        attend = functools.partial(
            attention.attend, causal=True, window=0, segments=None, implementation="auto"
        )
        traced = jax.jit(attend).trace(*shapes)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert "tpu_custom_call" in text(512, 128, "tpu")
    assert "tpu_custom_call" in text(600, 64, "tpu")
    assert "tpu_custom_call" not in text(256, 128, "tpu")
    assert "tpu_custom_call" not in text(512, 48, "tpu")
    assert "tpu_custom_call" not in text(512, 128, "cpu")
