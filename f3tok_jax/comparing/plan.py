# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a comparison trains: chains of stages, one for each arm and seed, all checked before the first."""

from collections.abc import Sequence
import dataclasses
import os
import pathlib

import ml_collections

from data_pipelines.reading import mixture
from f3tok_jax.runs import config as config_lib
from f3tok_jax.sweeping import plan as plan_lib
from f3tok_jax.sweeping import space
from f3tok_jax.sweeping import sweep_file

STAGES = ("autoencoder", "representation", "generation")
_ALIKE = ("seed=", "num_steps=", "data.", "loop.")  # what no arm may change


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared.

    Attributes:
        config: of the comparison.
        arms: of the autoencoder.
        folder: of the recipe, which the others are named from.
        workdir: of the comparison.
    """

    config: ml_collections.ConfigDict
    arms: Sequence[space.Arm]
    folder: pathlib.Path
    workdir: str

    def recipe(self, stage: str) -> str:
        return str(self.folder / self.config[stage].recipe)

    def changes(self, stage: str) -> list[str]:
        """Of the recipe of a stage, for all arms."""
        return [f"--config.{change}" for change in self.config[stage].changes]

    def place(self, *parts: str) -> str:
        """Below the work folder."""
        return os.path.join(self.workdir, *parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chain:
    """The runs of one arm and seed, by stage, and where the latents of its autoencoder are."""

    runs: dict[str, plan_lib.Run]
    latents: str

    @property
    def arm(self) -> space.Arm:
        return self.runs["autoencoder"].arm

    @property
    def name(self) -> str:
        return self.runs["autoencoder"].name


def read(recipe: str, overrides: Sequence[str], workdir: str) -> Comparison:
    """The comparison of a recipe.

    Raises:
        ValueError: for keys, arms or sets that cannot be.
    """
    config, folder = (
        config_lib.read(recipe, overrides),
        pathlib.Path(recipe.partition(":")[0]).parent,
    )
    if "://" in workdir:
        raise ValueError(
            f"--workdir must be a local folder, got {workdir}: results are written there"
        )
    sweep = sweep_file.read(str(folder / config.arms))
    arms = {arm.name: arm for arm in sweep.arms}
    for name in config.only:
        if name not in arms:
            raise ValueError(
                f"config.only must name arms of {config.arms}, {', '.join(arms)}, got {name!r}"
            )
    for key, value in (
        ("data.train", config.data.train),
        ("data.heldout", config.data.heldout),
        ("language_model.folder", config.language_model.folder),
    ):
        if not value:
            raise ValueError(f"config.{key} must name a folder, got '': give --config.{key}")
    for arm in arms.values():
        unlike = [change for change in arm.changes if change.startswith(_ALIKE)]
        if unlike:
            raise ValueError(
                f"arms must have the same data, steps and seeds, got {unlike[0]} in {arm.name!r}"
            )
    chosen = [arm for name, arm in arms.items() if not config.only or name in config.only]
    return Comparison(config=config, arms=chosen, folder=folder, workdir=workdir)


def chains(of: Comparison) -> list[Chain]:
    """A chain for each seed and arm: all arms with the first seed come first.

    Raises:
        ValueError: if a config cannot be, arms are alike, or a folder holds another run.
    """
    data = of.config.data
    options = dict(arms=of.arms, seeds=of.config.seeds, workdir=of.place("autoencoder"))
    own = [f"--config.data.train={data.train}", f"--config.data.heldout={data.heldout}"]
    runs = plan_lib.runs(of.recipe("autoencoder"), [*of.changes("autoencoder"), *own], **options)
    order = {seed: index for index, seed in enumerate(of.config.seeds)}
    return [_chain(of, run) for run in sorted(runs, key=lambda run: order[run.seed])]


def _chain(of: Comparison, autoencoder: plan_lib.Run) -> Chain:
    runs, latents = {"autoencoder": autoencoder}, of.place("latents", autoencoder.name)
    sets = [
        "data.latents=True",
        f"data.train={mixed(of.config.data.train, latents)}",
        f"data.heldout={heldout(latents)}",
    ]
    below = {
        "representation": [
            f"autoencoder.workdir={autoencoder.workdir}",
            f"language_model.folder={of.config.language_model.folder}",
        ],
        "generation": [
            f"representation.workdir={of.place('representation', autoencoder.name)}",
        ],
    }
    for stage, named in below.items():
        given = [f"--config.{change}" for change in (*sets, *named)]
        (runs[stage],) = plan_lib.runs(
            of.recipe(stage),
            [*of.changes(stage), *given],
            arms=[space.Arm(autoencoder.arm.name)],
            seeds=[autoencoder.seed],
            workdir=of.place(stage),
        )
    return Chain(runs=runs, latents=latents)


def heldout(latents: str) -> str:
    """Where the latents of what is held out lie."""
    return os.path.join(latents, "heldout")


def mixed(train: str, latents: str) -> str:
    """The mixture of the latents of a mixture's sets."""
    sets = latent_sets(train, latents)
    if len(sets) == 1:
        return sets[0][1]
    return ",".join(f"{place}={weight:g}" for _, place, weight in sets)


def latent_sets(train: str, latents: str) -> list[tuple[str, str, float]]:
    """Of each set of a mixture: its folder, where in `latents` its latents lie, its weight."""
    return [
        (name, os.path.join(latents, str(number)), weight)
        for number, (name, weight) in enumerate(mixture.parse(train))
    ]
