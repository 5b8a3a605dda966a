# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the values of a config must be to work together, stage by stage."""

from collections.abc import Sequence
import math

import ml_collections

from f3tok_jax.models import adaptation
from f3tok_jax.models import autoencoder
from f3tok_jax.runs import config as config_lib


def validate(config: ml_collections.ConfigDict) -> None:
    """Refuses values that cannot work together, before anything compiles.

    Batch size and mesh are checked where the mesh is known (sharding.check_batch).

    Raises:
        ValueError: one sentence with the key, its value and what to change.
    """
    source = f"configs/{config.stage}.py" + (f":{config.preset}" if config.preset else "")
    _positive(
        config,
        source,
        (
            "num_steps",
            "data.batch_size",
            "optimizer.accumulate",
            "checkpoint.every_steps",
            "checkpoint.keep_last",
            "loop.log_every",
            "loop.eval_every",
            "loop.sample_every",
            "loop.watchdog_seconds",
        ),
    )
    if config.data.batch_size % config.optimizer.accumulate:
        raise ValueError(
            f"config.data.batch_size={config.data.batch_size} ({source}) must be a multiple of "
            f"config.optimizer.accumulate={config.optimizer.accumulate}, the microbatches of a step"
        )
    if not 0.0 <= config.optimizer.ema_decay < 1.0:
        raise ValueError(
            f"config.optimizer.ema_decay must be in [0, 1), got {config.optimizer.ema_decay} "
            f"({source})"
        )
    if "crop_frames" in config.data:
        _positive(config, source, ("data.crop_frames",))
    if config.stage == "autoencoder":
        _validate_autoencoder(config, source)
    if config.stage == "representation":
        _validate_representation(config, source)
    if config.stage == "generation":
        _validate_generation(config, source)


def _positive(config: ml_collections.ConfigDict, source: str, names: Sequence[str]) -> None:
    flat = config_lib.flatten(config)
    for name in names:
        if flat[name] < 1:
            raise ValueError(f"config.{name} must be at least 1, got {flat[name]} ({source})")


def _validate_autoencoder(config: ml_collections.ConfigDict, source: str) -> None:
    model = config.model
    try:
        autoencoder.check_geometry(model)
    except ValueError as error:
        raise ValueError(f"{error} ({source})") from error
    if len(config.losses.mel_windows) != len(config.losses.mel_bands):
        raise ValueError(
            f"config.losses.mel_bands must have one number per window of "
            f"config.losses.mel_windows, "
            f"{len(config.losses.mel_windows)}, got {len(config.losses.mel_bands)} ({source})"
        )
    crop = config.data.crop_frames * model.hop_length * math.prod(time for time, _ in model.strides)
    if config.losses.adversarial_crop > crop:
        raise ValueError(
            f"config.losses.adversarial_crop={config.losses.adversarial_crop} ({source}) must be "
            f"at most the {crop} samples of an example; lower it or raise config.data.crop_frames"
        )


def _validate_representation(config: ml_collections.ConfigDict, source: str) -> None:
    rq, supervision = config.rq, config.supervision
    _positive(config, source, ("supervision.patch", "supervision.max_tokens", "packing.examples"))
    if rq.weight < 0 or supervision.weight < 0 or not rq.weight + supervision.weight > 0:
        raise ValueError(
            f"config.rq.weight={rq.weight} and config.supervision.weight={supervision.weight} "
            f"({source}) must not be negative, and one of them above 0"
        )
    if not 0.0 <= supervision.start <= 1.0:
        raise ValueError(
            f"config.supervision.start must be a share of the run in [0, 1], got "
            f"{supervision.start} ({source})"
        )
    if rq.target not in ("latents", "log_mel"):
        raise ValueError(
            f"config.rq.target must be 'latents' or 'log_mel', got {rq.target!r} ({source})"
        )
    if rq.target == "log_mel" and config.data.latents:
        raise ValueError(
            f"config.rq.target='log_mel' ({source}) needs sound, got config.data.latents=True: "
            "train on shards of sound, or on the target 'latents'"
        )
    _check_rows(config, source)
    if supervision.weight and not any(supervision.tasks.values()):
        raise ValueError(
            f"config.supervision.tasks ({source}) must give some task a weight above 0, or "
            "config.supervision.weight be 0"
        )


def _validate_generation(config: ml_collections.ConfigDict, source: str) -> None:
    _positive(config, source, ("flow.draws", "text.max_tokens", "packing.examples"))
    for name in ("flow.condition_drop", "flow.history_drop", "text.drop"):
        value = config_lib.flatten(config)[name]
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"config.{name} must be a share in [0, 1], got {value} ({source})")
    for name in ("history_noise", "encoder_noise", "stop_weight", "text_weight"):
        if config.flow[name] < 0:
            raise ValueError(
                f"config.flow.{name} must not be negative, got {config.flow[name]} ({source})"
            )
    if config.language_model.train not in adaptation.KINDS or config.language_model.rank < 1:
        raise ValueError(
            f"config.language_model.train must be one of {adaptation.KINDS} and its rank at least "
            f"1, got {config.language_model.train!r} and {config.language_model.rank} ({source})"
        )
    if not any(config.text.tasks.values()):
        raise ValueError(f"config.text.tasks ({source}) must give some task a weight above 0")
    _check_rows(config, source)


def _check_rows(config: ml_collections.ConfigDict, source: str) -> None:
    microbatch = config.data.batch_size // config.optimizer.accumulate
    if microbatch % config.packing.examples:
        raise ValueError(
            f"config.packing.examples={config.packing.examples} ({source}) must divide the "
            f"{microbatch} examples of a microbatch"
        )
