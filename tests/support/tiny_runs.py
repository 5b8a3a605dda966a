# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Runs of every stage that sound goes through, of random weights: small, and nothing is trained."""

from collections.abc import Mapping
import functools
import pathlib
from typing import Any

import ml_collections

from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import lineage
from f3tok_jax.stages import registry
from tests.support import run_checks
from tests.support import tiny_models

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
SMALL = tiny_models.overrides(model=tiny_models.SHAPE)
_TASKS = ("caption", "language", "instrument", "event")


def write(
    config: ml_collections.ConfigDict, workdir: str, *, step: int = 3, measures: bool = False
) -> None:
    """Writes a run folder of any stage whose checkpoint has random weights.

    It has measured something if `measures`, which takes its time.
    """
    config_lib.save(config, workdir)
    stage = registry.of(config.stage).make(config)
    measure = functools.partial(run_checks.measured, config) if measures else dict
    run_folder.settle_frozen(workdir, stage.frozen_fingerprints, measure)
    lineage.Lineage(config=config).keep_places(workdir)
    tiny_models.write_checkpoint(workdir, config, stage, step=step, seed=config.seed)


def write_chain(root: pathlib.Path, *more: str, **language_model: Any) -> dict[str, str]:
    """Stage -> folder of an autoencoder, a representation run on it, and a generation run on that.

    They were trained to transcribe, and so they say. `more` are of the last one's config,
    `language_model` is for tiny_models.write_language_model.
    """
    folders = {name: str(root / name) for name in ("autoencoder", "representation", "generation")}
    tiny_models.write_run(folders["autoencoder"])
    model = tiny_models.write_language_model(root / "text", **language_model)
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
            *more,
        ],
    )
    write(generation, folders["generation"])
    return folders


def write_diffusion_transformer(chain: Mapping[str, str], workdir: str) -> str:
    """Writes a run on the autoencoder and the language model of a chain, which transcribes; returns
    where it lies."""
    model = lineage.Lineage.read(chain["representation"]).named["language_model"]
    config = config_lib.read(
        f"{CONFIGS}/diffusion_transformer.py:tiny",
        [
            *SMALL,
            f"--config.autoencoder.workdir={chain['autoencoder']}",
            f"--config.language_model.folder={model}",
            "--config.sampling.num_steps=2",
            "--config.text.max_tokens=24",
            *(f"--config.text.tasks.{name}=0.0" for name in _TASKS),
        ],
    )
    write(config, workdir)
    return workdir


def read_whole(folder: str, **options) -> lineage.Lineage:
    """A run that is on all it was trained on, its language model too."""
    run = lineage.Lineage.read(folder, **options)
    run.check(language_model=True)
    return run
