# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a finished run is of: its config, step, fingerprint, sound and parents."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import importlib
from typing import Any
from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_collections
from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import fingerprint
from f3tok_jax.runs import folder as run_folder

ENCODER = "encoder"  # the representation stage's only player: its encoder, heads and projector


@dataclasses.dataclass(frozen=True)
class Sound:
    """What latents are of: Hz, samples, channels."""

    sample_rate: int
    samples_per_latent: int
    latent_dim: int


def read_config(workdir: str, stage: str) -> ml_collections.ConfigDict:
    """The config of a run.

    Raises:
        ValueError: where the folder is not a run of that stage, or one of a version whose models
            have other fields than this one's.
    """
    config = config_lib.load(workdir)
    if config.stage != stage:
        raise ValueError(
            f"{workdir} must be a run of the {stage} stage, got stage {config.stage!r}"
        )
    wanted = set(importlib.import_module(f"configs.{stage}").get_config().model)
    found = set(config.model)
    if wanted != found:
        differing = [f"without model.{name}" for name in sorted(wanted - found)]
        differing += [f"with model.{name}" for name in sorted(found - wanted)]
        raise ValueError(
            f"{workdir} must be a run of this version of f3tok_jax, got a config.json "
            f"{', '.join(differing)}; train it again, or use the version that its "
            "logs/environment.json names"
        )
    return config


def autoencoder_fingerprint(workdir: str, step: int = 0) -> tuple[int, str]:
    """The step of a run's autoencoder and its fingerprint, from what was kept when it was saved.

    Equal to `fingerprint.autoencoder_fingerprint` of the restored parameters; restoring compares
    them with the same record.

    Args:
        workdir: run folder of the autoencoder stage.
        step: of the checkpoint; 0 for the newest.

    Raises:
        ValueError: where the folder is not such a run or holds no checkpoint.
    """
    read_config(workdir, "autoencoder")
    return _averages_fingerprint(workdir, step, "generator", ("",))


def modules_fingerprint(workdir: str, names: Sequence[str], step: int = 0) -> tuple[int, str]:
    """The step of a representation run's modules and their fingerprint; see the autoencoder's."""
    return _averages_fingerprint(workdir, step, ENCODER, [f"{name}/" for name in names])


def _averages_fingerprint(
    workdir: str, step: int, player: str, parts: Sequence[str]
) -> tuple[int, str]:
    step = step or checkpoint.latest_step(workdir)
    if step is None:
        raise ValueError(f"{workdir} must hold a checkpoint, got none; train it first")
    prefix = f"ema_params/{player}/"
    prints = checkpoint.read_meta(workdir, step)["fingerprints"]
    own = {
        f"params/{name.removeprefix(prefix)}": value
        for name, value in prints.items()
        if name.startswith(tuple(prefix + part for part in parts))
    }
    return step, fingerprint.digest_of(own)


def sound_spec(config: ml_collections.ConfigDict, sound: Sound) -> dict[str, jax.ShapeDtypeStruct]:
    """What a batch must have of sound: latents, or waveforms, and their mask.

    Args:
        config: of a stage that hears latents.
        sound: of them.
    """
    rows, frames = config.data.batch_size, config.data.crop_frames
    if config.data.latents:
        shape = (rows, frames)
        heard = {"latents": jax.ShapeDtypeStruct((*shape, sound.latent_dim), jnp.float32)}
    else:
        shape = (rows, frames * sound.samples_per_latent)
        heard = {"waveform": jax.ShapeDtypeStruct(shape, jnp.float32)}
    return heard | {"mask": jax.ShapeDtypeStruct(shape, jnp.bool_)}


def check_fingerprints(workdir: str, found: Mapping[str, str]) -> None:
    """Refuses models that are not those that a run was trained on.

    Args:
        workdir: run folder of a stage that reads frozen models.
        found: name of a model -> fingerprint of the weights that are there now.
    """
    wanted = run_folder.frozen_fingerprints(workdir)
    for name, digest in found.items():
        if digest != wanted.get(name):
            raise ValueError(
                f"{workdir} was trained on {name.replace('_', ' ')} {wanted.get(name)}, got "
                f"{digest}: give that run its old weights back"
            )
