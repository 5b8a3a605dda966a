# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""X-ARES's probe: against training written out in NumPy, its curve, and attentive pooling."""

import dataclasses
import math

import numpy as np
import pytest

from f3tok_jax.probing import classifiers
from f3tok_jax.probing import xares_probe
from tests.support import probed

_RECIPE = xares_probe.Recipe(num_epochs=3)


def _by_hand(train, labels, test, seed, classes, recipe):
    """The linear probe in float64, with the gradients of LayerNorm and Adam written out."""
    params = xares_probe.initial_params(seed, train.shape[1:], classes)
    params = {name: np.asarray(value, np.float64) for name, value in params.items()}
    indices, weights = xares_probe.batches(seed, len(train), recipe=recipe)
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
    train, labels = probed.blobs(noise=2.0)
    test, _ = probed.blobs(noise=2.0, seed=1)
    # How it trains, whether or not that is enough.
    found = _RECIPE.predict_shuffled(_ordered(train, labels), test, seeds=(3, 4), fit={})
    assert found.shape == (2, 300) and found.dtype == np.int32
    for row, seed in zip(found, (3, 4)):
        logits = _by_hand(train, labels, test, seed, 5, _RECIPE)
        ordered = np.sort(logits, axis=-1)
        clear = ordered[:, -1] - ordered[:, -2] > 1e-4  # float32 may decide a draw otherwise
        assert clear.sum() > 290
        np.testing.assert_array_equal(row[clear], logits.argmax(-1)[clear])
    assert (found[0] != found[1]).any()


def _ordered(train, labels):
    """What is learnt, with labels that stay in their order."""

    class Ordered(classifiers.Learnt):
        def shuffled(self, seed):
            return self.classes

    return Ordered(train, labels, 5, np.arange(len(labels)).astype(str))


def test_every_example_is_seen_once_per_epoch_in_another_order():
    indices, weights = xares_probe.batches(0, 70, recipe=_RECIPE)
    assert indices.shape == weights.shape == (9, 32)
    seen = np.asarray(indices)[np.asarray(weights) > 0].reshape(3, 70)
    np.testing.assert_array_equal(np.sort(seen), np.tile(np.arange(70), (3, 1)))
    assert (seen[0] != seen[1]).any() and (seen[0] != np.arange(70)).any()
    np.testing.assert_array_equal(weights.sum(1), [32, 32, 6] * 3)


def test_an_undertrained_probe_is_refused_with_as_many_epochs_as_suffice():
    train, labels = probed.slow()
    learnt = probed.learnt(train, labels)
    recipe = xares_probe.Recipe(learning_rate=0.004)
    test, wanted = probed.slow(seed=1)
    with pytest.raises(
        xares_probe.Undertrained, match="got that of one feature, of 10 epochs"
    ) as told:
        recipe.predict(learnt, test, seeds=(0,))
    needed = told.value.needed
    assert f"give --num_epochs={needed}, which suffices" in str(told.value) and needed >= 40
    found, fit = dataclasses.replace(recipe, num_epochs=needed).predict(learnt, test, seeds=(0,))
    assert fit["num_epochs"] == needed and np.mean(found == wanted) > 0.9
    # Half of them do not, so that it is not only the largest number that is tried.
    with pytest.raises(xares_probe.Undertrained) as told:
        dataclasses.replace(recipe, num_epochs=needed // 2).predict(learnt, test, seeds=(0,))
    assert told.value.needed == needed


def test_a_probe_that_nothing_teaches_comes_to_an_end():
    draw = np.random.default_rng(0)
    noise = draw.standard_normal((400, 8)).astype(np.float32)
    learnt = probed.learnt(noise, draw.integers(0, 4, 400))
    _, fit = xares_probe.Recipe(num_epochs=160).predict(learnt, noise[:10], seeds=(0,))
    assert fit["known"] < 0.5 and fit["late_share"] < 0.05


def test_attention_finds_the_part_that_tells():
    draw = np.random.default_rng(0)

    def clips(count):
        classes = draw.integers(0, 4, count)
        frames = draw.standard_normal((count, 16, 8)).astype(np.float32)
        frames[..., :5] *= 2.0
        frames[..., 4] = 0.0
        where = draw.integers(0, 16, count)
        frames[np.arange(count), where] = 0.0
        frames[np.arange(count), where, classes] = 1.0
        frames[np.arange(count), where, 4] = 8.0  # says which frame it is
        return frames, classes

    (train, labels), (test, wanted) = clips(600), clips(300)
    recipe = xares_probe.Recipe(num_epochs=60, learning_rate=0.02)
    attentive, _ = recipe.predict(probed.learnt(train, labels), test, seeds=(0,))
    means = recipe.predict_shuffled(
        _ordered(train.mean(1), labels), test.mean(1), seeds=(0,), fit={}
    )
    assert np.mean(attentive == wanted) > 0.9 > 0.6 > np.mean(means == wanted)


def test_a_recipe_that_trains_nothing_is_refused():
    with pytest.raises(ValueError, match="learning_rate above 0"):
        xares_probe.Recipe(num_epochs=0)
