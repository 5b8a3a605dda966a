# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A stage as compiled programs on a mesh: what is trained, and what compile_check checks."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from f3tok_jax.devices import compilation
from f3tok_jax.devices import sharding
from f3tok_jax.training import stage as stage_lib
from f3tok_jax.training import statistics as statistics_lib
from f3tok_jax.training import validation

_NUM_SAMPLES = 4  # sounds made at a time


def make_mesh(
    config: ml_collections.ConfigDict, devices: Sequence[Any] | None = None
) -> jax.sharding.Mesh:
    """Returns the mesh of a config on `devices`, over which its batches divide.

    Args:
        config: of a run.
        devices: to train on, or to compile for; default all of them.

    Raises:
        ValueError: where the sizes of config.mesh are not those of the devices, or the rows of a
            batch, of as many examples as are packed into one, do not divide.
    """
    mesh = sharding.make_mesh(config.mesh, devices)
    sharding.check_batch(*_rows(config, mesh))
    return mesh


def check_rows(config: ml_collections.ConfigDict, sizes: Mapping[str, int]) -> None:
    """Refuses a batch that does not divide over a mesh of such sizes, by axis, as `make_mesh`."""
    sharding.check_rows(*_rows(config, sizes))


def _rows(config: ml_collections.ConfigDict, over: Any) -> tuple[int, Any, str]:
    """Rows of a batch, over what they must divide, and where their number comes from."""
    examples = config.packing.examples if "packing" in config else 1
    source = f"rows of config.data.batch_size of {validation.source(config)}"
    return config.data.batch_size // examples, over, source


class CompiledStage:
    """The programs of one stage on one mesh; use it inside sharding.use(mesh).

    Attributes:
        stage: whose programs they are.
        mesh: that they run on.
        abstract_state: shapes, dtypes and shardings of the state.
        frozen: the stage's frozen arrays: what `load_frozen` put on the devices, before that their
            shapes, dtypes and shardings.
        train_step: (state, frozen, batch) -> (state, metrics), `state` donated.
        eval_step: (state, frozen, batch) -> metrics.
        sample: (state, frozen, batch) -> a few waveforms by name, and "mask".
        statistics: what `measure` runs on the devices; see statistics.program.
    """

    def __init__(
        self, stage: stage_lib.Stage, config: ml_collections.ConfigDict, mesh: jax.sharding.Mesh
    ):
        """Lays out the state; loads and compiles nothing, so that the devices need not exist.

        Args:
            stage: to compile.
            config: it was made from; gives the seed of the fresh state, the size from which leaves
                are split, and the compiler's options for the mesh's platform.
            mesh: of the program, from `make_mesh`.
        """
        self.stage, self.mesh = stage, mesh
        self._options = compilation.parse_options(config.compiler, mesh.devices.flat[0].platform)

        # Boxes tell where the arrays live; the state itself has none.
        def make_boxed():
            return stage.init_state(jax.random.key(config.seed))

        boxed = jax.eval_shape(make_boxed)
        self._make_state = lambda: sharding.unbox(make_boxed())
        self._shardings, self._frozen_shardings = (
            sharding.state_shardings(tree, mesh, config.mesh.min_shard_size)
            for tree in (boxed, stage.abstract_frozen)
        )
        self.abstract_state = sharding.abstract(sharding.unbox(boxed), self._shardings)
        frozen = sharding.unbox(stage.abstract_frozen)
        self.frozen = sharding.abstract(frozen, self._frozen_shardings)
        replicated = sharding.replicated(mesh)
        inputs = (self._shardings, self._frozen_shardings, sharding.batch_sharding(mesh))
        step_outputs = (self._shardings, replicated)
        self._programs = {
            "train_step": jax.jit(
                self._train_step, in_shardings=inputs, out_shardings=step_outputs, donate_argnums=0
            ),
            "eval_step": jax.jit(stage.eval_step, in_shardings=inputs, out_shardings=replicated),
            "sample": jax.jit(self._sample, in_shardings=inputs, out_shardings=replicated),
        }
        if stage.statistics is not None:
            self._programs["statistics"] = statistics_lib.program(stage.statistics, mesh)
        self.train_step: Any = None
        self.eval_step: Any = None
        self.sample: Any = None
        self.statistics: Any = None

    @property
    def num_parameters(self) -> int:
        """Parameters of all players, averages not counted."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.abstract_state.params))

    def measure(self, heard: statistics_lib.Heard) -> Mapping[str, Any]:
        """What the stage takes from the data before its first step, in all processes alike."""
        wanted = self.stage.statistics
        if wanted is None:
            return {}
        # Compiled first: a sign of life is expected from the first example on.
        heard.enter("compile")
        self.compile("statistics")
        heard.enter("start")
        frozen = wanted.load({name: self._frozen_shardings[name] for name in wanted.reads})
        return statistics_lib.measure(wanted, self.statistics, frozen, self.mesh, heard)

    def load_frozen(self, measured: Mapping[str, Any]) -> None:
        """Loads the stage's frozen arrays to where they belong; `measured` is for the stage."""
        self.frozen = self.stage.load_frozen(self._frozen_shardings, measured)

    def init_state(self) -> Any:
        """Returns a fresh state, made where it will live."""
        return compilation.run_once(self._make_state, out_shardings=self._shardings)

    def compile(self, name: str) -> None:
        """Compiles the program `name` and sets the attribute, unless that was done before."""
        if getattr(self, name) is None:
            lowered = self._programs[name].lower(*self._inputs(name))
            setattr(self, name, compilation.compiled(lowered, self._options))

    def _train_step(
        self, state: Any, frozen: Any, batch: stage_lib.Batch
    ) -> tuple[Any, stage_lib.Metrics]:
        """The step of the stage, and how much of the whole batch, on all hosts, is no padding."""
        state, metrics = self.stage.train_step(state, frozen, batch)
        valid = self.stage.valid(batch)
        filled = jnp.sum(valid, dtype=jnp.float32), jnp.float32(valid.size)
        return state, {**metrics, stage_lib.FILLED: filled}

    def _inputs(self, name: str) -> tuple[Any, ...]:
        """Shapes, dtypes and shardings of what a program takes."""
        if name == "statistics":
            wanted = self.stage.statistics
            frozen = {read: self.frozen[read] for read in wanted.reads}
            return frozen, statistics_lib.batch_spec(wanted, self.mesh)
        return self.abstract_state, self.frozen, dict(self.stage.batch_spec)

    def _sample(self, state: Any, frozen: Any, batch: stage_lib.Batch) -> dict[str, jax.Array]:
        sounds = {**self.stage.sample(state, frozen, batch), "mask": batch["mask"]}
        return jax.tree.map(lambda sound: sound[:_NUM_SAMPLES], sounds)
