# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Arms of an experiment: ways to train the representation stage, each a change of its config."""

from collections.abc import Sequence
import dataclasses
import re
import shlex

import ml_collections

from data_pipelines import command
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import results as results_lib


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to train: its name, and what it changes of the config, as "key=value"."""

    name: str
    changes: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Its name as a part of a path."""
        return re.sub(r"[^a-z0-9]+", "_", self.name.lower()).strip("_")

    def arguments(self, seed: int) -> list[str]:
        """What f3tok_jax.train is given beside the recipe."""
        return [f"--config.{change}" for change in (*self.changes, f"seed={seed}")]


FULL = Arm("full")
LOSSES = (
    FULL,
    # Nothing to warm up with: the language model's loss counts from the first step.
    Arm("without RQ-MTP", ("rq.weight=0.0", "optimizer.encoder.modules.projector.start=0.0")),
    Arm("without language model", ("supervision.weight=0.0",)),
)


def _target(name: str, target: str, normalization: str) -> Arm:
    """What RQ-MTP's labels are made of; it alone teaches, so that nothing else decides."""
    of = (f"rq.target={target}", f"rq.normalization={normalization}")
    return Arm(name, ("supervision.weight=0.0", *of))


TARGETS = (
    _target("whitened", "latents", "whiten"),
    _target("leading", "latents", "leading"),
    _target("standardised", "latents", "standardize"),
    _target("log_mel_standardised", "log_mel", "standardize"),
    _target("log_mel_whitened", "log_mel", "whiten"),
    _target("log_mel_leading", "log_mel", "leading"),
)
SETS = {"losses": LOSSES, "targets": TARGETS}


def named(names: Sequence[str]) -> tuple[Arm, ...]:
    """The arms of names of arms and of SETS; raises ValueError for others."""
    known = {arm.name: (arm,) for arms in SETS.values() for arm in arms} | SETS
    for name in names:
        if name not in known:
            raise ValueError(f"--arms must be of {', '.join(known)}, got {name!r}")
    return tuple(arm for name in names for arm in known[name])


def parse(text: str) -> Arm:
    """Reads "NAME: KEY=VALUE KEY=VALUE"; raises ValueError for anything else."""
    name, colon, changes = text.partition(":")
    arm = Arm(name.strip(), tuple(map(command.path, shlex.split(changes))))
    if not colon or not arm.folder or not all("=" in change for change in arm.changes):
        raise ValueError(f"--arm must be NAME: KEY=VALUE [KEY=VALUE], got {text!r}")
    if arm.name in results_lib.TITLES:
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
