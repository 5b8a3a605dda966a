# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The models of finished runs, as later stages and programs need them: averaged weights alone."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import importlib
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from f3tok_jax import autoencoder as autoencoder_lib
from f3tok_jax import bottleneck
from f3tok_jax import checkpoint
from f3tok_jax import config as config_lib
from f3tok_jax import fingerprint
from f3tok_jax import language_model_folder
from f3tok_jax import representation_encoder as encoder_lib
from f3tok_jax import run_folder
from f3tok_jax import sharding
from f3tok_jax import supervision

ENCODER = "encoder"  # the representation stage's only player: its encoder, heads and projector


@dataclasses.dataclass(frozen=True)
class Sound:
    """What latents are of: Hz, samples, channels."""

    sample_rate: int
    samples_per_latent: int
    latent_dim: int


def make_autoencoder(config: ml_collections.ConfigDict) -> autoencoder_lib.Autoencoder:
    """The autoencoder of a run's config."""
    return autoencoder_lib.Autoencoder(
        **config.model, bottleneck=bottleneck.Bottleneck(**config.bottleneck)
    )


def init_params(module: nn.Module, key: jax.Array, waveform: jax.Array) -> Any:
    """Fresh parameters of a module that takes a waveform [b, n].

    sequence-layers boxes its parameters in sharding metadata. Here shardings follow from shapes,
    and checkpoints hold plain arrays.
    """
    return nn.unbox(module.init(key, waveform)["params"])


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


def abstract_autoencoder(autoencoder: autoencoder_lib.Autoencoder) -> Any:
    """Shapes and dtypes of an autoencoder's parameters."""
    waveform = jax.ShapeDtypeStruct((1, autoencoder.samples_per_latent), jnp.float32)
    return jax.eval_shape(functools.partial(init_params, autoencoder), jax.random.key(0), waveform)


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


def restore_autoencoder(
    workdir: str,
    step: int | None = None,
    *,
    shardings: Any = None,
    say: Callable[[str], None] = print,
) -> tuple[autoencoder_lib.Autoencoder, Any, ml_collections.ConfigDict, int]:
    """The autoencoder of a run, without its optimizers.

    Args:
        workdir: run folder of the autoencoder stage.
        step: of the checkpoint; the newest whole one if None.
        shardings: a tree like the parameters; default the first local device.
        say: where messages to the user go: which steps are damaged.

    Returns:
        The module, its parameters, the run's config and the checkpoint's step.

    Raises:
        ValueError: where the folder is not such a run or holds no such checkpoint.
        checkpoint.CheckpointError: where no checkpoint asked for is whole.
    """
    config = read_config(workdir, "autoencoder")
    autoencoder = make_autoencoder(config)
    abstract = abstract_autoencoder(autoencoder)
    if shardings is not None:
        abstract = sharding.abstract(abstract, shardings)
    params, step = checkpoint.restore_params(workdir, {"generator": abstract}, step=step, say=say)
    return autoencoder, params["generator"], config, step


def make_encoder(
    config: ml_collections.ConfigDict, latent_dim: int
) -> encoder_lib.RepresentationEncoder:
    """The representation encoder of a run's config."""
    return encoder_lib.RepresentationEncoder(latent_dim=latent_dim, **config.model)


def make_projector(config: ml_collections.ConfigDict, width: int) -> supervision.Projector:
    """The projector of a run's config to a language model of `width`."""
    return supervision.Projector(
        patch=config.supervision.patch,
        width=width,
        kind=config.supervision.projector,
        compute_dtype=config.model.compute_dtype,
    )


def load_representation_encoder(
    workdir: str, step: int | None = None, *, say: Callable[[str], None] = print
) -> tuple[encoder_lib.RepresentationEncoder, Any, ml_collections.ConfigDict]:
    """The encoder of a run with its averaged weights, and the run's config; see `restore_modules`."""
    config = read_config(workdir, "representation")
    encoder = make_encoder(config, config_lib.latents_of(config)["latent_dim"])
    params, _ = restore_modules(
        workdir, {"encoder": _abstract(encoder, encoder.latent_dim)}, step, say=say
    )
    return encoder, params["encoder"], config


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


def abstract_modules(
    config: ml_collections.ConfigDict, language_model_width: int = 0
) -> dict[str, Any]:
    """Shapes and dtypes of the parameters of a run's encoder, and of its projector if it has one.

    Args:
        config: of the run.
        language_model_width: of a supervised one; 0 to read it from the language model's folder.
    """
    encoder = make_encoder(config, config_lib.latents_of(config)["latent_dim"])
    modules = {"encoder": _abstract(encoder, encoder.latent_dim)}
    if config.supervision.weight:
        section, width = config.language_model, language_model_width
        if not width:
            width = language_model_folder.read(
                section.folder, compute_dtype=section.compute_dtype, remat=section.remat
            ).width
        projector = make_projector(config, width)
        modules["projector"] = _abstract(projector, config.model.width)
    return modules


def _abstract(module: nn.Module, input_width: int) -> Any:
    inputs = jnp.zeros((1, 1, input_width))
    return sharding.unbox(jax.eval_shape(module.init, jax.random.key(0), inputs)["params"])


def restore_modules(
    workdir: str,
    abstract: Mapping[str, Any],
    step: int | None = None,
    *,
    say: Callable[[str], None] = print,
) -> tuple[dict[str, Any], int]:
    """Averaged weights of a run, of the modules that are asked for alone, and their step.

    Args:
        workdir: run folder of the representation stage.
        abstract: "encoder" and perhaps "projector" -> shapes and dtypes of their parameters.
        step: of the checkpoint; the newest whole one if None.
        say: where messages to the user go: which steps are damaged.

    Raises:
        ValueError: where the folder holds no such checkpoint.
        checkpoint.CheckpointError: where no checkpoint asked for is whole.
    """
    found, step = checkpoint.restore_params(workdir, {ENCODER: dict(abstract)}, step=step, say=say)
    return found[ENCODER], step


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
