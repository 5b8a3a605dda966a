# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Probes: against training written out in NumPy, and on features whose content is known."""

import math

import numpy as np
import pytest

from f3tok_jax.probing import classifiers

_RECIPE = classifiers.Training(num_epochs=3)


def _blobs(count=300, dim=20, classes=5, noise=0.5, seed=0):
    """Classes around centres, [count, dim], and their labels."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(100).standard_normal((classes, dim))
    labels = draw.integers(0, classes, count)
    features = centres[labels] + noise * draw.standard_normal((count, dim))
    return features.astype(np.float32), labels.astype(np.int32)


def _by_hand(train, labels, test, seed, classes, training):
    """The linear probe in float64, with the gradients of LayerNorm and Adam written out."""
    params = classifiers.initial_params(seed, train.shape[1], classes)
    params = {name: np.asarray(value, np.float64) for name, value in params.items()}
    indices, weights = classifiers.batches(seed, len(train), training=training)
    first = {name: np.zeros_like(value) for name, value in params.items()}
    second = {name: np.zeros_like(value) for name, value in params.items()}

    def normed(x):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)

    for step, (index, weight) in enumerate(zip(indices, weights)):
        x = normed(train[index].astype(np.float64))
        hidden = x * params["scale"] + params["shift"]
        logits = hidden @ params["kernel"] + params["bias"]
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        delta = (p - np.eye(classes)[labels[index]]) * weight[:, None] / weight.sum()
        into = delta @ params["kernel"].T
        grads = {
            "kernel": hidden.T @ delta,
            "bias": delta.sum(0),
            "scale": (into * x).sum(0),
            "shift": into.sum(0),
        }
        share = step / len(indices)
        rate = 1e-3 * (0.9 * 0.5 * (1 + math.cos(math.pi * share)) + 0.1)
        for name, grad in grads.items():
            first[name] = 0.9 * first[name] + 0.1 * grad
            second[name] = 0.999 * second[name] + 0.001 * grad**2
            m = first[name] / (1 - 0.9 ** (step + 1))
            v = second[name] / (1 - 0.999 ** (step + 1))
            params[name] = params[name] - rate * m / (np.sqrt(v) + 1e-8)
    hidden = normed(test.astype(np.float64)) * params["scale"] + params["shift"]
    return hidden @ params["kernel"] + params["bias"]


def test_the_linear_probe_is_the_training_written_out():
    train, labels = _blobs(noise=2.0)
    test, _ = _blobs(noise=2.0, seed=1)
    found = classifiers.linear_probe(
        train, labels, test, num_classes=5, seeds=(3, 4), training=_RECIPE
    )
    assert found.shape == (2, 300) and found.dtype == np.int32
    for row, seed in zip(found, (3, 4)):
        logits = _by_hand(train, labels, test, seed, 5, _RECIPE)
        ordered = np.sort(logits, axis=-1)
        clear = ordered[:, -1] - ordered[:, -2] > 1e-4  # float32 may decide a draw otherwise
        assert clear.sum() > 290
        np.testing.assert_array_equal(row[clear], logits.argmax(-1)[clear])
    assert (found[0] != found[1]).any()


def test_every_example_is_seen_once_per_epoch_in_another_order():
    indices, weights = classifiers.batches(0, 70, training=_RECIPE)
    assert indices.shape == weights.shape == (9, 32)
    seen = np.asarray(indices)[np.asarray(weights) > 0].reshape(3, 70)
    np.testing.assert_array_equal(np.sort(seen), np.tile(np.arange(70), (3, 1)))
    assert (seen[0] != seen[1]).any() and (seen[0] != np.arange(70)).any()
    np.testing.assert_array_equal(weights.sum(1), [32, 32, 6] * 3)


def test_probes_find_what_is_there_and_nothing_else():
    train, labels = _blobs()
    test, wanted = _blobs(seed=1)
    noise = np.random.default_rng(2).standard_normal(train.shape).astype(np.float32)
    for features, low, high in ((train, 0.98, 1.0), (noise, 0.1, 0.3)):
        linear = classifiers.linear_probe(
            features,
            labels,
            test,
            num_classes=5,
            seeds=(0,),
            training=classifiers.Training(learning_rate=0.02),
        )
        assert low <= (linear[0] == wanted).mean() <= high
        nearest = classifiers.nearest_neighbours(features, labels, test, num_classes=5)
        assert low <= (nearest == wanted).mean() <= high


def test_neighbours_vote_by_the_softmax_of_their_cosines():
    train, labels = _blobs(count=40, noise=3.0)
    test, _ = _blobs(count=15, noise=3.0, seed=1)
    found = classifiers.nearest_neighbours(
        7.0 * train, labels, test, num_classes=5, num_neighbours=6, temperature=0.2
    )
    for query, prediction in zip(test, found):
        cosines = [float(x @ query) / math.sqrt(float(x @ x) * float(query @ query)) for x in train]
        nearest = sorted(range(40), key=lambda i: -cosines[i])[:6]
        votes = np.zeros(5)
        for i in nearest:
            votes[labels[i]] += math.exp(cosines[i] / 0.2)
        assert prediction == votes.argmax()
    few = classifiers.nearest_neighbours(train[:3], labels[:3], test, num_classes=5)
    assert set(few) <= set(labels[:3])


def test_pooling():
    frames = np.arange(24, dtype=np.float32).reshape(8, 3)
    np.testing.assert_allclose(classifiers.pool(frames, "mean"), frames.mean(0))
    np.testing.assert_allclose(
        classifiers.pool(frames, "mean_std"), [*frames.mean(0), *frames.std(0)]
    )
    thirds = classifiers.pool(frames[:6], "thirds")
    np.testing.assert_allclose(thirds, frames[:6].reshape(3, 2, 3).mean(1).ravel())
    np.testing.assert_allclose(classifiers.pool(frames[:1], "thirds"), np.tile(frames[0], 3))
    with pytest.raises(ValueError, match="pooling must be one of"):
        classifiers.pool(frames, "max")


def test_what_is_no_probe_is_refused():
    train, labels = _blobs(count=10)
    for arrays, message in (
        ((train, labels[:9], train), "9 labels, 10 examples"),
        ((train, labels, train[:, :3]), "features"),
        ((train, labels, train[:0]), "0 to test"),
        ((train * np.nan, labels, train), "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            classifiers.linear_probe(*arrays, num_classes=5, seeds=(0,))
        with pytest.raises(ValueError, match=message):
            classifiers.nearest_neighbours(*arrays, num_classes=5)
    with pytest.raises(ValueError, match="learning_rate above 0"):
        classifiers.Training(num_epochs=0)
