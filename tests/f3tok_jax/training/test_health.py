# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Spikes and collapses, in curves of our own."""

import numpy as np
import pytest

from f3tok_jax.training import health as health_lib
from f3tok_jax.training import stage as stage_lib

_LOSS = stage_lib.Watched(metric="train/loss", lever="lower the rate")


def _curve(num_steps: int, *, seed: int = 0) -> np.ndarray:
    """A loss that falls, with the noise of its batches."""
    noise = np.random.default_rng(seed).lognormal(0.0, 0.2, num_steps)
    return (1.0 + 8.0 * np.exp(-np.arange(num_steps) / 50.0)) * noise


def _look(health: health_lib.Health, losses, *, first: int = 1):
    found = [health.look(first + at, {"train/loss": loss}) for at, loss in enumerate(losses)]
    spikes = [first + at for at, finding in enumerate(found) if finding.spikes]
    return spikes, [sentence for finding in found for sentence in finding.sentences]


@pytest.mark.reliability("R21")
def test_a_spike_is_named_with_its_step_and_its_lever():
    health = health_lib.Health([_LOSS], [])
    losses = _curve(400)
    losses[300] *= 10.0
    spikes, said = _look(health, losses)
    assert spikes == [301] and len(said) == 1
    assert said[0].startswith(f"train/loss of step 301 is {losses[300]:.3g}, the median of the 128")
    assert "logs/spikes.jsonl" in said[0] and said[0].endswith("if it comes again lower the rate")


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_curve_has_none(seed):
    losses = _curve(2000, seed=seed)
    assert _look(health_lib.Health([_LOSS], []), losses) == ([], [])
    # Nor one that hardly moves at all: a deviation is then next to nothing.
    steady = 3.0 + 1e-6 * losses
    assert _look(health_lib.Health([_LOSS], []), steady) == ([], [])


def test_the_first_steps_and_a_loss_that_joins_find_their_level():
    health = health_lib.Health([_LOSS], [])
    losses = _curve(60)
    losses[50] *= 100.0
    assert _look(health, losses) == ([], [])
    assert _look(health, _curve(200), first=61)[0] == []
    joined = {"train/loss": 50.0, "train/adversarial": 1.0}
    assert not health.look(300, joined).spikes
    assert not health.look(301, joined).spikes


def test_a_level_that_rises_for_good_becomes_the_level():
    health = health_lib.Health([_LOSS], [])
    spikes, said = _look(health, np.concatenate([_curve(400), 20.0 * _curve(400)[200:]]))
    assert 401 in spikes and max(spikes) < 401 + 128 and len(said) == 1


def test_what_comes_again_is_said_once_in_a_while_and_counted():
    health = health_lib.Health([_LOSS], [])
    losses = _curve(2500)
    losses[[300, 500, 700, 1400]] *= 10.0
    spikes, said = _look(health, losses)
    assert spikes == [301, 501, 701, 1401] and len(said) == 2
    assert said[1].startswith("train/loss of step 1401") and "(2 more since step 301)" in said[1]


def test_examples_are_named_as_long_as_they_are_kept(monkeypatch):
    monkeypatch.setattr(health_lib, "_MAX_SPIKES", 1)
    losses = _curve(2500)
    losses[[300, 2000]] *= 10.0
    spikes, said = _look(health_lib.Health([_LOSS], []), losses)
    assert spikes == [301] and len(said) == 2
    assert ["logs/spikes.jsonl" in sentence for sentence in said] == [True, False]
    assert said[1].endswith(": if it comes again lower the rate")


@pytest.mark.reliability("R22")
def test_a_sign_is_said_once_it_has_held_for_long_enough():
    shows = lambda low: "collapsed" if low < 0.1 else ""
    sign = stage_lib.Sign(steps=5, metrics=("low",), shows=shows)
    health = health_lib.Health([], [sign])
    tell = lambda step, low: list(health.look(step, {} if low is None else {"low": low}).sentences)
    assert not any(tell(step, 0.05) for step in range(4))
    assert not tell(4, 0.5) and not any(tell(step, 0.05) for step in range(5, 9))
    assert not tell(9, None)  # does not tell, so does not count
    assert tell(10, 0.05) == ["at step 10: collapsed"]
    assert not any(tell(step, 0.05) for step in range(11, 1010))
    assert tell(1010, 0.05) == ["at step 1010: collapsed (999 more since step 10)"]
