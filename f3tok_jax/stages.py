# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""All stages by the name that a recipe gives in config.stage."""

from collections.abc import Callable, Mapping

import ml_collections

from f3tok_jax import autoencoder_stage
from f3tok_jax import generation_stage
from f3tok_jax import language_model_stage
from f3tok_jax import representation_stage
from f3tok_jax import stage

STAGES: Mapping[str, Callable[[ml_collections.ConfigDict], stage.Stage]] = {
    "autoencoder": autoencoder_stage.make_stage,
    "generation": generation_stage.make_stage,
    "language_model": language_model_stage.make_stage,
    "representation": representation_stage.make_stage,
}


def find(config: ml_collections.ConfigDict) -> Callable[[ml_collections.ConfigDict], stage.Stage]:
    """Returns config -> stage, of config.stage; raises ValueError for another name."""
    if config.stage not in STAGES:
        raise ValueError(f"config.stage must be one of {sorted(STAGES)}, got {config.stage!r}")
    return STAGES[config.stage]
