# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Which arms of the representation stage are compared: those of sweeps, and others of one's own."""

from collections.abc import Sequence
import shlex

import ml_collections

from data_pipelines import command
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import probe_results
from f3tok_jax.sweeping import space
from f3tok_jax.sweeping import sweep_file

_SETS = ("losses", "targets")  # shipped sweeps whose arms can be named one by one


def named(names: Sequence[str]) -> tuple[space.Arm, ...]:
    """The arms of names of arms, of shipped sweeps, and of sweeps' files.

    Raises:
        ValueError: for other names.
    """
    files = sweep_file.shipped()
    known = {name: sweep_file.read(files[name]).arms for name in _SETS}
    known = {arm.name: (arm,) for arms in known.values() for arm in arms} | known
    for name in names:
        if name.partition(":")[0].endswith(".py"):
            known[name] = sweep_file.read(name).arms
        elif name not in known:
            raise ValueError(
                f"--arms must be of {', '.join(known)}, or the file of a sweep, got {name!r}"
            )
    return tuple(arm for name in names for arm in known[name])


def parse(text: str) -> space.Arm:
    """Reads "NAME: KEY=VALUE KEY=VALUE"; raises ValueError for anything else."""
    name, colon, changes = text.partition(":")
    arm = space.Arm(name.strip(), tuple(map(command.path, shlex.split(changes))))
    if not colon or not arm.folder or not all("=" in change for change in arm.changes):
        raise ValueError(f"--arm must be NAME: KEY=VALUE [KEY=VALUE], got {text!r}")
    if arm.name in probe_results.TITLES:
        raise ValueError(
            f"--arm must have a name of its own, got that of a reference, {arm.name!r}"
        )
    for change in arm.changes:
        if change.startswith(("seed=", "autoencoder.")):
            raise ValueError(
                f"all arms must have the same seeds and autoencoder, got {change!r} in --arm "
                f"{arm.name!r}"
            )
    return arm


def read_config(recipe: str, arguments: Sequence[str]) -> ml_collections.ConfigDict:
    """The config of a recipe and "--config.key=value" arguments; ValueError for another stage's."""
    config = config_lib.read(recipe, arguments)
    if config.stage != "representation":
        raise ValueError(
            f"--config must be a recipe of the representation stage, got {recipe}, which is of the "
            f"{config.stage} stage"
        )
    return config
