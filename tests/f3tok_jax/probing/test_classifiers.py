# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What probes have in common: what they learn from, and nearest neighbours."""

import math

import numpy as np
import pytest

from f3tok_jax.probing import classifiers
from f3tok_jax.probing import logistic_probe
from f3tok_jax.probing import xares_probe
from tests.support import probed


def test_neighbours_vote_by_the_softmax_of_their_cosines():
    train, labels = probed.blobs(count=40, noise=3.0)
    test, _ = probed.blobs(count=15, noise=3.0, seed=1)
    learnt = probed.learnt(7.0 * train, labels)
    found = classifiers.nearest_neighbours(learnt, test, num_neighbours=6, temperature=0.2)
    for query, prediction in zip(test, found):
        cosines = [float(x @ query) / math.sqrt(float(x @ x) * float(query @ query)) for x in train]
        nearest = sorted(range(40), key=lambda i: -cosines[i])[:6]
        votes = np.zeros(5)
        for i in nearest:
            votes[labels[i]] += math.exp(cosines[i] / 0.2)
        assert prediction == votes.argmax()
    few = classifiers.nearest_neighbours(probed.learnt(train[:3], labels[:3]), test)
    assert set(few) <= set(labels[:3])


def test_every_probe_finds_what_is_there_and_nothing_else():
    train, labels = probed.blobs()
    test, wanted = probed.blobs(seed=1)
    noise = np.random.default_rng(2).standard_normal(train.shape).astype(np.float32)
    recipes = logistic_probe.Recipe(), xares_probe.Recipe(num_epochs=160)
    for features, low, high in ((train, 0.98, 1.0), (noise, 0.1, 0.3)):
        learnt = probed.learnt(features, labels)
        for recipe in recipes:
            linear, fit = recipe.predict(learnt, test, seeds=(0,))
            assert low <= np.mean(linear == wanted) <= high
            shuffled = recipe.predict_shuffled(learnt, test, seeds=range(4), fit=fit)
            # Four trainings, whose answers for 300 examples go together.
            assert shuffled.shape == (4, 300) and abs(np.mean(shuffled == wanted) - 0.2) < 0.12
        nearest = classifiers.nearest_neighbours(learnt, test)
        assert low <= (nearest == wanted).mean() <= high


def test_what_is_no_probe_is_refused():
    train, labels = probed.blobs(count=10)
    for arrays, message in (
        ((train, labels[:9]), "9 classes and 10 groups"),
        ((train[:0], labels[:0]), "at least one example"),
        ((train * np.nan, labels), "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            probed.learnt(*arrays)
    learnt = probed.learnt(train, labels)
    for test, message in (
        (train[:, :3], "same shape"),
        (train[:0], "same shape"),
        (train * np.inf, "finite"),
    ):
        for recipe in (logistic_probe.Recipe(), xares_probe.Recipe()):
            with pytest.raises(ValueError, match=message):
                recipe.predict(learnt, test, seeds=(0,))
        with pytest.raises(ValueError, match=message):
            classifiers.nearest_neighbours(learnt, test)
