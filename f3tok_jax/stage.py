# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the training loop needs to know of a stage."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax

from f3tok_jax import train_state

# Name -> (sum, weight), float32 scalars. The ratio is formed once, on the host, after all sums.
Metrics = Mapping[str, tuple[jax.Array, jax.Array]]
Batch = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of training, as pure functions and what they expect.

    Attributes:
        batch_spec: name -> global shape and dtype of every array in a batch.
        init_state: key -> initial state; traceable.
        frozen: arrays that the step reads and nothing trains: neither differentiated, donated nor
            saved.
        train_step: (state, frozen, batch) -> (state, metrics); pure, compiled once, `state`
            donated.
        eval_step: (state, frozen, batch) -> metrics, with the averaged weights and no noise.
        sample: (state, frozen, batch) -> name -> waveforms [b, n] in [-1, 1] to listen to.
        best_metric: the metric of `eval_step` by which the best checkpoint is kept; lower is
            better.
        sample_rate: Hz, of the waveforms in batches and samples.
        seconds_per_batch: seconds of sound in a global batch.
    """

    batch_spec: Mapping[str, jax.ShapeDtypeStruct]
    init_state: Callable[[jax.Array], train_state.TrainState]
    frozen: Any
    train_step: Callable[
        [train_state.TrainState, Any, Batch], tuple[train_state.TrainState, Metrics]
    ]
    eval_step: Callable[[train_state.TrainState, Any, Batch], Metrics]
    sample: Callable[[train_state.TrainState, Any, Batch], Mapping[str, jax.Array]]
    best_metric: str
    sample_rate: int
    seconds_per_batch: float
