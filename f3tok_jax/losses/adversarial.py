# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Losses of the two players of adversarial training, in either game, and of their features.

Least squares: real towards 1 and generated towards 0 (arXiv 1611.04076; DAC). Hinge: real above 1 and
generated below -1, beyond which nothing more is asked (arXiv 1705.02894). The generator is asked for what
real sound is said to be; by hinge as in EnCodec and X-Codec, while the original asks it for more and more.

Maps [stack, *places, b, c] hold one map per entry of a stack of discriminators, or of bands of one,
and come, as logits [stack, *places, b] do, with their valid places, bool [stack, *places, b]. An
example's loss is the mean over its valid places, map by map, so that a map's length and an example's
padding do not count. Examples are added with `example_weights` [b], 0 for one without sound.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from f3tok_jax.losses import reconstruction

Maps = Sequence[Sequence[jax.Array]]  # per stack of discriminators
GAMES = ("least_squares", "hinge")


def discriminator_loss(
    real_logits: Sequence[jax.Array],
    fake_logits: Sequence[jax.Array],
    valid: Sequence[jax.Array],
    example_weights: jax.Array,
    *,
    game: str,
) -> reconstruction.Loss:
    """The discriminators' loss.

    Args:
        real_logits: one array [stack, *places, b] per stack.
        fake_logits: the same for the generated sound.
        valid: of the same shapes.
        example_weights: [b].
        game: one of GAMES.

    Returns:
        (sum, weight): means over logits, summed over discriminators and over weighted examples; the
        weight is that of all examples.
    """
    _check_lists(real_logits, fake_logits, valid)
    of_real, of_fake = _rules(game)
    each = [
        _logits_means(of_real(real.astype(jnp.float32)), where)
        + _logits_means(of_fake(fake.astype(jnp.float32)), where)
        for real, fake, where in zip(real_logits, fake_logits, valid)
    ]
    return _weighted(each, example_weights)


def generator_loss(
    fake_logits: Sequence[jax.Array],
    valid: Sequence[jax.Array],
    example_weights: jax.Array,
    *,
    game: str,
) -> reconstruction.Loss:
    """The generator's loss, of what they say of generated sound; arguments as above."""
    _check_lists(fake_logits, valid)
    of_real, _ = _rules(game)
    each = [
        _logits_means(of_real(fake.astype(jnp.float32)), where)
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
        real_maps: per stack a list of maps, zeros where not valid; the last, the logits, is left
            out.
        fake_maps: the same for the generated sound.
        valid: [stack, *places, b], per stack and map.
        map_weights: per stack, what each map of an entry weighs.
        example_weights: [b].

    Returns:
        (sum, weight): means over a map, summed over layers and entries of stacks with
        `map_weights`, and over weighted examples; the weight is that of all examples.
    """
    _check_lists(real_maps, fake_maps, valid, map_weights)
    each = []
    for real_layers, fake_layers, wheres, weight in zip(real_maps, fake_maps, valid, map_weights):
        _check_lists(real_layers, fake_layers, wheres)
        for real, fake, where in zip(real_layers[:-1], fake_layers[:-1], wheres[:-1]):
            real = jax.lax.stop_gradient(real).astype(jnp.float32)
            # Where not valid both hold zeros: the difference needs no mask.
            difference = jnp.abs(real - fake.astype(jnp.float32)).sum(axis=-1)
            each.append(weight / real.shape[-1] * _means(difference, where))
    return _weighted(each, example_weights)


def _rules(game: str) -> tuple[Callable[[jax.Array], jax.Array], ...]:
    """What each of the logits adds: those of real sound, and those of generated sound."""
    if game == "least_squares":
        return (lambda x: jnp.square(x - 1.0)), jnp.square
    if game == "hinge":
        return (lambda x: jax.nn.relu(1.0 - x)), (lambda x: jax.nn.relu(1.0 + x))
    raise ValueError(f"the game must be one of {GAMES}, got {game!r}")


def _logits_means(values: jax.Array, valid: jax.Array) -> jax.Array:
    return _means(jnp.where(valid, values, 0.0), valid)


def _means(values: jax.Array, valid: jax.Array) -> jax.Array:
    """Of each example of [stack, *places, b], over its valid places, summed over the stack: [b]; of
    an entry without any 0. Elsewhere `values` are zeros."""
    places = tuple(range(1, values.ndim - 1))
    count = jnp.sum(valid, axis=places, dtype=jnp.float32)
    return jnp.sum(jnp.sum(values, axis=places) / jnp.maximum(count, 1.0), axis=0)


def _weighted(each: Sequence[jax.Array], example_weights: jax.Array) -> reconstruction.Loss:
    return jnp.sum(sum(each) * example_weights), jnp.sum(example_weights)


def _check_lists(*sides: Sequence) -> None:
    if not len(sides[0]) or len({len(side) for side in sides}) > 1:
        got = " and ".join(str(len(side)) for side in sides)
        raise ValueError(f"all sides must be equally long and not empty, got {got}")
