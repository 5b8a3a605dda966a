# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a comparison trains: its arms, and the chain of stages of each with a seed."""

from collections.abc import Mapping, Sequence
import dataclasses
import os
import pathlib

import ml_collections

from data_pipelines.reading import mixture
from f3tok_jax.runs import config as config_lib
from f3tok_jax.sweeping import plan as plan_lib
from f3tok_jax.sweeping import space
from f3tok_jax.sweeping import sweep_file

STAGES = ("autoencoder", "representation", "generation", "diffusion_transformer")
FROZEN = ("semantic_encoder", "semantic_bottleneck")  # below autoencoders that hear through them
ALIKE = ("num_steps", "data.", "loop.")  # what no arm may have otherwise


@dataclasses.dataclass(frozen=True)
class Rival(space.Arm):
    """An arm whose autoencoder has a recipe of its own, file and preset."""

    recipe: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared.

    Attributes:
        config: of the comparison.
        arms: of the autoencoder, those of the sweep first, then the rivals.
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

    @property
    def scored(self) -> str:
        """The set whose sound is scored."""
        return self.config.evaluation.heldout or self.config.data.heldout

    def place(self, *parts: str) -> str:
        """Below the work folder."""
        return os.path.join(self.workdir, *parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chain:
    """The runs of one arm and seed, by stage, those first that others build on, and where the latents of
    its autoencoder are. Frozen runs are those of all chains of a seed."""

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
    arms = _arms(config, folder)
    for name in config.only:
        if name not in arms:
            raise ValueError(
                f"config.only must name arms of {config.arms} or config.rivals, {', '.join(arms)}, got "
                f"{name!r}"
            )
    for key, value in (
        ("data.train", config.data.train),
        ("data.heldout", config.data.heldout),
        ("language_model.folder", config.language_model.folder),
    ):
        if not value:
            raise ValueError(f"config.{key} must name a folder, got '': give --config.{key}")
    chosen = [arm for name, arm in arms.items() if not config.only or name in config.only]
    return Comparison(config=config, arms=chosen, folder=folder, workdir=workdir)


def _arms(config: ml_collections.ConfigDict, folder: pathlib.Path) -> dict[str, space.Arm]:
    """Name -> arm, of the sweep and of config.rivals."""
    arms = {arm.name: arm for arm in sweep_file.read(str(folder / config.arms)).arms}
    for name, section in config.rivals.items():
        if name in arms:
            raise ValueError(
                f"config.rivals must have other names than the arms of {config.arms}, got {name!r}"
            )
        arms[name] = Rival(name, tuple(section.changes), str(folder / section.recipe))
    for arm in arms.values():
        for change in arm.changes:
            key = change.partition("=")[0]
            if key == "seed" or key.startswith(ALIKE):
                raise ValueError(
                    f"arms must have the same data, steps and seeds, got {change} in {arm.name!r}"
                )
            if (stage := key.partition(".")[0]) in FROZEN:
                raise ValueError(
                    f"arms must hear through the same frozen models, got {change} in {arm.name!r}: give "
                    f"config.{stage} of the comparison"
                )
    return arms


def chain(of: Comparison, autoencoder: plan_lib.Run, frozen: Mapping[str, plan_lib.Run]) -> Chain:
    """The chain of an autoencoder.

    Args:
        of: the comparison.
        autoencoder: of one arm and seed.
        frozen: stage -> run of it that the comparison trains, on which the autoencoder is trained.

    Raises:
        ValueError: if a config cannot be, or a folder holds another run.
    """
    runs = {**frozen, "autoencoder": autoencoder}
    latents = of.place("latents", autoencoder.name)
    sets = [
        "data.latents=True",
        f"data.train={mixed(of.config.data.train, latents)}",
        f"data.heldout={heldout(latents)}",
    ]
    models = [
        f"autoencoder.workdir={autoencoder.workdir}",
        f"language_model.folder={of.config.language_model.folder}",
    ]
    below = {
        "representation": models,
        "generation": [
            f"representation.workdir={of.place('representation', autoencoder.name)}",
        ],
        "diffusion_transformer": models,
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
