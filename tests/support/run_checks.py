# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What has to hold for runs of every stage."""

from collections.abc import Mapping
import pathlib
import shutil
from typing import Any, NamedTuple

import jax
import ml_collections

from f3tok_jax.devices import compilation
from f3tok_jax.devices import sharding
from f3tok_jax.runs import lineage
from f3tok_jax.runs import saved_states
from f3tok_jax.stages import registry
from f3tok_jax.training import programs
from f3tok_jax.training import session
from f3tok_jax.training import statistics


def train(config: ml_collections.ConfigDict, workdir: str, devices=None) -> int:
    """Runs the stage that the config names to its end; returns the exit code."""
    return session.run(config, workdir, stage=registry.of(config.stage), devices=devices)


def measured(
    config: ml_collections.ConfigDict,
    run: lineage.Lineage | None = None,
    *,
    num_devices: int = 1,
    heard: statistics.Heard = statistics.Heard(),
) -> Mapping[str, Any]:
    """What the stage of a config measures before its first step, on so many devices."""
    mesh = programs.make_mesh(config, jax.devices()[:num_devices])
    with sharding.use(mesh):
        stage = registry.of(config.stage).make(config, run)
        return programs.CompiledStage(stage, config, mesh).measure(heard)


class FirstStep(NamedTuple):
    """The state before it, what it reads, its batch, and the state and the metrics after it."""

    before: Any
    frozen: Any
    batch: Mapping[str, Any]
    after: Any
    metrics: Mapping[str, Any]


def first_step(config: ml_collections.ConfigDict) -> FirstStep:
    """The first step of a run, compiled for one device."""
    stage = registry.of(config.stage).make(config)
    before = sharding.unbox(compilation.run_once(stage.init_state, jax.random.key(0)))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shardings = jax.tree.map(lambda _: device, sharding.unbox(stage.abstract_frozen))
    frozen = stage.load_frozen(shardings, {})
    data = stage.open_data(config.data.train, train=True, process_index=0, process_count=1)
    batch = data.local_batch(0)
    state, metrics = jax.jit(stage.train_step)(before, frozen, batch)
    return FirstStep(before, frozen, batch, jax.device_get(state), jax.device_get(metrics))


def check_that_it_resumes_bit_equal(
    run: str, config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> None:
    """Takes a finished run back to its last checkpoint but one, in a copy, and lets it end again."""
    last = config.num_steps
    shutil.copytree(run, workdir)
    shutil.rmtree(workdir / "checkpoints" / str(last))
    (workdir / "DONE").unlink()
    assert train(config, str(workdir), devices=jax.devices()[:1]) == session.EXIT_DONE
    prints = [saved_states.read_meta(str(path), last)["fingerprints"] for path in (run, workdir)]
    assert prints[0] == prints[1]
