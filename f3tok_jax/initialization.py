# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Where a fresh run's weights come from: random draws, or another run of the same stage."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import ml_collections

from f3tok_jax import checkpoint
from f3tok_jax import pretrained
from f3tok_jax import run_folder
from f3tok_jax import train_state


def check(
    section: ml_collections.ConfigDict,
    stage_name: str,
    fingerprints: Mapping[str, str],
    *,
    say: Callable[[str], None] = print,
) -> None:
    """Compares the run that config.init_from names with the one that begins; nothing is loaded.

    Args:
        section: config.init_from.
        stage_name: config.stage.
        fingerprints: of the frozen models of the run that begins.
        say: where it is said that another frozen model will be there than before.

    Raises:
        ValueError: where the folder is no run of this stage, or its latents are of another
            autoencoder: weights mean nothing to other latents.
    """
    pretrained.read_config(section.workdir, stage_name)
    before = run_folder.frozen_fingerprints(section.workdir)
    for name in sorted(before.keys() & fingerprints.keys()):
        if before[name] == fingerprints[name]:
            continue
        differing = (
            f"{section.workdir} was trained with the {name} of fingerprint {before[name]}, "
            f"got {fingerprints[name]}"
        )
        if name == "autoencoder":
            raise ValueError(f"config.init_from.workdir must be of the same latents: {differing}")
        say(f"note: {differing}")


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
    params, averages = dict(state.params), dict(state.ema_params)
    step = section.step or None
    for field, tree in (("ema_params", averages), ("params", params)):
        there = checkpoint.saved_names(section.workdir, field, step)
        wanted = [name for name in tree if name in there]
        if field == "params":  # the rest came with the averages
            wanted = [name for name in wanted if name not in averages]
        if not wanted:
            continue
        like = {name: jax.tree.map(_abstract, tree[name]) for name in wanted}
        found, step = checkpoint.restore_params(
            section.workdir, like, field=field, step=step, say=say
        )
        tree |= found
        if field == "ema_params":
            # Copies: a step takes over the memory of both.
            params |= jax.tree.map(jnp.copy, found)
        say(f"{', '.join(wanted)} from step {step} of {section.workdir}")
    fresh = [name for name in state.params if params[name] is state.params[name]]
    if len(fresh) == len(params):
        raise ValueError(
            f"config.init_from.workdir must name a run that trained any of {sorted(params)}, got "
            f"{section.workdir}, which did not"
        )
    unused = sorted(there - params.keys())
    if unused:
        say(f"note: {', '.join(unused)} of {section.workdir} stays there: not trained here")
    if fresh:
        say(f"{', '.join(fresh)} from scratch: {section.workdir} did not train it")
    return state.replace(params=params, ema_params=averages)


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
