# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Successive halving: who goes on follows from the curves alone."""

import pytest

from f3tok_jax.runs import history
from f3tok_jax.sweeping import pruning
from f3tok_jax.sweeping import space

pytest.importorskip("optuna", reason="Optuna is not installed: the extra sweeps")

_HALVING = space.Halving(first_step=100, factor=3)


def _curves(lengths: dict[int, int]) -> dict[str, history.Curve]:
    """Run of a value -> so many readings of it, one every 50 steps."""
    return {
        f"run{value}": history.Curve(
            tuple(50.0 * (index + 1) for index in range(length)), (float(value),) * length
        )
        for value, length in lengths.items()
    }


def _stopped(
    curves: dict[str, history.Curve], goal: str = "minimize", num_steps: int = 900
) -> list[str]:
    options = dict(halving=_HALVING, goal=goal, num_steps=num_steps)
    return [name for name in curves if pruning.is_worse(name, curves, **options)]


def test_the_best_third_of_all_that_came_to_a_rung_go_on():
    curves = _curves({value: 2 for value in range(9)})
    assert _stopped(curves) == [f"run{value}" for value in range(3, 9)]
    assert _stopped(curves, "maximize") == [f"run{value}" for value in range(6)]
    # In whatever order they came.
    assert sorted(_stopped(dict(reversed(curves.items())))) == _stopped(curves)


def test_who_has_not_come_to_a_rung_is_let_alone():
    assert not _stopped(_curves({value: 1 for value in range(9)}))
    assert not _stopped(_curves({7: 2}))  # alone
    # Of those that have, the best goes on; who comes late may end who came early.
    assert _stopped(_curves({5: 6, 3: 1})) == []
    assert _stopped(_curves({5: 6, 3: 2})) == ["run5"]


def test_each_rung_counts():
    # All of these are the best third at step 100; at 300 one of them is.
    lengths = {0: 6, 1: 6, 2: 6} | {value: 2 for value in range(3, 9)}
    assert _stopped(_curves(lengths)) == [f"run{value}" for value in range(1, 9)]


@pytest.mark.parametrize("num_steps", [900, 1200])
def test_who_is_about_to_finish_is_let_alone(num_steps):
    # One reading every 50 steps: all have come to the rungs at 100 and 300, one after the other.
    halving = pruning.by_default(num_steps)
    assert halving.first_step == num_steps // 9
    options = dict(halving=halving, goal="maximize", num_steps=num_steps)
    for last in range(50, num_steps + 50, 50):
        curves = _curves({value: last // 50 for value in (0, 1, 2)})
        # Those that went on, each of which was the best when it came to the second rung.
        worse = [name for name in curves if pruning.is_worse(name, curves, **options)]
        assert worse == (["run0", "run1"] if last >= num_steps // 9 else [])
    last_rung = history.Curve((100.0, 300.0, 850.0, 900.0), (1.0, 1.0, 9.0, 9.0))
    others = _curves({2: 18, 3: 18})
    assert not pruning.is_worse(
        *("late", others | {"late": last_rung}), halving=_HALVING, goal="minimize", num_steps=900
    )


def test_who_is_not_finite_on_a_rung_is_stopped():
    nan = float("nan")
    curves = _curves({1: 1, 2: 2}) | {"nan": history.Curve((50.0, 100.0), (0.0, nan))}
    assert _stopped(curves) == ["nan"] and _stopped(curves, "maximize") == ["nan"]
    before = {"nan": history.Curve((50.0,), (nan,)), "back": history.Curve((50.0, 100.0), (nan, 0))}
    assert _stopped(_curves({1: 1, 2: 1}) | before) == []


def test_a_first_rung_on_which_nobody_is_judged_is_refused():
    pruning.check(_HALVING, 201)
    with pytest.raises(ValueError, match="must be below half of config.num_steps=200, got 100: no"):
        pruning.check(_HALVING, 200)


def test_a_run_of_few_steps_has_a_rung_too():
    assert pruning.by_default(5) == space.Halving(first_step=1, factor=3)
    assert pruning.by_default(900) == space.Halving(first_step=100, factor=3)
    with pytest.raises(ValueError, match="factor 2, got 0 and 1"):
        space.Halving(first_step=0, factor=1)
