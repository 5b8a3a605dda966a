# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The step that players take: clipping, decay, starts, averages, against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from configs import sections
from f3tok_jax.training import optimizer
from f3tok_jax.training import players as players_lib
from f3tok_jax.training import state as train_state

_SECTION = dict(
    start=0.0,
    modules={},
    learning_rate=1e-2,
    warmup_steps=4,
    schedule="constant",
    decay=0.5,
    final_fraction=0.1,
    b1=0.9,
    b2=0.99,
    weight_decay=0.0,
    clip_norm=1.0,
)


def _players(num_steps: int = 10, **changes) -> dict[str, players_lib.Player]:
    config = ml_collections.ConfigDict(
        dict(num_steps=num_steps, optimizer=dict(one=_SECTION | changes))
    )
    config.decays = sections.decays()
    return players_lib.make_players(config, ["one"])


def _late(start: float, **changes) -> dict:
    """A table in which "late" begins at a step, "early" at once."""
    early = dict(start=0.0, warmup_steps=players_lib.NEVER)
    return dict(early=early, late=early | dict(start=start) | changes)


def _step(state: train_state.TrainState, players, **gradients: float):
    """One step of every leaf's gradient by module; returns state and metrics by short name."""
    grads = {
        name: jax.tree.map(
            lambda leaf, value=value: jnp.full_like(leaf, value), state.params["one"][name]
        )
        for name, value in gradients.items()
    }
    take = jax.jit(
        lambda state, grads: optimizer.finish_step(
            state, {"one": grads}, {}, optimizers=players, ema_decay=0.5
        )
    )
    state, metrics = take(state, grads)
    short = {name.removeprefix("train/"): value for name, value in metrics.items()}
    return state, {name: float(total / weight) for name, (total, weight) in short.items() if weight}


def _begin(players) -> train_state.TrainState:
    params = {name: {"kernel": jnp.full((2, 2), 0.5)} for name in ("early", "late")}
    return optimizer.init_state({"one": params}, players)


def _rates(num_steps: int = 10, **changes) -> np.ndarray:
    schedule = players_lib.make_schedule(_SECTION | changes, num_steps)
    return np.array([schedule(step) for step in range(num_steps + 1)])


def test_warm_up_is_linear_and_learns_from_the_first_step():
    np.testing.assert_allclose(_rates()[:5], [0.0025, 0.005, 0.0075, 0.01, 0.01], rtol=1e-6)


def test_exponential_decay_is_per_step_after_the_warm_up():
    np.testing.assert_allclose(
        _rates(schedule="exponential")[4:8], 1e-2 * 0.5 ** np.arange(4), rtol=1e-6
    )


def test_cosine_ends_at_its_fraction():
    rates = _rates(schedule="cosine")
    np.testing.assert_allclose(rates[[4, 7, 10]], [1e-2, 1e-2 * 0.55, 1e-3], rtol=1e-6)


def test_no_warm_up():
    np.testing.assert_allclose(_rates(warmup_steps=0)[:2], 1e-2, rtol=1e-6)


def test_a_late_module_warms_up_from_its_start_and_then_follows_its_player():
    options = dict(schedule="cosine", warmup_steps=2)
    player = players_lib.make_schedule(_SECTION | options, 20)
    late = players_lib.make_schedule(_SECTION | options, 20, late=8, warmup_steps=3)
    rates = np.array([late(count) for count in range(12)])
    curve = np.array([player(step) for step in range(8, 20)])
    np.testing.assert_allclose(rates[:3], curve[:3] * [1 / 3, 2 / 3, 1], rtol=1e-6)
    np.testing.assert_array_equal(rates[3:], curve[3:])


def test_gradients_are_clipped_by_the_norm_of_all_that_has_begun():
    # Adam's ratio hides the scale of its gradients: look at their running mean instead.
    for start, norm in ((0.0, np.sqrt(4 * 30.0**2 + 4 * 40.0**2)), (5, np.sqrt(4 * 30.0**2))):
        players = _players(modules=_late(start))
        state, metrics = _step(_begin(players), players, early=30.0, late=40.0)
        mean = state.opt_state["one"]["early"][0].mu["kernel"]
        np.testing.assert_allclose(mean, 0.1 * 30.0 / norm, rtol=1e-5)
        assert metrics["gradient_norm"] == pytest.approx(norm, rel=1e-6)
        assert metrics["gradient_norm/early"] == pytest.approx(60.0, rel=1e-6)


def test_what_has_not_begun_does_not_move_and_then_warms_up():
    """Without a gradient, the decay alone made the base recipe's projector a tenth of itself."""
    players = _players(modules=_late(3), weight_decay=0.1, warmup_steps=4)
    fresh = state = _begin(players)
    for _ in range(3):
        state, metrics = _step(state, players, early=1.0, late=0.0)
        assert "learning_rate/late" not in metrics and "gradient_norm/late" not in metrics
    for field in ("params", "ema_params", "opt_state"):
        found, before = getattr(state, field)["one"], getattr(fresh, field)["one"]
        jax.tree.map(np.testing.assert_array_equal, found["late"], before["late"])
        assert not np.array_equal(
            jax.tree.leaves(found["early"])[-1], jax.tree.leaves(before["early"])[-1]
        )
    state, metrics = _step(state, players, early=1.0, late=1.0)
    assert metrics["learning_rate/late"] == pytest.approx(0.01 / 4, rel=1e-6)
    assert metrics["learning_rate/early"] == pytest.approx(0.01, rel=1e-6)
    moved = np.abs(state.params["one"]["late"]["kernel"] - 0.5)
    np.testing.assert_allclose(moved, 0.01 / 4 * (1 + 0.1 * 0.5), rtol=1e-4)
    # The average's ramp counts from its start: a tenth of the old is kept.
    np.testing.assert_allclose(
        0.5 - state.ema_params["one"]["late"]["kernel"], 0.9 * moved, rtol=1e-4
    )


def test_a_skipped_step_at_a_start_is_no_update_of_it():
    players = _players(modules=_late(1))
    state, _ = _step(_begin(players), players, early=1.0, late=0.0)
    before = state
    state, metrics = _step(state, players, early=1.0, late=np.nan)
    assert metrics["nonfinite"] == 1 and int(state.step) == 2
    jax.tree.map(np.testing.assert_array_equal, state.replace(step=before.step), before)
    _, metrics = _step(state, players, early=1.0, late=1.0)
    assert metrics["learning_rate/late"] == pytest.approx(0.01 / 4, rel=1e-6)


def test_a_module_that_never_begins_has_no_optimizer_and_stays():
    players = _players(modules=_late(players_lib.NEVER), weight_decay=0.1)
    fresh = state = _begin(players)
    assert set(state.opt_state["one"]) == {"early"}
    state, metrics = _step(state, players, early=1.0, late=np.nan)
    assert metrics["nonfinite"] == 0 and players_lib.last_start(players) == 0
    for field in ("params", "ema_params"):
        found = getattr(state, field)["one"]["late"]["kernel"]
        np.testing.assert_array_equal(found, getattr(fresh, field)["one"]["late"]["kernel"])


def test_a_module_that_the_table_lacks_is_refused():
    players = _players(modules=dict(early=dict(start=0.0, warmup_steps=-1)))
    with pytest.raises(ValueError, match=r"one.modules must name every module .* without late"):
        _begin(players)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(schedule="linear"), "schedule must be one of"),
        (
            dict(schedule="cosine", warmup_steps=10),
            "warmup_steps=10 must be smaller than num_steps=10",
        ),
        (dict(learning_rate=0.0), "learning_rate must be greater than 0, got 0.0"),
        (dict(clip_norm=-1.0), "clip_norm must be greater than 0, got -1.0"),
        (dict(start=-2.0), "one.start must be a share of the run below 1, a whole step, or -1"),
        (dict(start=2.5), "one.start must be a share of the run below 1, a whole step, or -1"),
        (dict(start=10), "one.start=10 must lie in the 10 steps of the run"),
        (
            dict(schedule="cosine", modules=_late(0.5, warmup_steps=6)),
            "warmup_steps=6 from a start 5 steps later must be smaller than num_steps=10",
        ),
    ],
)
def test_impossible_values_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        _players(**changes)
