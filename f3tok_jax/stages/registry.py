# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""All stages by the name that a recipe gives in config.stage: the only list of them."""

from collections.abc import Mapping
from typing import Any

from f3tok_jax.stages import autoencoder
from f3tok_jax.stages import diffusion_transformer
from f3tok_jax.stages import generation
from f3tok_jax.stages import language_model
from f3tok_jax.stages import representation
from f3tok_jax.stages import semantic_bottleneck
from f3tok_jax.stages import semantic_encoder
from f3tok_jax.training import stage

# In the order in which one builds on the other.
_IN_ORDER = (
    *(autoencoder.STAGE, language_model.STAGE, representation.STAGE, generation.STAGE),
    diffusion_transformer.STAGE,
    *(semantic_encoder.STAGE, semantic_bottleneck.STAGE),
)
STAGES: Mapping[str, stage.Definition] = {one.name: one for one in _IN_ORDER}

_UNKNOWN = stage.Words(title="Audio tokenizer", program="evaluate", results="results*.json")


def of(name: str) -> stage.Definition:
    """Returns the stage that config.stage names; raises ValueError for another name."""
    if name not in STAGES:
        raise ValueError(f"config.stage must be one of {sorted(STAGES)}, got {name!r}")
    return STAGES[name]


def words_of(name: Any) -> stage.Words:
    """Returns what a report says of a stage; of one that is not known, what holds for most.

    Args:
        name: config.stage of a run, read without trust; None where it has no config.
    """
    known = STAGES.get(name) if isinstance(name, str) else None
    return known.words if known else _UNKNOWN
