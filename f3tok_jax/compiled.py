# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A stage as compiled programs on a mesh, and where its state lives."""

from typing import Any

import jax

from f3tok_jax import sharding
from f3tok_jax import stage as stage_lib

_NUM_SAMPLES = 4  # sounds made at a time


class CompiledStage:
    """The programs of one stage on one mesh; use it inside sharding.use(mesh).

    Attributes:
        abstract_state: shapes, dtypes and shardings of the state.
        frozen: the stage's frozen arrays, on the devices.
        train_step: (state, frozen, batch) -> (state, metrics), `state` donated. Set by `compile`.
        eval_step: (state, frozen, batch) -> metrics, compiled at its first use.
        sample: (state, frozen, batch) -> a few waveforms by name, and "mask"; at its first use.
    """

    def __init__(
        self, stage: stage_lib.Stage, *, mesh: jax.sharding.Mesh, seed: int, min_shard_size: int
    ):
        """Lays out the state; compiles nothing.

        Args:
            stage: to compile.
            mesh: of the program.
            seed: of the fresh state.
            min_shard_size: elements; smaller leaves are replicated.
        """
        self._stage = stage
        self._make_state = lambda: stage.init_state(jax.random.key(seed))
        shapes = jax.eval_shape(self._make_state)
        self._shardings = sharding.state_shardings(shapes, mesh, min_shard_size)
        self.abstract_state = sharding.abstract(shapes, self._shardings)
        frozen_shardings = sharding.state_shardings(stage.frozen, mesh, min_shard_size)
        self.frozen = jax.device_put(stage.frozen, frozen_shardings)
        self._inputs = (self._shardings, frozen_shardings, sharding.batch_sharding(mesh))
        self._replicated = sharding.replicated(mesh)
        self.train_step: Any = None
        self.eval_step = jax.jit(
            stage.eval_step, in_shardings=self._inputs, out_shardings=self._replicated
        )
        self.sample = jax.jit(
            self._sample, in_shardings=self._inputs, out_shardings=self._replicated
        )

    @property
    def num_parameters(self) -> int:
        """Parameters of all players, averages not counted."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.abstract_state.params))

    def init_state(self) -> Any:
        """Returns a fresh state, made where it will live."""
        return jax.jit(self._make_state, out_shardings=self._shardings)()

    def compile(self) -> None:
        """Compiles the train step now."""
        step = jax.jit(
            self._stage.train_step,
            in_shardings=self._inputs,
            donate_argnums=0,
            out_shardings=(self._shardings, self._replicated),
        )
        batch = dict(self._stage.batch_spec)
        self.train_step = step.lower(self.abstract_state, self._stage.frozen, batch).compile()

    def _sample(self, state: Any, frozen: Any, batch: stage_lib.Batch) -> dict[str, jax.Array]:
        sounds = {**self._stage.sample(state, frozen, batch), "mask": batch["mask"]}
        return jax.tree.map(lambda sound: sound[:_NUM_SAMPLES], sounds)
