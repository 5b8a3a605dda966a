# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Runs of every stage that sound goes through, of random weights: small, and nothing is trained."""

import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from f3tok_jax.devices import sharding
from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import folder as run_folder
from f3tok_jax.stages import registry
from tests.support import tiny_models

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
TRANSFORMER = dict(num_layers=1, width=16, hidden_width=16, num_heads=2, num_kv_heads=1, head_dim=8)
SMALL = [f"--config.model.{name}={value}" for name, value in TRANSFORMER.items()]
_TASKS = ("caption", "language", "instrument", "event")


def write(config: ml_collections.ConfigDict, workdir: str, *, step: int = 3) -> None:
    """Writes a run folder of any stage whose checkpoint has random weights."""
    config_lib.save(config, workdir)
    stage = registry.of(config.stage).make(config)
    run_folder.settle_frozen(workdir, stage.frozen_fingerprints, dict)
    rng = np.random.default_rng(config.seed)
    state = jax.tree.map(
        lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape), leaf.dtype),
        sharding.unbox(jax.eval_shape(stage.init_state, jax.random.key(0))),
    )
    writer = checkpoint.Checkpointer(
        workdir, config_json=config_lib.to_json(config), data_fingerprint=""
    )
    writer.save(step, state)
    writer.close()


def write_chain(root: pathlib.Path) -> dict[str, str]:
    """Stage -> folder of an autoencoder, a representation run on it, and a generation run on that.

    They were trained to transcribe, and so they say.
    """
    folders = {name: str(root / name) for name in ("autoencoder", "representation", "generation")}
    tiny_models.write_run(folders["autoencoder"])
    model = tiny_models.write_language_model(root / "text")
    representation = config_lib.read(
        f"{CONFIGS}/representation.py:tiny",
        [
            *SMALL,
            f"--config.autoencoder.workdir={folders['autoencoder']}",
            f"--config.language_model.folder={model}",
            "--config.supervision.max_tokens=32",
        ],
    )
    write(representation, folders["representation"])
    generation = config_lib.read(
        f"{CONFIGS}/generation.py:tiny",
        [
            *SMALL,
            f"--config.representation.workdir={folders['representation']}",
            "--config.sampling.num_steps=2",
            "--config.text.max_tokens=24",
            "--config.text.tasks.transcription=1.0",
            *(f"--config.text.tasks.{name}=0.0" for name in _TASKS),
        ],
    )
    write(generation, folders["generation"])
    return folders
