# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The runs of an ablation: their configs, and training them one after another."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import types

import ml_collections

from f3tok_jax.probing import arms as arms_lib
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import folder as run_folder
from f3tok_jax.stages import registry
from f3tok_jax.training import validation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One run: of which arm and seed, its folder, its arguments for train, and its config; whether
    data lies elsewhere than its folder says."""

    arm: arms_lib.Arm
    seed: int
    workdir: str
    arguments: tuple[str, ...]
    config: ml_collections.ConfigDict
    moved: bool = False

    @property
    def name(self) -> str:
        """Of its folder."""
        return pathlib.PurePath(self.workdir).name


class TrainingStopped(Exception):
    """A run ended before its last step; `code` is train's."""

    def __init__(self, workdir: str, code: int):
        super().__init__(
            f"training in {workdir} ended with exit code {code}: see above, then run the same "
            "command again"
        )
        self.code = code


def plan(
    recipe: str,
    overrides: Sequence[str],
    *,
    arms: Sequence[arms_lib.Arm] = arms_lib.LOSSES,
    seeds: Sequence[int],
    workdir: str,
    moved: Mapping[str, str] = types.MappingProxyType({}),
) -> list[Run]:
    """The runs of an ablation, all checked before the first starts.

    Args:
        recipe: file and preset of the representation stage.
        overrides: "--config.key=value" arguments for all arms.
        arms: at least one.
        seeds: of the training.
        workdir: folder of the runs' folders.
        moved: where what the config names lies now; see F3Tokenizer.from_pretrained.

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
    runs, maps = [], [f"--map={old}={new}" for old, new in moved.items()]
    for arm in arms:
        for seed in seeds:
            changes = arm.arguments(seed)
            config = arms_lib.read_config(recipe, [*overrides, *changes])
            validation.validate(config, registry.of(config.stage))
            if arm == arms_lib.FULL and not (config.rq.weight and config.supervision.weight):
                raise ValueError(
                    "the full arm must have both losses, got "
                    f"config.rq.weight={config.rq.weight} and "
                    f"config.supervision.weight={config.supervision.weight}"
                )
            folder = os.path.join(workdir, f"{arm.folder}_{seed}")
            moved = _check_there(config, folder) if config_lib.exists(folder) else False
            arguments = (f"--config={recipe}", *overrides, *changes, f"--workdir={folder}", *maps)
            of = dict(arm=arm, seed=seed, workdir=folder, arguments=arguments, config=config)
            runs.append(Run(**of, moved=moved))
    return runs


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


def train(run: Run, *, say: Callable[[str], None] = print) -> None:
    """Trains a run to its end, unless it is there already.

    In a process of its own, so that this one does not hold the accelerator meanwhile.

    Raises:
        TrainingStopped: if it ended otherwise.
    """
    # What lies elsewhere is compared by training, which says itself that it is done.
    step = None if run.moved else run_folder.done_step(run.workdir, run.config.num_steps)
    if step is not None:
        say(f"{run.workdir} is done: it has all {step} steps")
        return
    say(f"training {run.arm.name}, seed {run.seed}, in {run.workdir}")
    code = _wait_for([sys.executable, "-m", "f3tok_jax.train", *run.arguments])
    if code:
        raise TrainingStopped(run.workdir, code)


def _wait_for(command: Sequence[str]) -> int:
    """Runs a command, passing on what asks this program to leave; its exit code."""
    root = str(pathlib.Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)})
    # Ctrl-C reaches the child by itself: both must wait until it has saved.
    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: child.terminate()),
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
    }
    try:
        return child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
