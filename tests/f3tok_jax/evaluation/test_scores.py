# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Means, errors and latent moments against NumPy."""

import types

import numpy as np
import pytest

from f3tok_jax.evaluation import distributions
from f3tok_jax.evaluation import metrics
from f3tok_jax.evaluation import scores


def test_mean_error_and_reasons():
    board = scores.Scores()
    for value in (1.0, 2.0, 6.0):
        board.add("row", {"stoi": value}, {})
    board.add("row", {}, {"stoi": "too short"})
    summary = board.summary("row", "stoi")
    assert summary.mean == 3.0 and summary.count == 3
    assert summary.standard_error == pytest.approx(np.std([1, 2, 6], ddof=1) / np.sqrt(3))
    assert summary.undefined == {"too short": 1}


def test_no_value_is_not_a_number():
    board = scores.Scores()
    board.add("row", {"si_sdr": 4.0}, {"stoi": "silent"})
    assert board.summary("row", "stoi").mean is None
    assert board.summary("row", "si_sdr").standard_error is None


def test_latent_moments_equal_numpy():
    frames = np.random.default_rng(0).normal(size=(50, 3)) * [1.0, 2.0, 0.0] + [0.0, 1.0, 5.0]
    moments = distributions.Moments(3)
    moments.add(frames[:20])
    moments.add(frames[20:])
    sounds = np.stack([frames[:20].mean(axis=0), frames[20:].mean(axis=0)])
    means = distributions.moments_of(sounds)
    summary = scores.latent_statistics(moments, means, rate=25.0)
    np.testing.assert_allclose(summary.channel_mean, frames.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(summary.channel_rms, np.sqrt((frames**2).mean(axis=0)))
    expected = metrics.effective_rank(np.cov(frames.T, bias=True))
    assert summary.effective_rank == pytest.approx(expected, abs=1e-3)
    assert summary.num_frames == 50
    assert summary.drift_rms == pytest.approx(np.sqrt(np.mean(sounds**2)))
    singular = np.linalg.svd(frames - frames.mean(axis=0), compute_uv=False) ** 2
    np.testing.assert_allclose(summary.spectrum, singular / singular.sum(), atol=1e-12)


def test_text_table_says_all(monkeypatch):
    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: None)
    board = scores.Scores()
    board.add("a", dict.fromkeys(metrics.METRICS, 1.0), {})
    board.add("a", {"mel_distance": 2.0}, {"si_sdr": "silent"})
    found = types.SimpleNamespace(
        num_examples=2,
        missing=metrics.missing(),
        metrics=scores.columns(),
        rows=[board.scored("a", "row a", figures=metrics.METRICS)],
    )
    text = scores.format_table(found)
    head, row, why = text.split("\n")
    assert len(head) == len(row) and row.startswith("row a")
    assert "mel distance (lower)" in head and "SI-SDR dB (higher)" in head and "PESQ" not in head
    assert "1.500 +- 0.500" in row and "1.000 [1]" in row
    assert why == "SI-SDR has no value for up to 1 of 2 examples: silent"
    assert set(found.missing) == {"stoi", "estoi", "pesq", "visqol"}
