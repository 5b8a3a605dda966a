# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What training adds to weights that are given: a difference of every one, or of low rank.

The given weights stay frozen, outside state and checkpoint; the difference is zero at first. Weight
decay therefore pulls towards the given weights.
"""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

KINDS = ("nothing", "all", "low_rank")

_KERNEL = "kernel"  # leaves that have a difference of low rank
_LEFT, _RIGHT = "left", "right"


def init(key: jax.Array, weights: Any, *, kind: str, rank: int) -> Any:
    """The difference at the start, zero as a whole.

    Args:
        key: of the left factors.
        weights: shapes of the given weights, boxed in logical axes.
        kind: "all": a tree of the same shapes. "low_rank": for every kernel [layers, in, out] the
            factors [layers, in, rank], random, and [layers, rank, out], zeros (LoRA, arXiv
            2106.09685).
        rank: of "low_rank".

    Raises:
        ValueError: for another kind, or a rank below 1.
    """
    if kind == "all":
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), weights)
    if kind != "low_rank" or rank < 1:
        raise ValueError(
            f"config.language_model.train must be one of {KINDS}, its rank at least 1, got "
            f"{kind!r} and {rank}"
        )
    return _factors(key, weights, rank)


def _factors(key: jax.Array, weights: Mapping[str, Any], rank: int) -> dict[str, Any]:
    factors = {}
    for index, (name, value) in enumerate(sorted(weights.items())):
        own = jax.random.fold_in(key, index)
        if isinstance(value, Mapping):
            inner = _factors(own, value, rank)
            if inner:
                factors[name] = inner
        elif name == _KERNEL:
            shape, names = nn.unbox(value).shape, value.names
            left = jax.random.normal(own, (*shape[:-1], rank)) * shape[-2] ** -0.5
            right = jnp.zeros((*shape[:-2], rank, shape[-1]))
            factors[name] = {
                _LEFT: nn.LogicallyPartitioned(left, (*names[:-1], None)),
                _RIGHT: nn.LogicallyPartitioned(right, (*names[:-2], None, names[-1])),
            }
    return factors


def apply(weights: Any, difference: Any) -> Any:
    """The weights with their difference, in their own dtype; gradients flow to the difference."""
    if not isinstance(weights, Mapping):
        if isinstance(difference, Mapping):
            difference = difference[_LEFT] @ difference[_RIGHT]
        return (weights.astype(jnp.float32) + difference).astype(weights.dtype)
    return {
        name: apply(value, difference[name]) if name in difference else value
        for name, value in weights.items()
    }
