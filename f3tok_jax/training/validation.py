# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the values of a config must be to work together, in every stage."""

from collections.abc import Callable, Sequence

import ml_collections

from f3tok_jax.runs import config as config_lib
from f3tok_jax.training import stage as stage_lib


def validate(config: ml_collections.ConfigDict, definition: stage_lib.Definition) -> None:
    """Refuses values that cannot work together, before anything compiles.

    Batch size and mesh are checked where the mesh is known (programs.make_mesh).

    Args:
        config: of a run.
        definition: of its stage, which has rules of its own.

    Raises:
        ValueError: one sentence with the key, its value and what to change.
    """
    config_lib.check_goes_on(config, f"{source(config)} gives a config")
    positive(
        config,
        "num_steps",
        "data.batch_size",
        "optimizer.accumulate",
        "checkpoint.every_steps",
        "checkpoint.keep_last",
        "loop.log_every",
        "loop.eval_every",
        "loop.sample_every",
        "loop.watchdog_seconds",
    )
    batch_size, accumulate = config.data.batch_size, config.optimizer.accumulate
    if batch_size % accumulate:
        raise ValueError(
            f"config.data.batch_size={batch_size} ({source(config)}) must be a multiple of "
            f"config.optimizer.accumulate={accumulate}, the microbatches of a step"
        )
    if not 0.0 <= config.optimizer.ema_decay < 1.0:
        raise ValueError(
            f"config.optimizer.ema_decay must be in [0, 1), got {config.optimizer.ema_decay} "
            f"({source(config)})"
        )
    if "crop_frames" in config.data:
        positive(config, "data.crop_frames")
    if "max_lost" in config.data:
        shares(config, "data.max_lost")
    if "packing" in config:
        positive(config, "packing.examples")
        if batch_size // accumulate % config.packing.examples:
            raise ValueError(
                f"config.packing.examples={config.packing.examples} ({source(config)}) must divide "
                f"the {batch_size // accumulate} examples of a microbatch"
            )
    definition.validate(config)


def source(config: ml_collections.ConfigDict) -> str:
    """Where a config came from, for messages: configs/autoencoder.py:tiny."""
    # A stage's recipes are in the file of its name, but for families that have one of their own.
    name = config.get("family", config.stage)
    return f"configs/{name}.py" + (f":{config.preset}" if config.preset else "")


def positive(config: ml_collections.ConfigDict, *names: str) -> None:
    """Raises ValueError where one of the values, dotted names, is below 1."""
    _check(config, names, lambda value: value >= 1, "be at least 1")


def not_negative(config: ml_collections.ConfigDict, *names: str) -> None:
    """Raises ValueError where one of the values, dotted names, is below 0."""
    _check(config, names, lambda value: value >= 0, "not be negative")


def shares(config: ml_collections.ConfigDict, *names: str) -> None:
    """Raises ValueError where one of the values, dotted names, is not in [0, 1]."""
    _check(config, names, lambda value: 0 <= value <= 1, "be a share in [0, 1]")


def _check(
    config: ml_collections.ConfigDict,
    names: Sequence[str],
    holds: Callable[[float], bool],
    wanted: str,
) -> None:
    flat = config_lib.flatten(config)
    for name in names:
        if not holds(flat[name]):
            raise ValueError(f"config.{name} must {wanted}, got {flat[name]} ({source(config)})")
