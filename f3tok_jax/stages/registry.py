# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""All stages by the name that a recipe gives in config.stage."""

from collections.abc import Callable, Mapping

import ml_collections

from f3tok_jax.stages import autoencoder as autoencoder_stage
from f3tok_jax.stages import generation as generation_stage
from f3tok_jax.stages import language_model as language_model_stage
from f3tok_jax.stages import representation as representation_stage
from f3tok_jax.training import stage

STAGES: Mapping[str, Callable[[ml_collections.ConfigDict], stage.Stage]] = {
    "autoencoder": autoencoder_stage.make_stage,
    "generation": generation_stage.make_stage,
    "language_model": language_model_stage.make_stage,
    "representation": representation_stage.make_stage,
}


def make(config: ml_collections.ConfigDict) -> stage.Stage:
    """Returns the stage that config.stage names; raises ValueError for another name."""
    if config.stage not in STAGES:
        raise ValueError(f"config.stage must be one of {sorted(STAGES)}, got {config.stage!r}")
    return STAGES[config.stage](config)
