# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Losses of the two players, in values by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.losses import adversarial as adversarial_losses


def _whole(maps):
    return jax.tree.map(lambda x: jnp.ones(x.shape[:2], bool), maps)


def test_least_squares_values():
    real = [jnp.full((4, 3, 1), 0.5), jnp.full((4, 10, 1), 2.0)]
    fake = [jnp.full((4, 3, 1), 0.25), jnp.full((4, 10, 1), 1.0)]
    valid, ones = _whole(real), jnp.ones(4)
    value, weight = adversarial_losses.lsgan_discriminator(real, fake, valid, ones)
    assert float(value / weight) == pytest.approx(0.25 + 0.0625 + 1.0 + 1.0)
    assert weight == 4.0
    value, weight = adversarial_losses.lsgan_generator(fake, valid, ones)
    assert float(value / weight) == pytest.approx(0.75**2)


def test_only_valid_positions_are_judged_and_examples_weigh_as_told():
    # Of the first example one position is valid, of the second two, of the third none.
    valid = [jnp.array([[True, False, False], [True, True, False], [False] * 3])]
    real = [jnp.array([[1.5, 9, 9], [1.0, 2.0, 9], [9, 9, 9]])[..., None]]
    fake = [jnp.array([[0.5, 7, 7], [0.0, 1.0, 7], [7, 7, 7]])[..., None]]
    weights = jnp.array([0.5, 1.0, 0.0])
    value, weight = adversarial_losses.lsgan_discriminator(real, fake, valid, weights)
    assert weight == 1.5
    assert float(value) == pytest.approx(0.5 * (0.25 + 0.25) + (0.5 + 0.5))
    value, _ = adversarial_losses.lsgan_generator(fake, valid, weights)
    assert float(value) == pytest.approx(0.5 * 0.25 + 0.5)
    maps = ([[real[0], real[0]]], [[fake[0], fake[0]]], [[valid[0], valid[0]]])
    value, _ = adversarial_losses.feature_matching(*maps, [2.0], weights)
    assert float(value) == pytest.approx(2.0 * (0.5 * 1.0 + 1.0))


def test_feature_matching_leaves_out_the_logits_and_detaches_the_real_side():
    real = [
        [jnp.ones((2, 3, 4)), jnp.zeros((2, 5, 1)), jnp.full((2, 1, 1), 100.0)],
        [jnp.ones((2, 2, 1)), jnp.ones((2, 1, 1))],
    ]
    fake = [
        [jnp.zeros((2, 3, 4)), jnp.full((2, 5, 1), 0.5), jnp.zeros((2, 1, 1))],
        [jnp.ones((2, 2, 1)), jnp.zeros((2, 1, 1))],
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
    one, valid = jnp.ones((1, 1, 1)), jnp.ones((1, 1), bool)
    with pytest.raises(ValueError, match="got 1 and 2 and 1"):
        adversarial_losses.lsgan_discriminator([one], [one] * 2, [valid], jnp.ones(1))
    with pytest.raises(ValueError, match="not empty"):
        adversarial_losses.lsgan_generator([], [], jnp.ones(1))
