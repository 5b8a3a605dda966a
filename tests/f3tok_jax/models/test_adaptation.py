# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Differences from frozen weights: nothing at first, of the right shapes, and all that learns."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.devices import sharding
from f3tok_jax.models import adaptation
from tests.support import tiny_models

_RANK = 2


def _abstract(dtype: str = "float32"):
    """Shapes of a small model as they come: kernels of stacked layers, a gain, a table."""

    def leaf(shape, *names):
        return nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)), names)

    return {
        "embedding": leaf((7, 4), "vocabulary", "embed"),
        "layers": {
            "norm": {"scale": leaf((3, 4), "layers", "embed")},
            "query": {
                "kernel": leaf((3, 4, 6), "layers", "embed", "heads"),
                "bias": leaf((3, 6), "layers", "heads"),
            },
            "output": {"kernel": leaf((3, 6, 4), "layers", "heads", "embed")},
        },
    }


@functools.lru_cache
def _weights(dtype: str = "float32"):
    return tiny_models.random_weights(_abstract(dtype))


def _fresh(kind: str, *, key: int = 0, **options):
    options = dict(rank=_RANK) | options
    return adaptation.init(jax.random.key(key), _abstract(), kind=kind, **options)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["all", "low_rank"])
def test_at_first_no_bit_of_the_weights_changes(kind, dtype):
    weights = _weights(dtype)
    adapted = adaptation.apply(weights, sharding.unbox(_fresh(kind)))
    jax.tree.map(np.testing.assert_array_equal, adapted, weights)
    assert jax.tree.map(lambda x: x.dtype, adapted) == jax.tree.map(lambda x: x.dtype, weights)


def test_a_difference_of_all_is_a_float32_tree_like_the_weights():
    difference = adaptation.init(jax.random.key(0), _abstract("bfloat16"), kind="all", rank=0)
    assert jax.tree.structure(difference) == jax.tree.structure(_abstract())
    plain = sharding.unbox(difference)
    jax.tree.map(
        lambda x, w: np.testing.assert_array_equal(x, np.zeros(w.shape)), plain, _weights()
    )
    assert {x.dtype for x in jax.tree.leaves(plain)} == {np.dtype("float32")}
    assert difference["layers"]["query"]["kernel"].names == ("layers", "embed", "heads")


def test_low_rank_differences_are_of_kernels_alone_and_lie_as_these_do():
    difference = _fresh("low_rank")
    assert set(difference) == {"layers"} and set(difference["layers"]) == {"query", "output"}
    factors = difference["layers"]["query"]
    assert set(factors) == {"kernel"} and set(factors["kernel"]) == {"left", "right"}
    left, right = factors["kernel"]["left"], factors["kernel"]["right"]
    assert left.value.shape == (3, 4, _RANK) and left.names == ("layers", "embed", None)
    assert right.value.shape == (3, _RANK, 6) and right.names == ("layers", None, "heads")
    np.testing.assert_array_equal(right.value, 0.0)


def test_left_factors_keep_the_scale_of_what_comes_in_and_are_all_different():
    wide = {
        name: {"kernel": nn.LogicallyPartitioned(jnp.zeros((2, 400, 3)), (None, "embed", None))}
        for name in ("query", "key")
    }
    made = adaptation.init(jax.random.key(0), wide, kind="low_rank", rank=50)
    lefts = [np.asarray(made[name]["kernel"]["left"].value) for name in ("query", "key")]
    # 40 000 draws of standard deviation 1 / sqrt(400).
    assert lefts[0].std() == pytest.approx(0.05, rel=0.02)
    for other in (lefts[1], lefts[0][::-1]):  # another kernel, another layer
        assert abs(np.corrcoef(lefts[0].ravel(), other.ravel())[0, 1]) < 0.03
    again = adaptation.init(jax.random.key(0), wide, kind="low_rank", rank=50)
    np.testing.assert_array_equal(again["query"]["kernel"]["left"].value, lefts[0])


def test_a_difference_is_added_and_one_of_low_rank_multiplied_out():
    weights, low_rank = _weights(), sharding.unbox(_fresh("low_rank"))
    low_rank = tiny_models.random_weights(jax.eval_shape(lambda: low_rank), seed=1)
    adapted = adaptation.apply(weights, low_rank)
    for name in ("query", "output"):
        factors = low_rank["layers"][name]["kernel"]
        added = np.einsum("lir,lro->lio", factors["left"], factors["right"])
        expected = weights["layers"][name]["kernel"] + added
        np.testing.assert_allclose(
            adapted["layers"][name]["kernel"], expected, rtol=1e-6, atol=1e-6
        )
    assert adapted["embedding"] is weights["embedding"]
    assert adapted["layers"]["norm"]["scale"] is weights["layers"]["norm"]["scale"]
    whole = tiny_models.random_weights(_abstract(), seed=2)
    adapted = adaptation.apply(weights, whole)
    jax.tree.map(np.testing.assert_array_equal, adapted, jax.tree.map(jnp.add, weights, whole))


@pytest.mark.parametrize("kind", ["all", "low_rank"])
def test_gradients_reach_every_difference(kind):
    difference = tiny_models.random_weights(jax.eval_shape(lambda: _fresh(kind)), seed=1)

    def loss(difference):
        adapted = adaptation.apply(_weights("bfloat16"), difference)
        return sum(jnp.sum(jnp.square(x.astype(jnp.float32))) for x in jax.tree.leaves(adapted))

    gradients = jax.grad(loss)(difference)
    assert jax.tree.structure(gradients) == jax.tree.structure(difference)
    assert all(np.abs(np.asarray(x)).min() > 0 for x in jax.tree.leaves(gradients))


def test_fresh_low_rank_differences_learn_by_their_right_factor():
    def loss(difference):
        return jnp.sum(adaptation.apply(_weights(), difference)["layers"]["query"]["kernel"])

    factors = jax.grad(loss)(sharding.unbox(_fresh("low_rank")))["layers"]["query"]["kernel"]
    assert np.abs(factors["right"]).min() > 0
    np.testing.assert_array_equal(factors["left"], 0.0)


@pytest.mark.parametrize("kind, rank", [("nothing", 4), ("some", 4), ("low_rank", 0)])
def test_other_kinds_and_ranks_are_refused(kind, rank):
    with pytest.raises(ValueError, match=f"must be one of .*'low_rank'.*, got '{kind}' and {rank}"):
        _fresh(kind, rank=rank)
