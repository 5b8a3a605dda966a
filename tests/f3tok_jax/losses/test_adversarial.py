# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Losses of the two players, in values by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.losses import adversarial as adversarial_losses

_discriminators = functools.partial(adversarial_losses.discriminator_loss, game="least_squares")
_generator = functools.partial(adversarial_losses.generator_loss, game="least_squares")


def _whole(maps):
    return [[jnp.ones(x.shape[:3], bool) for x in layers] for layers in maps]


def test_least_squares_values():
    real = [jnp.full((1, 3, 4), 0.5), jnp.full((1, 2, 5, 4), 2.0)]
    fake = [jnp.full((1, 3, 4), 0.25), jnp.full((1, 2, 5, 4), 1.0)]
    valid, ones = [jnp.ones(x.shape, bool) for x in real], jnp.ones(4)
    value, weight = _discriminators(real, fake, valid, ones)
    assert float(value / weight) == pytest.approx(0.25 + 0.0625 + 1.0 + 1.0)
    assert weight == 4.0
    value, weight = _generator(fake, valid, ones)
    assert float(value / weight) == pytest.approx(0.75**2)


def test_hinge_values():
    rng = np.random.default_rng(0)
    real, fake = ([rng.normal(0, 2, (2, 3, 4)), rng.normal(0, 2, (1, 5, 4))] for _ in range(2))
    valid, ones = [np.ones(x.shape, bool) for x in real], jnp.ones(4)
    # The mean over logits, summed over the entries of a stack.
    mean = lambda side, rule: sum(rule(x).mean(axis=(1, 2)).sum() for x in side)
    above = mean(real, lambda x: np.maximum(1 - x, 0))
    value, weight = _discriminators(real, fake, valid, ones, game="hinge")
    expected = above + mean(fake, lambda x: np.maximum(1 + x, 0))
    assert float(value / weight) == pytest.approx(expected, rel=1e-6)
    value, weight = _generator(fake, valid, ones, game="hinge")
    expected = mean(fake, lambda x: np.maximum(1 - x, 0))
    assert float(value / weight) == pytest.approx(expected, rel=1e-6)


def test_by_hinge_who_is_told_apart_teaches_nothing_more():
    logits, valid, ones = (
        [jnp.array([[[-1.5, 0.5, 2.0]]])],
        [jnp.ones((1, 1, 3), bool)],
        jnp.ones(3),
    )
    gradient = jax.grad(lambda *both: _discriminators(*both, valid, ones, game="hinge")[0], (0, 1))
    of_real, of_fake = gradient(logits, logits)
    np.testing.assert_array_equal(of_real[0][0, 0], [-1, -1, 0])
    np.testing.assert_array_equal(of_fake[0][0, 0], [0, 1, 1])
    of_fake = jax.grad(lambda fake: _generator(fake, valid, ones, game="hinge")[0])(logits)
    np.testing.assert_array_equal(of_fake[0][0, 0], [-1, -1, 0])


def test_only_valid_places_are_judged_and_examples_weigh_as_told():
    # Of the first example one place is valid, of the second two, of the third none.
    by_example = lambda *rows: jnp.array(rows).T[None]
    valid = [by_example([True, False, False], [True, True, False], [False] * 3)]
    real = [by_example([1.5, 9, 9], [1.0, 2.0, 9], [9, 9, 9])]
    fake = [by_example([0.5, 7, 7], [0.0, 1.0, 7], [7, 7, 7])]
    weights = jnp.array([0.5, 1.0, 0.0])
    value, weight = _discriminators(real, fake, valid, weights)
    assert weight == 1.5
    assert float(value) == pytest.approx(0.5 * (0.25 + 0.25) + (0.5 + 0.5))
    value, _ = _generator(fake, valid, weights)
    assert float(value) == pytest.approx(0.5 * 0.25 + 0.5)
    real_map, fake_map = (jnp.where(valid[0], x[0], 0.0)[..., None] for x in (real, fake))
    maps = ([[real_map, real[0]]], [[fake_map, fake[0]]], [[valid[0], valid[0]]])
    value, _ = adversarial_losses.feature_matching(*maps, [2.0], weights)
    assert float(value) == pytest.approx(2.0 * (0.5 * 1.0 + 1.0))


def test_every_entry_of_a_stack_is_a_map_of_its_own():
    """However many places it has."""
    valid = jnp.array([[True, True, True], [True, False, False]])[..., None]
    rise = jnp.where(valid, jnp.array([[1.0], [10.0]])[..., None], 0.0)[..., None]
    maps = ([[0.0 * rise, valid]], [[rise, valid]], [[valid, valid]])
    value, _ = adversarial_losses.feature_matching(*maps, [0.5], jnp.ones(1))
    assert float(value) == pytest.approx(0.5 * (1.0 + 10.0))


def test_feature_matching_leaves_out_the_logits_and_detaches_the_real_side():
    real = [
        [jnp.ones((1, 3, 2, 4)), jnp.zeros((1, 5, 2, 1)), jnp.full((1, 1, 2), 100.0)],
        [jnp.ones((1, 2, 2, 1)), jnp.ones((1, 1, 2))],
    ]
    fake = [
        [jnp.zeros((1, 3, 2, 4)), jnp.full((1, 5, 2, 1), 0.5), jnp.zeros((1, 1, 2))],
        [jnp.ones((1, 2, 2, 1)), jnp.zeros((1, 1, 2))],
    ]

    def loss(real, fake):
        valid = _whole(real)
        return adversarial_losses.feature_matching(real, fake, valid, [1.0, 1.0], jnp.ones(2))

    value, weight = loss(real, fake)
    assert float(value / weight) == pytest.approx(1.0 + 0.5 + 0.0)
    gradients = jax.grad(lambda a, b: loss(a, b)[0], argnums=(0, 1))(real, fake)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients[0]))
    assert np.any(gradients[1][0][0]) and not np.any(gradients[1][0][2])


def test_discriminator_lists_must_match():
    one, valid = jnp.ones((1, 1, 1)), jnp.ones((1, 1, 1), bool)
    with pytest.raises(ValueError, match="got 1 and 2 and 1"):
        _discriminators([one], [one] * 2, [valid], jnp.ones(1))
    with pytest.raises(ValueError, match="not empty"):
        _generator([], [], jnp.ones(1))
    with pytest.raises(ValueError, match="one of .*'hinge'.*, got 'wasserstein'"):
        _generator([one], [valid], jnp.ones(1), game="wasserstein")
