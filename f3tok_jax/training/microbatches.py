# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A batch in parts, one after another, where all of it at once does not fit."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from f3tok_jax.training import stage


def accumulated(
    gradients: Callable[[stage.Batch, Any], Any], batch: stage.Batch, accumulate: int
) -> Any:
    """Sums `gradients(microbatch, index)` over microbatches.

    Args:
        gradients: whose results add up: divide by the sums of the whole batch inside.
        batch: of the step.
        accumulate: microbatches, a divisor of the batch size.
    """
    if accumulate == 1:
        return gradients(batch, 0)
    # Every microbatch takes each `accumulate`-th example, so that it stays spread over all devices.
    split = jax.tree.map(
        lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), dict(batch)
    )
    first = jax.tree.map(lambda x: x[0], split)
    shapes = jax.eval_shape(gradients, first, 0)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(total, indexed):
        return jax.tree.map(jnp.add, total, gradients(*indexed)), None

    total, _ = jax.lax.scan(add, zeros, (split, jnp.arange(accumulate)))
    return total
