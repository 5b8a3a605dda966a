# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Averages and speeds, with a clock of our own."""

import contextlib
import pathlib
import types

import pytest

from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import ledger
from f3tok_jax.stages import registry
from f3tok_jax.training import bar
from f3tok_jax.training import progress as progress_lib
from f3tok_jax.training import timekeeper
from f3tok_jax.training import watchdog
from tests.support import clocks

_ROOT = pathlib.Path(__file__).parents[3]


def _progress(keeper, num_steps: int = 10, best_from: int = 0, **options) -> progress_lib.Progress:
    """Of a stage with eight seconds of sound in a batch."""
    stage = types.SimpleNamespace(per_batch=8.0, unit="audio_seconds", best_from=best_from)
    hidden = bar.Bar(print)
    return progress_lib.Progress(keeper, hidden, stage, num_steps=num_steps, **options)


@pytest.fixture
def clock():
    return clocks.Clock()


@pytest.fixture
def keeper(clock, tmp_path):
    """Of a session that has just begun."""
    book = ledger.Book(str(tmp_path), say=lambda message: None)
    dog = watchdog.Watchdog(60.0, clock=clock)
    with contextlib.closing(dog):
        with timekeeper.Timekeeper(book, dog, clock=clock, price=3.6) as made:
            made.enter("step")
            yield made


def test_ratios_are_formed_after_the_sums():
    averages = progress_lib.Averages()
    averages.add({"loss": (1.0, 1.0), "never": (0.0, 0.0), "latent_mean_square": (18.0, 2.0)})
    averages.add({"loss": (9.0, 3.0), "never": (0.0, 0.0), "latent_mean_square": (0.0, 0.0)})
    assert averages.ratios() == {"loss": 2.5, "latent_rms": 3.0}


def test_speed_leaves_out_what_is_not_training_and_skipped_steps_leave_no_trace(clock, keeper):
    progress = _progress(keeper)
    clock.now += 0.4
    progress.add({"train/loss": (2.0, 1.0)}, is_finite=True)
    keeper.enter("data")
    clock.now += 0.5
    keeper.enter("step")
    clock.now += 1.1
    progress.add({"train/loss": (float("nan"), 1.0)}, is_finite=False)
    keeper.enter("evaluation")
    clock.now += 30.0
    keeper.enter("step")
    values = progress.values(2)
    assert values["train/loss"] == 2.0 and values["train/nonfinite"] == 1.0
    assert values["time/audio_seconds_per_second"] == pytest.approx(2 * 8.0 / 2.0)
    assert values["time/step_seconds"] == pytest.approx(1.0)
    assert values["time/slowest_step_seconds"] == pytest.approx(1.6)
    assert values["time/data_wait_seconds"] == pytest.approx(0.5)
    assert values["time/data_wait_share"] == pytest.approx(0.25)
    # Eight steps of a second, and as long an evaluation for every two.
    assert values["time/eta_seconds"] == pytest.approx(8 * 1.0 * 32.0 / 2.0)
    assert values["time/seconds"] == pytest.approx(32.0)
    assert values["memory/host_gb"] > 0.01
    clock.now += 1.0
    progress.add({}, is_finite=True)
    again = progress.values(3)
    assert again["time/step_seconds"] == again["time/slowest_step_seconds"] == pytest.approx(1.0)
    assert "train/loss" not in again and again["train/nonfinite"] == 0.0
    assert again["time/seconds"] == pytest.approx(33.0)


def test_speed_counts_what_is_no_padding(clock, keeper):
    progress = _progress(keeper)
    clock.now += 2.0
    for valid, is_finite in ((50.0, True), (100.0, True), (25.0, False)):
        progress.add({"train/filled": (valid, 100.0)}, is_finite=is_finite)
    values = progress.values(3)
    assert values["time/audio_seconds_per_second"] == pytest.approx(1.75 * 8.0 / 2.0)
    assert values["train/filled"] == pytest.approx(0.75)


def test_a_line_has_the_step_first_and_short_names(keeper):
    progress = _progress(keeper)
    values = {"train/loss": 1.23456, "time/seconds": 7.0, "time/eta_seconds": 93784.4}
    assert progress.line(3, values) == "step 3/10  loss 1.235  seconds 7  eta 1 day, 2:03:04"


def test_what_a_run_has_cost_so_far_is_of_all_its_sessions(clock, tmp_path, keeper):
    progress = _progress(keeper)
    clock.now += 3600.0
    progress.add({}, is_finite=True)
    before = ledger.Session(start=0.0, seconds={"start": 3600.0}, chips=2, price=1.0, ended="done")
    keeper._book.before = [before]
    values = progress.values(1)
    assert values["time/chip_hours"] == pytest.approx(3.0, abs=1e-3)
    assert values["time/dollars"] == pytest.approx(3.6 + 2.0, abs=1e-2)
    assert values["time/goodput"] == pytest.approx(0.5, abs=1e-3)


def test_a_stage_without_sound_tells_its_speed_in_positions(clock, keeper):
    config = config_lib.read(str(_ROOT / "configs" / "language_model.py") + ":tiny")
    stage = registry.of("language_model").make(config)
    progress = progress_lib.Progress(keeper, bar.Bar(print), stage, num_steps=10)
    clock.now += 2.0
    progress.add({}, is_finite=True)
    values = progress.values(1)
    assert "time/audio_seconds_per_second" not in values
    rate = config.data.batch_size * config.data.length / 2.0
    assert values["time/positions_per_second"] == pytest.approx(rate)


def test_the_share_of_the_peak_is_of_all_steps_and_told_where_the_chip_is_known(clock, keeper):
    known, unknown = _progress(keeper, peak_seconds=0.5), _progress(keeper)
    for seconds in (1.0, 3.0):
        clock.now += seconds
        known.add({}, is_finite=True)
        unknown.add({}, is_finite=True)
    assert known.values(2)["time/mfu"] == pytest.approx(2 * 0.5 / 4.0)
    assert "time/mfu" not in unknown.values(2)


def test_the_share_of_the_peak_is_told_of_steps_of_all_that_learns(clock, keeper):
    progress, told = _progress(keeper, peak_seconds=0.5, best_from=3), []
    for step in range(1, 7):
        clock.now += 1.0
        progress.add({}, is_finite=True)
        if step % 2 == 0:
            told.append("time/mfu" in progress.values(step))
    assert told == [False, False, True]  # of steps 1 and 2, 3 and 4, 5 and 6
