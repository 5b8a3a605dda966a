# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Where a fresh run's weights come from: random draws, another run of the same stage, or a folder
that one was exported to."""

from collections.abc import Callable, Collection, Mapping

import jax
import jax.numpy as jnp
import ml_collections

from f3tok_jax.runs import exported
from f3tok_jax.runs import exported_config
from f3tok_jax.runs import language_model_folder as folders
from f3tok_jax.runs import lineage
from f3tok_jax.training import state as train_state

# Of config.bottleneck what decides how a decoder is trained, and not which latents it is given.
_OF_TRAINING = {"perturb", "gamma", "kl_vae", "sigma_vae", "soft_norm"}
_OF_F3 = {"normalize", "epsilon"}  # what no other kind reads
# What earlier versions did not have is no difference, but for what they did in its place.
_BEFORE = {"level_db": 0.0, "kind": "f3"}


def source(
    run: lineage.Lineage,
    fingerprint: str = "",
    *,
    read_exported: Callable[[str], lineage.Lineage] | None = None,
) -> lineage.Lineage:
    """What config.init_from of a run that begins names, wherever that lies now.

    Args:
        run: that begins.
        fingerprint: of the weights that were chosen for it: the run that has them may have a newer
            step by now. "" where none were yet.
        read_exported: reads an exported folder; None where the stage knows none.

    Raises:
        ValueError: where there is none, naming every place that was tried, or it is of another
            stage.
    """
    section, stage_name = run.config.init_from, run.config.stage

    def read(place: str) -> lineage.Lineage:
        step = None if fingerprint else section.step or None
        if exported_config.is_folder(place):
            found = _read_exported(place, stage_name, read_exported).at(step)
        else:
            found = lineage.Lineage.read(place, step, stage=stage_name)
        return found.bound(fingerprint) if fingerprint else found

    sought = "config.init_from.workdir must name a run"
    if fingerprint:
        sought += f" with weights {fingerprint}, which were chosen when this one began"
    return run.places.find(section.workdir, read, sought=sought)


def _read_exported(
    place: str, stage_name: str, read: Callable[[str], lineage.Lineage] | None
) -> lineage.Lineage:
    if read is None:
        raise ValueError(
            f"config.init_from.workdir must name a run of the {stage_name} stage, got the exported "
            f"folder {place}: give the run that it was exported from"
        )
    return read(place)


def check(
    source: lineage.Lineage,
    config: ml_collections.ConfigDict,
    fingerprints: Mapping[str, str],
    *,
    say: Callable[[str], None] = print,
) -> str:
    """Compares the run whose weights are taken with the one that begins; nothing is loaded.

    Args:
        source: what `source` gave.
        config: of the run that begins.
        fingerprints: of the frozen models of the run that begins.
        say: where it is said that another frozen model will be there than before.

    Returns:
        The fingerprint of its averaged weights.

    Raises:
        ValueError: where its latents are of another autoencoder: weights mean nothing to other
            latents; or it is an exported folder of another geometry.
    """
    before = source.trained_on
    for name in sorted(before.keys() & fingerprints.keys()):
        one, other = before[name], fingerprints[name]
        # One of an earlier version says nothing about a later one.
        is_other_kind = bool(folders.parts(one)) != bool(folders.parts(other))
        if one == other or (name == "language_model" and is_other_kind):
            continue
        differing = (
            f"{source.workdir} was trained with the {name} of fingerprint {before[name]}, "
            f"got {fingerprints[name]}"
        )
        if name == "autoencoder":
            raise ValueError(f"config.init_from.workdir must be of the same latents: {differing}")
        say(f"note: {differing}")
    # A run's arrays tell it by their shapes alone, and what has none may be changed on purpose.
    free = {"model": {"upsampling", "compute_dtype"}, "bottleneck": _of_training(config)}
    if isinstance(source, exported.Exported) and (
        differing := _differing(config, source.config, free)
    ):
        raise ValueError(
            f"config.init_from.workdir={source.workdir} must be of the config's geometry: "
            f"{differing}"
        )
    return source.fingerprint


def kept_latents(source: lineage.Lineage, config: ml_collections.ConfigDict) -> dict[str, str]:
    """What a run has to keep where it trains the decoder alone: whose latents its own are.

    Args:
        source: what `source` gave.
        config: of the run that begins.

    Returns:
        By name, for frozen.json: the fingerprint that these latents carry, and that of the encoder.

    Raises:
        ValueError: where the two would make other latents of a sound.
    """
    if "train_only" not in config or not config.train_only:
        return {}
    free = {"model": {"upsampling"}, "bottleneck": _of_training(config)}
    if differing := _differing(config, source.config, free):
        raise ValueError(
            f"config.train_only='decoder' keeps the latents of {source.workdir}: {differing}"
        )
    return {
        lineage.LATENTS: source.latents_fingerprint,
        lineage.LATENTS_OF: source.encoder_fingerprint,
    }


def _of_training(config: ml_collections.ConfigDict) -> set[str]:
    """The keys of config.bottleneck, where there is one, that decide nothing about latents."""
    kind = config.get("bottleneck", {}).get("kind", "f3")
    return _OF_TRAINING if kind == "f3" else _OF_TRAINING | _OF_F3


def _differing(
    config: ml_collections.ConfigDict,
    there: ml_collections.ConfigDict,
    free: Mapping[str, Collection[str]],
) -> str:
    """The first value that differs, but for the `free` ones of each section; "" for none."""
    for name, others in free.items():
        for key, here in config[name].items():
            before = _BEFORE.get(key, here)
            if key not in others and here != (wanted := there[name].get(key, before)):
                return f"config.{name}.{key} must be {wanted!r}, as there, got {here!r}"
    return ""


def begin(
    state: train_state.TrainState,
    source: lineage.Lineage,
    *,
    say: Callable[[str], None] = print,
) -> train_state.TrainState:
    """Gives a fresh state the weights of another run; optimizers and step stay fresh.

    Averaged weights where the other run has averages, as they are what was measured. What it did
    not train stays as it was drawn: the language model's difference, after a run of the head alone.

    Args:
        state: fresh, where it will live.
        source: what `source` gave.
        say: where it is said what came from where.

    Raises:
        ValueError: where its arrays are of other shapes.
        checkpoint.CheckpointError: where no step asked for is whole.
    """
    weights = ("params/", "ema_params/")
    there = {path.split("/")[1] for path in source.prints if path.startswith(weights)}
    averaged = [name for name in state.ema_params if name in there]
    plain = [name for name in state.params if name in there and name not in averaged]
    taken = {}
    for field, names in (("ema_params", averaged), ("params", plain)):
        if names:
            like = {name: state.params[name] for name in names}
            found, source = source.restore(like, field=field, say=say)
            source = source.at(source.step)  # and of no other, whatever is damaged there
            taken |= found
            say(f"{', '.join(names)} from step {source.step} of {source.workdir}")
    if not taken:
        raise ValueError(
            f"config.init_from.workdir must name a run that trained any of "
            f"{sorted(state.params)}, got {source.workdir}, which trained {sorted(there)}"
        )
    if unused := sorted(there - taken.keys()):
        say(f"note: {', '.join(unused)} of {source.workdir} stays there: not trained here")
    if fresh := sorted(state.params.keys() - taken.keys()):
        say(f"{', '.join(fresh)} from scratch: {source.workdir} did not train it")
    # Copies: a step takes over the memory of the weights and of their averages.
    averages = {name: jax.tree.map(jnp.copy, taken[name]) for name in averaged}
    return state.replace(
        params={**state.params, **taken}, ema_params={**state.ema_params, **averages}
    )
