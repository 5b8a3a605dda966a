# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The runs of a sweep, all checked before the first starts, and the plan that its folder keeps."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import json
import os
import types
from typing import ClassVar

from etils import epath
import ml_collections

from data_pipelines.records import atomic
from data_pipelines.records import sealed
from data_pipelines.records import small_file
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import lineage
from f3tok_jax.runs import places
from f3tok_jax.runs import typed_json
from f3tok_jax.stages import registry
from f3tok_jax.sweeping import space
from f3tok_jax.training import validation

_FILE_NAME = "sweep.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One run: of which arm and seed, its folder, its arguments for train, and its config; whether
    data lies elsewhere than its folder says."""

    arm: space.Arm
    seed: int
    workdir: str
    arguments: tuple[str, ...]
    config: ml_collections.ConfigDict
    moved: bool = False

    @property
    def name(self) -> str:
        """Of its folder."""
        return name_of(self.arm, self.seed)

    @property
    def done_step(self) -> int | None:
        """The step at which it is finished; None where it is not, or has yet to be compared."""
        # What lies elsewhere is compared by training, which says itself that it is done.
        return None if self.moved else self.finished_step

    @property
    def finished_step(self) -> int | None:
        """The step at which it is finished by what its folder holds, whatever it was trained on."""
        return run_folder.done_step(self.workdir, self.config.num_steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What the folder of a sweep says of it.

    Attributes:
        recipe: file and preset.
        overrides: "--config.key=value" arguments of all runs.
        metric: by which runs are ranked.
        goal: "minimize" or "maximize".
        runs: name of each run's folder -> what it changes.
    """

    FORMAT: ClassVar[str] = "f3tok sweep plan 1"
    recipe: str
    overrides: tuple[str, ...]
    metric: str
    goal: str
    runs: Mapping[str, tuple[str, ...]]


def name_of(arm: space.Arm, seed: int) -> str:
    """The name of a run's folder."""
    return f"{arm.folder}_{seed}"


def of(sweep: space.Sweep, overrides: Sequence[str]) -> Plan:
    """What is kept of a sweep and the arguments for all its runs."""
    runs = {name_of(arm, seed): arm for arm in sweep.arms for seed in sweep.seeds}
    return Plan(
        recipe=sweep.recipe,
        overrides=(*(f"--config.{change}" for change in sweep.overrides), *overrides),
        metric=sweep.metric,
        goal=sweep.goal,
        runs={name: arm.changes for name, arm in runs.items()},
    )


def runs(
    recipe: str,
    overrides: Sequence[str],
    *,
    arms: Sequence[space.Arm],
    seeds: Sequence[int],
    workdir: str,
    moved: Mapping[str, str] = types.MappingProxyType({}),
    looks: bool = True,
    makes: bool = False,
) -> list[Run]:
    """The runs of some arms, each with each seed.

    Args:
        recipe: file and preset.
        overrides: "--config.key=value" arguments for all arms.
        arms: at least one.
        seeds: of the training.
        workdir: folder of the runs' folders, local or a bucket.
        moved: where what the config names lies now; see F3Tokenizer.from_pretrained.
        looks: at what is in the folders.
        makes: what is trained, on the models that the config names, which must be there.

    Returns:
        One run per arm and seed, in that order.

    Raises:
        ValueError: if a config cannot be, arms or seeds are alike, or a folder holds another run.
    """
    if len(set(seeds)) < len(seeds) or not seeds:
        raise ValueError(f"--seeds must be different numbers, got {list(seeds)}")
    if len({arm.folder for arm in arms}) < len(arms):
        raise ValueError(f"arms must have different names, got {[arm.name for arm in arms]}")
    for argument in overrides:
        if argument.startswith("--config.seed="):
            raise ValueError(f"--seeds says which seeds are trained, got {argument}: leave it out")
    found, maps = [], [f"--map={old}={new}" for old, new in moved.items()]
    hashes: dict[str, str] = {}
    for arm in arms:
        for seed in seeds:
            changes, name = arm.arguments(seed), name_of(arm, seed)
            folder = os.path.join(workdir, name)
            config = _config(recipe, [*overrides, *changes], name)
            if makes:
                _make(config, folder, name, moved)
            twin = hashes.setdefault(config_lib.hash_of(config), name)
            if twin != name:
                raise ValueError(
                    f"arms must have different configs, got one for {twin} and {name}: leave out one"
                )
            is_moved = looks and config_lib.exists(folder) and _check_there(config, folder)
            arguments = (f"--config={recipe}", *overrides, *changes, f"--workdir={folder}", *maps)
            of_run = dict(arm=arm, seed=seed, workdir=folder, arguments=arguments, config=config)
            found.append(Run(**of_run, moved=is_moved))
    return found


def _config(recipe: str, arguments: Sequence[str], name: str) -> ml_collections.ConfigDict:
    """The config of a run, as its stage takes it."""
    try:
        config = config_lib.read(recipe, arguments)
        validation.validate(config, registry.of(config.stage))
    except ValueError as error:
        raise ValueError(f"{name} cannot be trained: {error}") from error
    return config


def _make(
    config: ml_collections.ConfigDict, folder: str, name: str, moved: Mapping[str, str]
) -> None:
    """Refuses a config that its stage, or a model that it names, does not go with."""
    run = lineage.Lineage.trained_by(config, folder, places.Places(dict(moved)))
    try:
        registry.of(config.stage).make(config, run)
    except ValueError as error:
        raise ValueError(f"{name} cannot be trained: {error}") from error


def _check_there(config: ml_collections.ConfigDict, folder: str) -> bool:
    """Holds a run that is there to its config and length; whether its data had another place."""
    moved = config_lib.check_same_run(config, folder)
    step = run_folder.done_step(folder, config.num_steps)
    if step not in (None, config.num_steps):
        raise ValueError(
            f"all arms must have config.num_steps={config.num_steps} steps, got {step} in {folder}: "
            "give that number, or another --workdir"
        )
    return bool(moved)


def chosen(names: Sequence[str], found: Sequence[Run]) -> list[Run]:
    """The runs that are named, by arm or by run; all for no name; ValueError for another name."""
    known = {one for run in found for one in (run.name, run.arm.name, run.arm.folder)}
    for name in names:
        if name not in known:
            raise ValueError(
                f"--only must name arms or runs of the sweep, got {name!r}, not one of "
                f"{', '.join(sorted({run.arm.name for run in found}))}"
            )
    named = set(names)
    return [run for run in found if not named or named & {run.name, run.arm.name, run.arm.folder}]


def read(workdir: str) -> Plan:
    """The plan that a sweep's folder keeps.

    Raises:
        ValueError: where there is none, or it is damaged.
    """
    path = epath.Path(workdir) / _FILE_NAME
    if not path.exists():
        raise ValueError(
            f"--workdir must be the folder of a sweep, got {workdir}, which has no {_FILE_NAME}: "
            "begin one with --sweep"
        )
    try:
        content = json.loads(small_file.read_text(path))
        return typed_json.read(sealed.opened(content, str(path), required=True), Plan)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} must be as it was written, got another: {error}") from error


def settle(plan: Plan, workdir: str, *, say: Callable[[str], None]) -> None:
    """Writes a plan into its sweep's folder once; says what is otherwise than what is there.

    Runs that are not named any more are left as they are: theirs are the folders' configs.

    Raises:
        ValueError: where what is there is damaged.
    """
    path = epath.Path(workdir) / _FILE_NAME
    if path.exists():
        before = read(workdir)
        if before == plan:
            return
        for what, names in (
            ("are left as they are, the sweep names them no more", before.runs.keys() - plan.runs),
            ("are new in the sweep", plan.runs.keys() - before.runs),
        ):
            if names:
                say(f"{workdir}: {len(names)} runs {what}: {_listed(names)}")
    content = json.loads(json.dumps(typed_json.write(plan)))
    atomic.write_text(path, json.dumps(sealed.seal(content), indent=1) + "\n")


def _listed(names: Sequence[str]) -> str:
    """Names in order, and of many the first."""
    first = sorted(names)[:8]
    return ", ".join(first) + (f" and {len(names) - len(first)} more" * (len(names) > len(first)))
