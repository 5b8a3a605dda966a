# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Train steps of recipes on the devices at hand, with random weights and data.

The step is the one that training compiles, for all devices that JAX finds; what a config reads from
folders is not read, so that --config.data.latents=True needs no language model.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

from data_pipelines import command
from f3tok_jax.runs import results


def add_flags(parser: command.Parser) -> None:
    """Those of this benchmark."""
    parser.add_config()
    add = parser.add_argument
    text = "more configs without changes, FILE.py:PRESET with commas between, timed in turn"
    add("--others", type=command.values(command.path), default="", help=text)
    add("--rounds", type=command.at_least(1), default=10, help="that count")


def tables(given: argparse.Namespace) -> Iterator[tuple[str, list[results.Timing]]]:
    """One: a row for each config."""
    import jax

    from f3tok_jax.benchmarking import turns
    from f3tok_jax.runs import config as config_lib

    changed = " ".join((given.config, *given.overrides))  # of --others may be the same without them
    configs = {changed: config_lib.read(given.config, given.overrides)}
    configs |= {name: config_lib.read(name, []) for name in given.others}
    made = {name: _step(config) for name, config in configs.items()}
    units = {unit for _, _, unit in made.values()}
    if len(units) > 1:
        raise ValueError(
            f"--others must be of configs that count in one unit, got {' and '.join(sorted(units))}"
        )
    rows = turns.measure(
        {name: call for name, (call, _, _) in made.items()},
        rounds=given.rounds,
        amounts={name: amount for name, (_, amount, _) in made.items()},
        unit=units.pop(),
    )
    yield f"train step on {jax.device_count()} x {jax.devices()[0].device_kind}", rows


def _step(config: Any) -> tuple[Callable[[], None], float, str]:
    """Takes one more step; what is in its batch, and of what."""
    import jax

    from f3tok_jax.devices import sharding
    from f3tok_jax.stages import registry
    from f3tok_jax.training import programs as programs_lib
    from f3tok_jax.training import validation

    definition = registry.of(config.stage)
    validation.validate(config, definition)
    mesh = programs_lib.make_mesh(config)
    stage = definition.make(config)
    with sharding.use(mesh):
        compiled = programs_lib.CompiledStage(stage, config, mesh)
        compiled.compile("train_step")
        state = compiled.init_state()
        frozen, batch = _drawn(compiled.frozen), _drawn(dict(stage.batch_spec), mesh)

    def call() -> None:
        nonlocal state
        with sharding.use(mesh):
            state, metrics = compiled.train_step(state, frozen, batch)
        jax.block_until_ready(metrics)

    return call, stage.per_batch, stage.unit


def _drawn(spec: Any, mesh: Any = None) -> Any:
    """Arrays of such shapes: small noise, all True, all 0, placed as the step takes them."""
    import jax
    import numpy as np

    from f3tok_jax.devices import sharding

    rng = np.random.default_rng(0)

    def draw(leaf):
        if np.issubdtype(leaf.dtype, np.bool_):
            return np.ones(leaf.shape, leaf.dtype)
        if np.issubdtype(leaf.dtype, np.integer):
            return np.zeros(leaf.shape, leaf.dtype)
        return (0.05 * rng.standard_normal(leaf.shape, np.float32)).astype(leaf.dtype)

    def place(leaf):
        where = leaf.sharding if mesh is None else sharding.batch_sharding(mesh)
        return jax.device_put(draw(leaf), where)

    return jax.tree.map(place, spec)
