# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Where a fresh run's weights come from: random draws, or another run of the same stage."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import ml_collections

from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import language_model_folder as folders
from f3tok_jax.runs import lineage
from f3tok_jax.runs import saved_states
from f3tok_jax.training import state as train_state


def source(run: lineage.Lineage, fingerprint: str = "") -> ml_collections.ConfigDict:
    """config.init_from of a run that begins, its "workdir" where the run that it names lies now.

    Args:
        run: that begins.
        fingerprint: of the weights that were chosen for it, whose step is then "step": the run that
            has them may have a newer one by now. "" where none were yet.

    Raises:
        ValueError: where there is none, naming every place that was tried.
    """
    section = ml_collections.ConfigDict(run.config.init_from)

    def read(place: str) -> tuple[str, int]:
        config_lib.load(place)
        if not fingerprint:
            return place, section.step
        return place, lineage.Lineage.read(place).bound(fingerprint).step

    sought = "config.init_from.workdir must name a run"
    if fingerprint:
        sought += f" with weights {fingerprint}, which were chosen when this one began"
    section.workdir, section.step = run.places.find(section.workdir, read, sought=sought)
    return section


def check(
    section: ml_collections.ConfigDict,
    stage_name: str,
    fingerprints: Mapping[str, str],
    *,
    say: Callable[[str], None] = print,
) -> str:
    """Compares the run that config.init_from names with the one that begins; nothing is loaded.

    Args:
        section: what `source` gave.
        stage_name: config.stage.
        fingerprints: of the frozen models of the run that begins.
        say: where it is said that another frozen model will be there than before.

    Returns:
        The fingerprint of its averaged weights.

    Raises:
        ValueError: where the folder is no run of this stage, or its latents are of another
            autoencoder: weights mean nothing to other latents.
    """
    run = lineage.Lineage.read(section.workdir, section.step or None, stage=stage_name)
    before = run.trained_on
    for name in sorted(before.keys() & fingerprints.keys()):
        one, other = before[name], fingerprints[name]
        # One of an earlier version says nothing about a later one.
        is_other_kind = bool(folders.parts(one)) != bool(folders.parts(other))
        if one == other or (name == "language_model" and is_other_kind):
            continue
        differing = (
            f"{section.workdir} was trained with the {name} of fingerprint {before[name]}, "
            f"got {fingerprints[name]}"
        )
        if name == "autoencoder":
            raise ValueError(f"config.init_from.workdir must be of the same latents: {differing}")
        say(f"note: {differing}")
    return run.fingerprint


def kept_latents(
    section: ml_collections.ConfigDict, config: ml_collections.ConfigDict
) -> dict[str, str]:
    """What a run has to keep where it trains the decoder alone: whose latents its own are.

    Args:
        section: what `source` gave.
        config: of the run that begins.

    Returns:
        By name, for frozen.json: the fingerprint that these latents carry, and that of the encoder.

    Raises:
        ValueError: where the two would make other latents of a sound.
    """
    if "train_only" not in config or not config.train_only:
        return {}
    run = lineage.Lineage.read(section.workdir, section.step or None, stage=config.stage)
    for name, free in (("model", {"upsampling"}), ("bottleneck", {"perturb", "gamma"})):
        here, there = config[name], run.config[name]
        if differing := [
            key for key in here if key not in free and here[key] != there.get(key, here[key])
        ]:
            key = differing[0]
            raise ValueError(
                f"config.train_only='decoder' keeps the latents of {section.workdir}: config.{name}"
                f".{key} must be {there[key]!r}, as there, got {here[key]!r}"
            )
    return {lineage.LATENTS: run.latents_fingerprint, lineage.LATENTS_OF: run.encoder_fingerprint}


def begin(
    state: train_state.TrainState,
    section: ml_collections.ConfigDict,
    *,
    say: Callable[[str], None] = print,
) -> train_state.TrainState:
    """Gives a fresh state the weights of another run; optimizers and step stay fresh.

    Averaged weights where the other run has averages, as they are what was measured. What it did
    not train stays as it was drawn: the language model's difference, after a run of the head alone.

    Args:
        state: fresh, where it will live.
        section: config.init_from: "workdir", and "step", 0 for the newest whole one.
        say: where it is said what came from where.

    Raises:
        ValueError: where there is no such step, or its arrays are of other shapes.
        checkpoint.CheckpointError: where no step asked for is whole.
    """
    step = section.step or None
    prints = saved_states.read_meta(section.workdir, step)["fingerprints"]
    there = {path.split("/")[1] for path in prints if path.startswith("params/")}
    averaged = [name for name in state.ema_params if name in there]
    plain = [name for name in state.params if name in there and name not in averaged]
    taken = {}
    for field, names in (("ema_params", averaged), ("params", plain)):
        if names:
            like = {name: state.params[name] for name in names}
            found, step = saved_states.restore_params(
                section.workdir, like, field=field, step=step, say=say
            )
            taken |= found
            say(f"{', '.join(names)} from step {step} of {section.workdir}")
    if not taken:
        raise ValueError(
            f"config.init_from.workdir must name a run that trained any of "
            f"{sorted(state.params)}, got {section.workdir}, which trained {sorted(there)}"
        )
    if unused := sorted(there - taken.keys()):
        say(f"note: {', '.join(unused)} of {section.workdir} stays there: not trained here")
    if fresh := sorted(state.params.keys() - taken.keys()):
        say(f"{', '.join(fresh)} from scratch: {section.workdir} did not train it")
    # Copies: a step takes over the memory of the weights and of their averages.
    averages = {name: jax.tree.map(jnp.copy, taken[name]) for name in averaged}
    return state.replace(
        params={**state.params, **taken}, ema_params={**state.ema_params, **averages}
    )
