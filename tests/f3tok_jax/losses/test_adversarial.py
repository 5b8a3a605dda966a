# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Losses of the two players, in values by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.losses import adversarial as adversarial_losses


def test_least_squares_values():
    real = [jnp.full((4, 3), 0.5), jnp.full((4, 2, 5), 2.0)]
    fake = [jnp.full((4, 3), 0.25), jnp.full((4, 2, 5), 1.0)]
    value, weight = adversarial_losses.lsgan_discriminator(real, fake)
    assert float(value / weight) == pytest.approx(0.25 + 0.0625 + 1.0 + 1.0)
    assert weight == 4.0
    value, weight = adversarial_losses.lsgan_generator(fake)
    assert float(value / weight) == pytest.approx(0.75**2)


def test_feature_matching_leaves_out_the_logits_and_detaches_the_real_side():
    real = [
        [jnp.ones((2, 3, 4)), jnp.zeros((2, 5)), jnp.full((2, 1), 100.0)],
        [jnp.ones((2, 2)), jnp.ones(2)],
    ]
    fake = [
        [jnp.zeros((2, 3, 4)), jnp.full((2, 5), 0.5), jnp.zeros((2, 1))],
        [jnp.ones((2, 2)), jnp.zeros(2)],
    ]
    value, weight = adversarial_losses.feature_matching(real, fake)
    assert float(value / weight) == pytest.approx(1.0 + 0.5 + 0.0)
    gradients = jax.grad(lambda a, b: adversarial_losses.feature_matching(a, b)[0], argnums=(0, 1))(
        real, fake
    )
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients[0]))
    assert np.any(gradients[1][0][0]) and not np.any(gradients[1][0][2])


def test_discriminator_lists_must_match():
    with pytest.raises(ValueError, match="got 1 and 2"):
        adversarial_losses.lsgan_discriminator([jnp.ones((1, 1))], [jnp.ones((1, 1))] * 2)
    with pytest.raises(ValueError, match="not empty"):
        adversarial_losses.lsgan_generator([])
