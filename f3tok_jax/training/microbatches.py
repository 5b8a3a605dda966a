# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A batch in parts, one after another, where all of it at once does not fit."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from f3tok_jax.training import stage


def accumulated(
    gradients: Callable[[stage.Batch, Any], Any],
    batch: stage.Batch,
    accumulate: int,
    *,
    examples_per_row: int = 1,
) -> Any:
    """Sums `gradients(microbatch, index)` over microbatches.

    Args:
        gradients: whose results add up: divide by the sums of the whole batch inside.
        batch: of the step.
        accumulate: microbatches, a divisor of the rows of the batch.
        examples_per_row: neighbours that share a row, and stay together: who has room in a row, and
            who is lost, does not depend on the microbatches.
    """
    if accumulate == 1:
        return gradients(batch, 0)

    # Every microbatch takes each `accumulate`-th row, so that it stays spread over all devices.
    def parts(x):
        rows = x.reshape(-1, accumulate, examples_per_row, *x.shape[1:]).swapaxes(0, 1)
        return rows.reshape(accumulate, -1, *x.shape[1:])

    split = jax.tree.map(parts, dict(batch))
    first = jax.tree.map(lambda x: x[0], split)
    shapes = jax.eval_shape(gradients, first, 0)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(total, indexed):
        return jax.tree.map(jnp.add, total, gradients(*indexed)), None

    total, _ = jax.lax.scan(add, zeros, (split, jnp.arange(accumulate)))
    return total
