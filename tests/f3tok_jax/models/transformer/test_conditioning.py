# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What modulates blocks and what they attend to: against NumPy, and what adds nothing."""

import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.models.transformer import attention
from f3tok_jax.models.transformer import conditioning
from f3tok_jax.models.transformer import transformer
from tests.support import tiny_models


def _normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_attention_to_another_sequence_is_softmax_over_what_is_seen_of_it():
    query, key, value = (
        _normal(2, 4, 3, 8),
        _normal(2, 2, 5, 8, seed=1),
        _normal(2, 2, 5, 8, seed=2),
    )
    mask = np.array([[True] * 5, [True, True, False, True, False]])
    found = attention.attend_across(*map(jnp.asarray, (query, key, value, mask)))
    for row in range(2):
        for head in range(4):
            keys, values = (x[row, head // 2][mask[row]] for x in (key, value))
            scores = np.exp(query[row, head] @ keys.T / np.sqrt(8))
            expected = scores / scores.sum(axis=-1, keepdims=True) @ values
            np.testing.assert_allclose(found[row, head], expected, atol=1e-5)


def test_a_change_of_zeros_leaves_its_branch_as_it_is_and_others_are_as_written():
    x, zeros = jnp.asarray(_normal(2, 3, 4)), jnp.zeros((2, 1, 4))
    none = conditioning.Change(zeros, zeros, zeros)
    np.testing.assert_array_equal(none.of(x), x)
    np.testing.assert_array_equal(none.gated(x), x)
    np.testing.assert_allclose(none.gated(x, bounded=True), np.tanh(1.0) * x, rtol=1e-6)
    shift, scale, gate = (jnp.asarray(_normal(2, 1, 4, seed=seed)) for seed in (1, 2, 3))
    some = conditioning.Change(shift, scale, gate)
    np.testing.assert_allclose(some.of(x), x * (1 + scale) + shift, rtol=1e-6)
    np.testing.assert_allclose(some.gated(x), x * (1 + gate), rtol=1e-6)
    bounded = some.gated(x, bounded=True)
    np.testing.assert_allclose(bounded, x * np.tanh(1 + gate), rtol=1e-5, atol=1e-6)


def test_a_modulated_transformer_needs_a_condition_and_has_no_cache_and_no_negative_rank():
    fields = tiny_models.TRANSFORMER | dict(attention="causal")
    model = transformer.Transformer(**fields, modulation_rank=2)
    with pytest.raises(
        ValueError, match="needs attention='causal' and modulation_rank=0, got .* 2"
    ):
        cache = model.initial_cache(1, 4)
        model.apply({"params": {}}, jnp.zeros((1, 1, 16)), cache, method="step")
    with pytest.raises(ValueError, match="needs a condition where .* got none with 2"):
        model.apply({"params": {}}, jnp.zeros((1, 1, 16)))
    with pytest.raises(ValueError, match="modulation_rank must be at least 0"):
        transformer.check_shape(transformer.Transformer(**fields, modulation_rank=-1))
