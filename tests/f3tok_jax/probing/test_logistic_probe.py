# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Logistic regression: its minimum, how its strength is chosen, and that it is taken to its end."""

import numpy as np
import pytest

from f3tok_jax.probing import logistic_probe
from f3tok_jax.probing import xares_probe
from tests.support import probed


def test_the_end_is_where_the_gradient_written_out_is_zero(monkeypatch):
    train, labels = probed.blobs(count=120, noise=2.0)
    train = 5.0 + train * np.linspace(1, 30, 20, dtype=np.float32)
    learnt = probed.learnt(train, labels)
    recipe = logistic_probe.Recipe(strengths=(0.01,), gradient_tolerance=1e-8)
    kept = []
    fits = logistic_probe.Recipe._fits
    monkeypatch.setattr(
        logistic_probe.Recipe, "_fits", lambda *given: kept.append(fits(*given)) or kept[-1]
    )
    answers, said = recipe.predict(learnt, train, seeds=(0, 1))
    assert answers.shape == (1, 120) and said["l2"] == 0.01
    (fit,) = kept
    x = (train - train.mean(0, dtype=np.float64)) / train.std(0, dtype=np.float64)
    logits = x @ fit.kernel + fit.bias
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    delta = (p - np.eye(5)[labels]) / 120
    np.testing.assert_allclose(x.T @ delta + 0.01 * fit.kernel, 0.0, atol=1e-7)
    np.testing.assert_allclose(delta.sum(0), 0.0, atol=1e-7)
    assert said["gradient"] == fit.gradient <= 1e-8
    np.testing.assert_array_equal(answers[0], logits.argmax(1))
    again, _ = recipe.predict(learnt, train, seeds=(7,))
    np.testing.assert_array_equal(again, answers)


def test_it_knows_what_ten_epochs_of_adam_leave():
    train, labels = probed.slow()
    test, wanted = probed.slow(seed=1)
    learnt = probed.learnt(train, labels)
    found, _ = logistic_probe.Recipe().predict(learnt, test, seeds=(0,))
    ten = xares_probe.Recipe()
    left, curve = xares_probe._train(ten, learnt, labels[None], test, (0,))
    assert np.mean(found == wanted) > 0.95 and np.mean(left == wanted) < 0.6
    assert not curve.is_at_its_end


def _speakers(num_speakers=6, count=60, seed=0):
    """Two classes that all speakers tell weakly in one place, and each strongly in his own way."""
    draw = np.random.default_rng(seed)
    speakers = np.repeat(np.arange(num_speakers), count)
    labels = draw.integers(0, 2, len(speakers)).astype(np.int32)
    signs = 2.0 * labels - 1.0
    common = 0.8 * signs[:, None] + draw.standard_normal((len(speakers), 2))
    own = 1.5 * draw.standard_normal((num_speakers, 12))[speakers] * signs[:, None]
    own = own + 2.0 * draw.standard_normal((num_speakers, 12))[speakers]
    own = own + 0.3 * draw.standard_normal(own.shape)
    return np.concatenate([common, own], 1).astype(np.float32), labels, speakers.astype(str)


def test_a_strength_chosen_on_other_speakers_is_another_than_on_other_clips():
    features, labels, speakers = _speakers()
    by_speakers, on_speakers = logistic_probe.choose(probed.learnt(features, labels, speakers))
    by_clips, on_clips = logistic_probe.choose(probed.learnt(features, labels))
    assert by_speakers >= 10 * by_clips
    # Clips of a speaker whom the probe knows promise what unknown ones do not keep.
    assert on_clips > on_speakers + 0.15


def test_no_group_is_on_both_sides_of_a_choice():
    groups = np.array(["a"] * 50 + ["b"] * 30 + [f"c{index}" for index in range(40)])
    folds = list(logistic_probe._folds(groups))
    assert len(folds) == 5 and (np.sum(folds, axis=0) == 1).all()
    for fold in folds:
        assert not set(groups[fold]) & set(groups[~fold])
        assert fold.sum() <= 50
    assert not list(logistic_probe._folds(np.array(["a", "a"])))


def test_what_cannot_be_chosen_on_other_groups_is_refused():
    features, labels = probed.blobs(count=40)
    for groups, names in ((["ada"] * 40, "got 1 that do not, such as 'ada'"), (labels, "got 5")):
        learnt = probed.learnt(features, labels, np.array(groups).astype(str))
        with pytest.raises(ValueError, match=names):
            logistic_probe.choose(learnt)


def test_a_fit_that_ends_too_early_is_refused():
    train, labels = probed.slow(count=100)
    with pytest.raises(logistic_probe.Unconverged, match="gradient of at most 1e-05, got one of"):
        recipe = logistic_probe.Recipe(max_iterations=3)
        recipe.predict(probed.learnt(train, labels), train, seeds=(0,))


def test_constant_features_tell_nothing_and_spoil_nothing():
    train, labels = probed.blobs(count=100)
    constant = np.full((100, 2), [0.1, 1e6], np.float32)
    test, wanted = probed.blobs(count=50, seed=1)
    learnt = probed.learnt(np.concatenate([train, constant], 1), labels)
    test = np.concatenate([test, constant[:50]], 1)
    found, _ = logistic_probe.Recipe().predict(learnt, test, seeds=(0,))
    assert np.mean(found == wanted) > 0.98
