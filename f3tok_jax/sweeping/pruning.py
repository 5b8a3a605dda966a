# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Which runs of a sweep are stopped early: successive halving, by Optuna's own pruner.

The decision follows from the runs' metrics alone. A run goes on while, on every rung that it has come
to, it is among the best of all that have come there, whenever they did; who comes late may so still
end one that came early.
"""

from collections.abc import Mapping
from typing import Any

from f3tok_jax.runs import history
from f3tok_jax.sweeping import space


def library() -> Any:
    """Optuna, quiet.

    Raises:
        ValueError: where it is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise ValueError(
            "--prune needs Optuna, which is not installed: pip install -e '.[sweeps]' in the "
            "checkout, or --prune=none"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def by_default(num_steps: int) -> space.Halving:
    """Two rungs, at a ninth and a third of a run."""
    return space.Halving(first_step=max(1, num_steps // 9))


def is_worse(
    name: str, curves: Mapping[str, history.Curve], *, halving: space.Halving, goal: str
) -> bool:
    """Whether a run is to be stopped.

    Args:
        name: of the run.
        curves: name -> the ranking metric of every run that has one, it among them.
        halving: when and how many go on.
        goal: "minimize" or "maximize".
    """
    optuna = library()
    pruner = optuna.pruners.SuccessiveHalvingPruner(
        min_resource=halving.first_step, reduction_factor=halving.factor
    )
    study = optuna.create_study(direction=goal, pruner=pruner)
    # It last: the pruner compares with who has come to a rung before.
    for other in sorted(curves, key=lambda other: (other == name, other)):
        trial, worse = study.ask(), False
        for step, value in zip(curves[other].steps, curves[other].values):
            trial.report(value, int(step))
            worse |= trial.should_prune()
    return worse
