# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Losses of the two players of adversarial training, least squares, and of their features."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from f3tok_jax.losses import reconstruction

Features = Sequence[Sequence[jax.Array]]


def lsgan_discriminator(
    real_logits: Sequence[jax.Array], fake_logits: Sequence[jax.Array]
) -> reconstruction.Loss:
    """Least-squares loss of the discriminators: real towards 1, generated towards 0.

    Args:
        real_logits: one array [b, ...] per discriminator.
        fake_logits: the same for the generated sound.

    Returns:
        (sum, weight): means over logits, summed over discriminators; the weight is the batch size.
    """
    _check_lists(real_logits, fake_logits)
    total = jnp.float32(0.0)
    for real, fake in zip(real_logits, fake_logits):
        total += _mean(jnp.square(real.astype(jnp.float32) - 1.0))
        total += _mean(jnp.square(fake.astype(jnp.float32)))
    return _per_example(total, fake_logits[0])


def lsgan_generator(fake_logits: Sequence[jax.Array]) -> reconstruction.Loss:
    """Least-squares loss of the generator: generated sound towards 1; weight as above."""
    _check_lists(fake_logits, fake_logits)
    total = jnp.float32(0.0)
    for fake in fake_logits:
        total += _mean(jnp.square(fake.astype(jnp.float32) - 1.0))
    return _per_example(total, fake_logits[0])


def feature_matching(real_features: Features, fake_features: Features) -> reconstruction.Loss:
    """L1 distance of the discriminators' feature maps; no gradient flows to the real side.

    Args:
        real_features: per discriminator a list of maps [b, ...]; the last one, the logits, is left
            out.
        fake_features: the same for the generated sound.

    Returns:
        (sum, weight): means over a map, summed over layers and discriminators; the weight is the
        batch size.
    """
    _check_lists(real_features, fake_features)
    total = jnp.float32(0.0)
    for real_maps, fake_maps in zip(real_features, fake_features):
        _check_lists(real_maps, fake_maps)
        for real, fake in zip(real_maps[:-1], fake_maps[:-1]):
            real = jax.lax.stop_gradient(real).astype(jnp.float32)
            total += _mean(jnp.abs(real - fake.astype(jnp.float32)))
    return _per_example(total, fake_features[0][0])


def _mean(values: jax.Array) -> jax.Array:
    return jnp.mean(values, dtype=jnp.float32)


def _per_example(mean: jax.Array, like: jax.Array) -> reconstruction.Loss:
    batch_size = jnp.float32(like.shape[0])
    return mean * batch_size, batch_size


def _check_lists(real: Sequence, fake: Sequence) -> None:
    if not len(fake) or len(real) != len(fake):
        got = f"got {len(real)} and {len(fake)}"
        raise ValueError(f"real and generated sides must be equally long and not empty, {got}")
