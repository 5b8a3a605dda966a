# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Losses of the two players of adversarial training, least squares, and of their features.

Every map and all logits [b, positions, c] come with their valid positions, bool [b, positions]. An
example's loss is the mean over its valid positions, map by map, so that a map's length and an
example's padding do not count. Examples are added with `example_weights` [b], 0 for one without
sound.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from f3tok_jax.losses import reconstruction

Maps = Sequence[Sequence[jax.Array]]  # per discriminator


def lsgan_discriminator(
    real_logits: Sequence[jax.Array],
    fake_logits: Sequence[jax.Array],
    valid: Sequence[jax.Array],
    example_weights: jax.Array,
) -> reconstruction.Loss:
    """Least-squares loss of the discriminators: real towards 1, generated towards 0.

    Args:
        real_logits: one array [b, positions, 1] per discriminator.
        fake_logits: the same for the generated sound.
        valid: [b, positions], per discriminator.
        example_weights: [b].

    Returns:
        (sum, weight): means over logits, summed over discriminators and over weighted examples; the
        weight is that of all examples.
    """
    _check_lists(real_logits, fake_logits, valid)
    each = [
        _means(jnp.square(real.astype(jnp.float32) - 1.0), where)
        + _means(jnp.square(fake.astype(jnp.float32)), where)
        for real, fake, where in zip(real_logits, fake_logits, valid)
    ]
    return _weighted(each, example_weights)


def lsgan_generator(
    fake_logits: Sequence[jax.Array], valid: Sequence[jax.Array], example_weights: jax.Array
) -> reconstruction.Loss:
    """Least-squares loss of the generator: generated sound towards 1; arguments as above."""
    _check_lists(fake_logits, valid)
    each = [
        _means(jnp.square(fake.astype(jnp.float32) - 1.0), where)
        for fake, where in zip(fake_logits, valid)
    ]
    return _weighted(each, example_weights)


def feature_matching(
    real_maps: Maps,
    fake_maps: Maps,
    valid: Maps,
    map_weights: Sequence[float],
    example_weights: jax.Array,
) -> reconstruction.Loss:
    """L1 distance of the discriminators' feature maps; no gradient flows to the real side.

    Args:
        real_maps: per discriminator a list of maps; the last one, the logits, is left out.
        fake_maps: the same for the generated sound.
        valid: [b, positions], per discriminator and map.
        map_weights: per discriminator, what each of its maps weighs.
        example_weights: [b].

    Returns:
        (sum, weight): means over a map, summed over layers and discriminators with `map_weights`,
        and over weighted examples; the weight is that of all examples.
    """
    _check_lists(real_maps, fake_maps, valid, map_weights)
    each = []
    for real_layers, fake_layers, wheres, weight in zip(real_maps, fake_maps, valid, map_weights):
        _check_lists(real_layers, fake_layers, wheres)
        for real, fake, where in zip(real_layers[:-1], fake_layers[:-1], wheres[:-1]):
            real = jax.lax.stop_gradient(real).astype(jnp.float32)
            each.append(weight * _means(jnp.abs(real - fake.astype(jnp.float32)), where))
    return _weighted(each, example_weights)


def _means(values: jax.Array, valid: jax.Array) -> jax.Array:
    """Of each example of [b, positions, c], over its valid positions: [b]; 0 where it has none."""
    total = jnp.sum(jnp.where(valid[..., None], values, 0.0), axis=(1, 2), dtype=jnp.float32)
    count = jnp.sum(valid, axis=1, dtype=jnp.float32) * values.shape[2]
    return total / jnp.maximum(count, 1.0)


def _weighted(each: Sequence[jax.Array], example_weights: jax.Array) -> reconstruction.Loss:
    return jnp.sum(sum(each) * example_weights), jnp.sum(example_weights)


def _check_lists(*sides: Sequence) -> None:
    if not len(sides[0]) or len({len(side) for side in sides}) > 1:
        got = " and ".join(str(len(side)) for side in sides)
        raise ValueError(f"all sides must be equally long and not empty, got {got}")
