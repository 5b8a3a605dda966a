# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The autoencoders of all arms with one seed, and the frozen runs that some of them stand on."""

from collections.abc import Iterable, Mapping

import ml_collections

from f3tok_jax.comparing import plan as plan_lib
from f3tok_jax.pretrained import semantic_autoencoder
from f3tok_jax.pretrained import semantic_encoder
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import lineage
from f3tok_jax.runs import sound as run_sound
from f3tok_jax.stages import registry
from f3tok_jax.sweeping import plan as sweep_plan
from f3tok_jax.sweeping import space

_SHARED = space.Arm("shared")  # of frozen runs: all arms of a seed stand on the same
_PLACES = ("workdir", "folder")  # by which a frozen model can be given

Frozen = Mapping[str, sweep_plan.Run]  # by stage


def of_seed(of: plan_lib.Comparison, seed: int) -> list[tuple[sweep_plan.Run, Frozen]]:
    """The autoencoder of each arm, with the frozen runs that the comparison trains for it.

    Raises:
        ValueError: if a config cannot be, or a folder holds another run.
    """
    recipe, options = of.recipe("autoencoder"), dict(seeds=[seed], workdir=of.place("autoencoder"))
    own = [*of.changes("autoencoder"), *_data(of)]
    rivals = [arm for arm in of.arms if isinstance(arm, plan_lib.Rival)]
    kinds = [arm for arm in of.arms if arm not in rivals]
    found = [(run, {}) for run in sweep_plan.runs(recipe, own, arms=kinds, **options)]
    model = config_lib.read(recipe, own)
    recipes = {arm.name: _read(arm) for arm in rivals}
    frozen = _frozen(of, seed, {stage for one in recipes.values() for stage in _below(one)})
    for arm in rivals:
        below = _below(recipes[arm.name])
        given = [*_alike(of, arm, recipes[arm.name], model), *_named(of, frozen, below)]
        (run,) = sweep_plan.runs(arm.recipe, given, arms=[arm], **options)
        found.append((run, {stage: frozen[stage] for stage in below if stage in frozen}))
    return found


def _read(arm: plan_lib.Rival) -> ml_collections.ConfigDict:
    """The recipe of a rival, which must be of an autoencoder."""
    config = config_lib.read(arm.recipe)
    if config.stage != "autoencoder":
        raise ValueError(
            f"config.rivals.{arm.name}.recipe must be of the autoencoder stage, got {arm.recipe} of the "
            f"stage {config.stage!r}"
        )
    return config


def _below(config: ml_collections.ConfigDict) -> list[str]:
    """Stages of the frozen models that a config has a section of."""
    return [stage for stage in plan_lib.FROZEN if stage in config_lib.frozen_models(config)]


def _frozen(of: plan_lib.Comparison, seed: int, needed: Iterable[str]) -> Frozen:
    """Runs of those that are needed and not given."""
    found = {}
    for stage in [stage for stage in plan_lib.FROZEN if stage in needed]:
        section = of.config[stage]
        if any(section.get(place) for place in _PLACES):
            if semantic_encoder.STAGE in found:
                raise ValueError(
                    f"config.{semantic_encoder.STAGE} must name the encoder that config.{stage}.workdir="
                    f"{section.workdir!r} was trained on, got '': all arms hear through the same"
                )
            continue
        if not section.recipe:
            raise ValueError(
                f"config.{stage} must have a recipe, or name what is finished, got neither: arms hear "
                "through it; give that, or leave them out by config.only"
            )
        below = _named(of, found, _below(config_lib.read(of.recipe(stage))))
        (found[stage],) = sweep_plan.runs(
            of.recipe(stage),
            [*of.changes(stage), *_data(of), *below],
            arms=[_SHARED],
            seeds=[seed],
            workdir=of.place(stage),
        )
    return found


def _named(of: plan_lib.Comparison, frozen: Frozen, below: Iterable[str]) -> list[str]:
    """Where a config's frozen models lie, as arguments."""
    places = []
    for stage in below:
        given = {"workdir": frozen[stage].workdir} if stage in frozen else of.config[stage]
        places += [f"--config.{stage}.{key}={given[key]}" for key in _PLACES if given.get(key)]
    return places


def _data(of: plan_lib.Comparison) -> list[str]:
    return [f"--config.data.{key}={of.config.data[key]}" for key in ("train", "heldout")]


def _alike(
    of: plan_lib.Comparison,
    arm: plan_lib.Rival,
    own: ml_collections.ConfigDict,
    model: ml_collections.ConfigDict,
) -> list[str]:
    """What a rival's recipe has otherwise than the comparison's, and may not, as arguments."""
    had, wanted, changes = config_lib.flatten(own), config_lib.flatten(model), []
    for name in of.config.alike:
        if not any(key.startswith(name) for key in wanted):
            raise ValueError(
                f"config.alike must name sections or keys of {of.recipe('autoencoder')}, such as "
                f"'discriminators.', got {name!r}"
            )
    for key, value in wanted.items():
        if not key.startswith((*plan_lib.ALIKE, *of.config.alike)) or had.get(key) == value:
            continue
        if key not in had:
            raise ValueError(
                f"config.rivals.{arm.name}.recipe must have all that arms have alike, got {arm.recipe}, "
                f"which has no {key}"
            )
        changes.append(f"--config.{key}={value}")
    return changes


def check(of: plan_lib.Comparison, chain: plan_lib.Chain) -> None:
    """Refuses an autoencoder that does not go with what it hears through, or hears other examples than
    the others, before anything of all that is there.

    Raises:
        ValueError: naming the run.
    """
    frozen = {stage: run for stage, run in chain.runs.items() if stage in plan_lib.FROZEN}
    for run in (*frozen.values(), chain.runs["autoencoder"]):
        try:
            _check_frozen(run.config, frozen)
        except ValueError as error:
            raise ValueError(f"{run.name} cannot be trained: {error}") from error
    model = config_lib.read(of.recipe("autoencoder"), of.changes("autoencoder"))
    got, wanted = (
        f"{sound.sample_rate} Hz and {sound.samples_per_latent} samples to a latent"
        for sound in (lineage.Lineage(config=one).sound for one in (run.config, model))
    )
    if got != wanted:
        raise ValueError(f"arms must have the same data, {wanted}, got {got} of {run.name}")


def _check_frozen(config: ml_collections.ConfigDict, frozen: Frozen) -> None:
    """Refuses a config that does not go with its frozen models; those that are yet to be trained have
    the shapes of their recipes."""
    below = [stage for stage in _below(config) if stage in frozen]
    config = config.copy_and_resolve_references()
    with config.unlocked():
        for stage in below:
            config[stage].update(dict(workdir="", recipe=frozen[stage].config))
    planned = lineage.Lineage(config=config)
    if run_sound.is_semantic(config) and not below:
        semantic_autoencoder.check_named(planned)
    elif semantic_encoder.STAGE in _below(config) and semantic_encoder.STAGE not in below:
        semantic_encoder.check_heard(planned)
    registry.of(config.stage).make(config, planned)
