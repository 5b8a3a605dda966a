# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Figures of generated sound, on numbers whose answers are known."""

import numpy as np
import pytest

from f3tok_jax.evaluation import generation_scores


def _rows(seed: int, count: int = 6, shift: float = 0.0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(9 + i, 4)) + shift for i in range(count)]


def _scores(truth, **options) -> generation_scores.GenerationScores:
    return generation_scores.GenerationScores(
        truth=truth, represent=list, seconds_per_latent=0.04, **options
    )


def _row(scores, rows, stopped=None):
    return scores.row("name", "title", rows, rows, stopped)


def test_recordings_are_at_no_distance_from_themselves():
    truth = _rows(0)
    row = _row(_scores(truth), truth)
    assert row.frechet_distance == pytest.approx(0.0, abs=1e-9)
    assert row.latents == {"mean_error": 0.0, "std_error": 0.0, "drift": [0.0, 0.0, 0.0]}
    assert row.never_stopped is None and row.classifier_accuracy is None


def test_a_drift_shows_in_the_last_third():
    truth = [np.zeros((9, 2)) for _ in range(4)]
    found = [np.concatenate([np.zeros((6, 2)), np.full((3, 2), 2.0)]) for _ in range(4)]
    assert generation_scores.latent_figures(found, truth)["drift"] == [0.0, 0.0, 2.0]


def test_endings_and_lengths():
    truth = [np.zeros((8, 2))] * 4
    found = [np.zeros((length, 2)) for length in (8, 1, 16, 10)]
    row = _row(_scores(truth), found, np.array([True, True, False, True]))
    assert row.never_stopped == 0.25
    assert row.stopped_at_once == 0.25
    assert row.duration_error == pytest.approx(0.04 * (0 + 7 + 8 + 2) / 4)
    assert row.seconds == pytest.approx(0.04 * 35 / 4)


def test_what_is_recognized_is_measured_of_every_row():
    truth = _rows(1)
    loudest = {"classifier_accuracy": lambda rows: max(row.max() for row in rows)}
    scores = _scores(truth, recognition=loudest)
    louder = _row(scores, [row + 1 for row in truth])
    gained = louder.classifier_accuracy - _row(scores, truth).classifier_accuracy
    assert gained == pytest.approx(1.0)


def test_sounds_shorter_than_three_frames_have_thirds():
    short = [np.ones((1, 2)), np.ones((2, 2))]
    assert generation_scores.latent_figures(short, short)["drift"] == [0.0, 0.0, 0.0]
