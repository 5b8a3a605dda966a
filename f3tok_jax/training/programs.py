# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A stage as compiled programs on a mesh, and where its state lives."""

from collections.abc import Mapping
from typing import Any

import jax

from f3tok_jax.devices import once
from f3tok_jax.devices import sharding
from f3tok_jax.training import stage as stage_lib

_NUM_SAMPLES = 4  # sounds made at a time


class CompiledStage:
    """The programs of one stage on one mesh; use it inside sharding.use(mesh).

    Attributes:
        abstract_state: shapes, dtypes and shardings of the state.
        frozen: the stage's frozen arrays, on the devices.
        train_step: (state, frozen, batch) -> (state, metrics), `state` donated.
        eval_step: (state, frozen, batch) -> metrics.
        sample: (state, frozen, batch) -> a few waveforms by name, and "mask".
    """

    def __init__(
        self,
        stage: stage_lib.Stage,
        *,
        mesh: jax.sharding.Mesh,
        seed: int,
        min_shard_size: int,
        options: Mapping[str, str] | None = None,
        measured: Mapping[str, Any] | None = None,
    ):
        """Lays out the state; compiles nothing.

        Args:
            stage: to compile.
            mesh: of the program.
            seed: of the fresh state.
            min_shard_size: elements; smaller leaves are replicated.
            options: of XLA, for the programs of the mesh.
            measured: for stage.load_frozen.
        """
        self._stage, self._options = stage, dict(options or {})
        # Boxes tell where the arrays live; the state itself has none.
        boxed = jax.eval_shape(stage.init_state, jax.random.key(seed))
        self._make_state = lambda: sharding.unbox(stage.init_state(jax.random.key(seed)))
        self._shardings = sharding.state_shardings(boxed, mesh, min_shard_size)
        self.abstract_state = sharding.abstract(sharding.unbox(boxed), self._shardings)
        frozen_shardings = sharding.state_shardings(stage.abstract_frozen, mesh, min_shard_size)
        self.frozen = stage.load_frozen(frozen_shardings, measured or {})
        replicated = sharding.replicated(mesh)
        inputs = (self._shardings, frozen_shardings, sharding.batch_sharding(mesh))
        step_outputs = (self._shardings, replicated)
        self._programs = {
            "train_step": jax.jit(
                stage.train_step, in_shardings=inputs, out_shardings=step_outputs, donate_argnums=0
            ),
            "eval_step": jax.jit(stage.eval_step, in_shardings=inputs, out_shardings=replicated),
            "sample": jax.jit(self._sample, in_shardings=inputs, out_shardings=replicated),
        }
        self.train_step: Any = None
        self.eval_step: Any = None
        self.sample: Any = None

    @property
    def num_parameters(self) -> int:
        """Parameters of all players, averages not counted."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.abstract_state.params))

    def init_state(self) -> Any:
        """Returns a fresh state, made where it will live."""
        return once.run_once(self._make_state, out_shardings=self._shardings)

    def compile(self, name: str) -> None:
        """Compiles the program `name` and sets the attribute, unless that was done before."""
        if getattr(self, name) is None:
            batch = dict(self._stage.batch_spec)
            lowered = self._programs[name].lower(self.abstract_state, self.frozen, batch)
            setattr(self, name, lowered.compile(compiler_options=self._options or None))

    def _sample(self, state: Any, frozen: Any, batch: stage_lib.Batch) -> dict[str, jax.Array]:
        sounds = {**self._stage.sample(state, frozen, batch), "mask": batch["mask"]}
        return jax.tree.map(lambda sound: sound[:_NUM_SAMPLES], sounds)
