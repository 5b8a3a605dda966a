# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The state of training, its random streams, running average, and guard against NaNs."""

from typing import Any
import zlib

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes, and nothing that is not an array.

    Attributes:
        step: int32 scalar, steps already taken.
        params: float32 parameters, as the optimizers see them.
        opt_state: the optimizers' state.
        ema_params: running average of the parameters that are evaluated and exported.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    ema_params: Any


def stable_hash(name: str) -> int:
    """Returns a 32-bit hash of `name` that is the same in every process and on every run."""
    return zlib.crc32(name.encode("utf-8"))


def step_key(seed: int | jax.Array, step: int | jax.Array, stream: str) -> jax.Array:
    """Returns the random key of one named stream at one step.

    Nothing is carried from step to step: the same seed, step and name give the same key on any
    restart and any mesh.

    Args:
        seed: of the run, or a typed key.
        step: counted from 0.
        stream: name of the use, such as "noise"; two uses in one step need two names.
    """
    is_key = isinstance(seed, jax.Array) and jnp.issubdtype(seed.dtype, jax.dtypes.prng_key)
    root = seed if is_key else jax.random.key(seed)
    return jax.random.fold_in(jax.random.fold_in(root, step), stable_hash(stream))


def update_ema(ema_params: Any, params: Any, *, decay: float) -> Any:
    """Returns decay * ema_params + (1 - decay) * params, leaf by leaf, in the average's dtype."""
    return jax.tree.map(
        lambda average, new: average + (1.0 - decay) * (new.astype(average.dtype) - average),
        ema_params,
        params,
    )


def select_finite(is_finite: jax.Array, new: Any, old: Any) -> Any:
    """Returns `new` where the step was finite, else `old`, leaf by leaf.

    Give it params, opt_state and ema_params, not the step counter: a skipped step still counts, so
    that the next one hears the next batch.
    """
    return jax.tree.map(lambda after, before: jnp.where(is_finite, after, before), new, old)
