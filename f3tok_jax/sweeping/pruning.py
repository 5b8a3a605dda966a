# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Which runs of a sweep are stopped early: successive halving, by Optuna's own pruner.

The decision follows from the runs' metrics alone. A run goes on while, on every rung that it has come
to, it is among the best of all that have come there, whenever they did; who comes late may so still
end one that came early. There are rungs in the first half of a run alone: to stop one that has less
left than it has cost saves little, and would come in its last save. Who is not finite on a rung is
among the best of none.
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


def check(halving: space.Halving, num_steps: int) -> None:
    """Refuses a first rung on which a run of so many steps would never be judged."""
    if 2 * halving.first_step >= num_steps:
        raise ValueError(
            f"first_step of halving must be below half of config.num_steps={num_steps}, got "
            f"{halving.first_step}: no run would be judged; name an earlier one, or --prune=none"
        )


def is_worse(
    name: str,
    curves: Mapping[str, history.Curve],
    *,
    halving: space.Halving,
    goal: str,
    num_steps: int,
) -> bool:
    """Whether a run is to be stopped.

    Args:
        name: of the run.
        curves: name -> the ranking metric of every run that has one, it among them; NaN where it
            was not finite.
        halving: when and how many go on.
        goal: "minimize" or "maximize".
        num_steps: that it is to take.
    """
    optuna = library()
    pruner = optuna.pruners.SuccessiveHalvingPruner(
        min_resource=halving.first_step, reduction_factor=halving.factor
    )
    study = optuna.create_study(direction=goal, pruner=pruner)
    end = halving.first_step  # the first rung that is none
    while 2 * end < num_steps:
        end *= halving.factor
    # It last: the pruner compares with who has come to a rung before.
    for other in sorted(curves, key=lambda other: (other == name, other)):
        trial, worse = study.ask(), False
        for step, value in zip(curves[other].steps, curves[other].values):
            if step < end:
                trial.report(value, int(step))
                worse |= trial.should_prune()
    return worse
