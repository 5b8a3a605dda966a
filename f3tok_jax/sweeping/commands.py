# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the program of sweeps does with its flags: train, show, stop."""

import argparse
from collections.abc import Callable, Collection, Sequence
import itertools
import math
import pathlib
import shlex
import subprocess

import jax

from data_pipelines import command
from f3tok_jax.runs import history
from f3tok_jax.runs import results as results_lib
from f3tok_jax.sweeping import driver as driver_lib
from f3tok_jax.sweeping import job
from f3tok_jax.sweeping import places
from f3tok_jax.sweeping import plan as plan_lib
from f3tok_jax.sweeping import pruning
from f3tok_jax.sweeping import space
from f3tok_jax.sweeping import status
from f3tok_jax.sweeping import stopping
from f3tok_jax.sweeping import sweep_file
from f3tok_jax.training import flags as training_flags

# Flags of train and of launch/tpu_train.sh with which they end at once, and well.
_WITHOUT_TRAINING = ("--print_config", "--dry-run")


def train(
    given: argparse.Namespace,
    *,
    check_launches: Callable[..., None],
    check_here: Callable[..., None],
) -> int:
    """Trains what the flags name and is not trained yet.

    Args:
        given: flags of the program.
        check_launches: launching.launches.check, which lies above.
        check_here: launching.launches.check_here, likewise.

    Returns:
        The exit code.
    """
    # A run's accelerator is not held here; in the environment, which the runs inherit, all stays.
    jax.config.update("jax_platforms", "cpu")
    for flag in given.others:
        if flag in _WITHOUT_TRAINING:
            raise ValueError(
                f"{flag} must not go to a sweep's runs, which would end with nothing trained: leave "
                "it out; --dry_run prints what every run would be given"
            )
    plan, runs, halving = _planned(given)
    place = places.of(given.backend, given.workdir, given.max_parallel, given.others)
    chosen = plan_lib.chosen(given.only, runs)
    asked = dict(moved=dict(given.moved or ()), is_offline=given.dry_run)
    if place.is_here:
        first, *_ = chosen
        parser = training_flags.make_parser("f3tok_jax.train", "")
        command.parse(parser, [*first.arguments, *place.flags])
        check_here([run for run in chosen if run.done_step is None], **asked)
    else:
        check_launches(chosen, given.others, **asked)
    if given.dry_run:
        slots = itertools.cycle(place.slots(len(chosen)))
        for arguments in (place.setup_command, *map(place.command, chosen, slots)):
            if arguments:
                print(f"+ {shlex.join(arguments)}")
        print(f"{len(chosen)} runs; nothing was begun")
        return command.EXIT_DONE
    judge = _Judge(plan, runs, halving) if halving else None
    with driver_lib.alone(given.workdir):
        if setup := place.setup_command:
            command.say(f"+ {shlex.join(setup)}")
            if subprocess.run(setup, env=place.environment, check=False).returncode:
                raise ValueError(f"no run was begun, as {shlex.join(setup)} has failed: see above")
        plan_lib.settle(plan, given.workdir, say=command.say)
        driver = driver_lib.Driver(place, judge, command.say)
        try:
            begun = {run.name: run for run in chosen if given.only or not _is_pruned(run)}
            others = [run for run in runs if run.name not in begun]
            ended = driver.train(list(begun.values()), others)
        finally:
            for line in place.bill(len(chosen)):
                command.say(line)
    show(given.workdir, top=given.top, output=given.output)
    if driver.told or any(one.state == job.STOPPED for one in ended.values()):
        raise command.Refused("told to leave: run the same command again", job.LEFT[0])
    failed = {name: one for name, one in ended.items() if one.state == job.FAILED}
    if failed:
        (name, one), *_ = failed.items()
        raise ValueError(
            f"{len(failed)} of {len(chosen)} runs have failed, {name} first, with exit code "
            f"{one.code} ({one.words}): mend that and run the same command again"
        )
    return command.EXIT_DONE


def show(workdir: str, *, top: int = 0, output: pathlib.Path | None = None) -> int:
    """Prints how far a sweep is, and writes it where that is wanted; the exit code."""
    found = status.read(workdir)
    print(status.format_table(found, top))
    if output:
        results_lib.write(output, found)
        print(output)
    return command.EXIT_DONE


def stop(given: argparse.Namespace) -> int:
    """Asks the runs that the flags name to save and leave; the exit code."""
    if given.backend == "local":
        names = list(plan_lib.read(given.workdir).runs)
        is_well = stopping.here(given.workdir, names, say=command.say)
    else:
        _, runs, _ = _planned(given)
        place = places.of(given.backend, given.workdir, given.max_parallel, given.others)
        chosen = plan_lib.chosen(given.only, runs)
        is_well = stopping.here(given.workdir, (), say=command.say)
        is_well &= stopping.elsewhere(place, chosen, say=command.say)
    if not is_well:
        raise ValueError("some runs have not left, or could not be asked to: see above")
    return command.EXIT_DONE


class _Judge:
    """Names the runs of a sweep that are to be stopped early."""

    def __init__(self, plan: plan_lib.Plan, runs: Sequence[plan_lib.Run], halving: space.Halving):
        pruning.library()  # or a sentence, before the first run begins
        self._plan, self._halving = plan, halving
        self._folders = {run.name: run.workdir for run in runs}
        self._num_steps = {run.name: run.config.num_steps for run in runs}

    def __call__(self, at_work: Collection[plan_lib.Run]) -> dict[str, str]:
        """Name -> why, of those of the runs at work that are to be stopped."""
        curves = status.curves(self._folders, self._plan.metric)
        options = dict(halving=self._halving, goal=self._plan.goal)
        names = [run.name for run in at_work if run.name in curves]
        return {
            name: self._why(curves[name])
            for name in names
            if pruning.is_worse(name, curves, num_steps=self._num_steps[name], **options)
        }

    def _why(self, curve: history.Curve) -> str:
        value, step = curve.values[-1], curve.steps[-1]
        is_finite = math.isfinite(value)
        said = f"is {value:.4g}, and better in others," if is_finite else "is not finite"
        return f"{self._plan.metric} {said} at step {step:.0f}"


def _planned(
    given: argparse.Namespace,
) -> tuple[plan_lib.Plan, list[plan_lib.Run], space.Halving | None]:
    """The plan, its runs, and by what they are pruned."""
    if not given.sweep:
        raise ValueError("--sweep must be FILE.py or FILE.py:PRESET, got none; see --help")
    sweep = sweep_file.read(given.sweep)
    plan = plan_lib.of(sweep, given.overrides)
    runs = plan_lib.runs(
        sweep.recipe,
        plan.overrides,
        arms=sweep.arms,
        seeds=sweep.seeds,
        workdir=given.workdir,
        moved=dict(given.moved or ()),
        looks=not (given.dry_run and "://" in given.workdir),  # It needs no key to a bucket.
        makes=given.backend == "local" and not given.stop,  # What workers see is theirs to check.
    )
    halving = sweep.halving
    if given.prune == "halving":
        halving = halving or pruning.by_default(min(run.config.num_steps for run in runs))
    if given.prune == "none" or given.only:
        halving = None
    if halving:
        pruning.check(halving, min(run.config.num_steps for run in runs))
    return plan, runs, halving


def _is_pruned(run: plan_lib.Run) -> bool:
    record = job.read_record(run.workdir)
    return bool(record and record.state == job.PRUNED)
