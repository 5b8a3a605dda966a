# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Averages and speeds, with a clock of our own."""

import pathlib

import pytest

from f3tok_jax.runs import config as config_lib
from f3tok_jax.stages import registry
from f3tok_jax.training import progress as progress_lib

_ROOT = pathlib.Path(__file__).parents[3]


class _Clock:
    """A clock that the test sets."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_ratios_are_formed_after_the_sums():
    averages = progress_lib.Averages()
    averages.add({"loss": (1.0, 1.0), "never": (0.0, 0.0), "latent_mean_square": (18.0, 2.0)})
    averages.add({"loss": (9.0, 3.0), "never": (0.0, 0.0), "latent_mean_square": (0.0, 0.0)})
    assert averages.ratios() == {"loss": 2.5, "latent_rms": 3.0}


def test_speed_leaves_out_what_is_not_training_and_skipped_steps_leave_no_trace():
    clock = _Clock()
    progress = progress_lib.Progress(num_steps=10, per_batch=8.0, unit="audio_seconds", clock=clock)
    progress.add({"train/loss": (2.0, 1.0)}, is_finite=True)
    progress.add({"train/loss": (float("nan"), 1.0)}, is_finite=False)
    with progress.waiting_for_data():
        clock.now += 0.5
    clock.now += 1.5
    with progress.aside():
        clock.now += 30.0
    values = progress.values()
    assert values["train/loss"] == 2.0 and values["train/nonfinite"] == 1.0
    assert values["time/audio_seconds_per_second"] == pytest.approx(2 * 8.0 / 2.0)
    assert values["time/data_wait_seconds"] == pytest.approx(0.5)
    assert values["time/seconds"] == pytest.approx(32.0)
    assert values["memory/host_gb"] > 0.01
    clock.now += 1.0
    again = progress.values()
    assert "train/loss" not in again and again["train/nonfinite"] == 0.0
    assert again["time/seconds"] == pytest.approx(33.0)


def test_speed_counts_what_is_no_padding():
    clock = _Clock()
    progress = progress_lib.Progress(num_steps=10, per_batch=8.0, unit="audio_seconds", clock=clock)
    for valid, is_finite in ((50.0, True), (100.0, True), (25.0, False)):
        progress.add({"train/filled": (valid, 100.0)}, is_finite=is_finite)
    clock.now += 2.0
    values = progress.values()
    assert values["time/audio_seconds_per_second"] == pytest.approx(1.75 * 8.0 / 2.0)
    assert values["train/filled"] == pytest.approx(0.75)


def test_a_line_has_the_step_first_and_short_names():
    progress = progress_lib.Progress(num_steps=10, per_batch=8.0, unit="positions", clock=_Clock())
    line = progress.line(3, {"train/loss": 1.23456, "time/seconds": 7.0})
    assert line == "step 3/10  loss 1.235  seconds 7"


def test_a_stage_without_sound_tells_its_speed_in_positions():
    config = config_lib.read(str(_ROOT / "configs" / "language_model.py") + ":tiny")
    stage = registry.of("language_model").make(config)
    clock = _Clock()
    progress = progress_lib.Progress(
        num_steps=10, per_batch=stage.per_batch, unit=stage.unit, clock=clock
    )
    progress.add({}, is_finite=True)
    clock.now += 2.0
    values = progress.values()
    assert "time/audio_seconds_per_second" not in values
    rate = config.data.batch_size * config.data.length / 2.0
    assert values["time/positions_per_second"] == pytest.approx(rate)
