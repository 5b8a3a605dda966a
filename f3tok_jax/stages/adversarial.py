# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The game of the autoencoder and its discriminators: what they hear, and both players' gradients."""

from collections.abc import Callable, Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from f3tok_jax.losses import adversarial as adversarial_losses
from f3tok_jax.models.discriminators import discriminators as discriminators_lib

Metrics = dict[str, tuple[jax.Array, jax.Array]]

BALANCES = ("weights", "gradients")
LOSSES = ("adversarial", "feature_matching")  # of the generator
GAME = "game"  # both of them, weighted, where they are not told apart
NORM = "sound_gradient/{loss}"


def validate(config: ml_collections.ConfigDict, source: str) -> None:
    """Refuses a kind, a balance, a game or a floor that there cannot be."""
    losses = config.losses
    discriminators_lib.Discriminators(**config.discriminators).check_kind()
    for name, allowed in (("balance", BALANCES), ("game", adversarial_losses.GAMES)):
        if losses[name] not in allowed:
            raise ValueError(
                f"config.losses.{name} must be one of {allowed}, got {losses[name]!r} ({source})"
            )
    if not losses.mel_floor > 0:
        raise ValueError(
            f"config.losses.mel_floor must be greater than 0, got {losses.mel_floor} ({source})"
        )


def with_crops(
    batch: Mapping[str, jax.Array], key: jax.Array, losses: ml_collections.ConfigDict
) -> dict[str, jax.Array]:
    """The batch with "crop_start" and "crop_samples", before it is cut into microbatches: what is
    heard of an example does not depend on their number."""
    length = losses.adversarial_crop or batch["mask"].shape[1]
    start, heard = crops(key, batch["mask"], length)
    return {**batch, "crop_start": start, "crop_samples": heard}


def crops(key: jax.Array, mask: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
    """Where each example's crop of `length` samples begins, and how many of them are valid.

    A crop lies in the sound wherever that is long enough; a shorter sound is heard whole.

    Args:
        key: of the step; every example draws its own place.
        mask: [b, n], valid samples, which come first in every example.
        length: at most n.

    Returns:
        [b] each, int32.
    """
    valid = jnp.sum(mask, axis=1, dtype=jnp.int32)
    last = jnp.maximum(valid - length, 0)
    start = jax.random.randint(key, valid.shape, 0, last + 1)
    return start, jnp.minimum(valid, length)


def gradients(
    params: Any,
    waveform: jax.Array,
    reconstruction: jax.Array,
    starts: jax.Array,
    num_samples: jax.Array,
    total_samples: jax.Array,
    *,
    discriminators: discriminators_lib.Discriminators,
    losses: ml_collections.ConfigDict,
) -> tuple[dict[str, jax.Array], Any, Metrics]:
    """Both players' adversarial gradients from one pass of either sound through the discriminators.

    Args:
        params: of the discriminators.
        waveform: [b, n].
        reconstruction: [b, n].
        starts: [b], of the crops.
        num_samples: [b], valid samples of each crop, which an example weighs.
        total_samples: of all crops of the step, over which losses are means.
        discriminators: the module.
        losses: config.losses.

    Returns:
        Gradients with respect to `reconstruction` by name: of LOSSES, or of GAME, their weighted
        sum, for one pull-back through the discriminators instead of two; the gradient of the
        discriminators' loss with respect to `params`; and metrics.
    """
    length = losses.adversarial_crop or waveform.shape[1]
    # A full crop weighs 1: samples weigh as much in a long sound as in a short one.
    example_weights = num_samples.astype(jnp.float32) / length
    num_examples = total_samples.astype(jnp.float32) / length

    def features_of(p, sound):
        return discriminators.apply({"params": p}, sound, num_samples)

    cut = functools.partial(_cut, starts=starts, length=length)
    real_sound, fake_sound = cut(waveform), cut(reconstruction)
    real, pull_back_real, valid = jax.vjp(
        lambda p: features_of(p, real_sound), params, has_aux=True
    )
    fake, pull_back_fake, _ = jax.vjp(features_of, params, fake_sound, has_aux=True)
    of_logits = [layers[-1] for layers in valid]

    def generator_loss(fake, chosen):
        logits = [maps[-1] for maps in fake]
        terms = {
            "adversarial": lambda: adversarial_losses.generator_loss(
                logits, of_logits, example_weights, game=losses.game
            ),
            "feature_matching": lambda: adversarial_losses.feature_matching(
                real, fake, valid, discriminators.map_weights, example_weights
            ),
        }
        metrics = {name: terms[name]() for name in chosen}
        total = sum(weight * metrics[name][0] for name, weight in chosen.items())
        return total / num_examples, metrics

    def discriminator_loss(real, fake):
        logits = [[maps[-1] for maps in sound] for sound in (real, fake)]
        total, weight = adversarial_losses.discriminator_loss(
            *logits, of_logits, example_weights, game=losses.game
        )
        return total / num_examples, {"discriminator": (total, weight)}

    metrics, output_gradients = {}, {}
    for name, chosen in _pulled_back(losses).items():
        pull, more = jax.grad(functools.partial(generator_loss, chosen=chosen), has_aux=True)(fake)
        metrics |= more
        # What the discriminators would have got from it is dead code.
        output_gradients[name] = _put_back(
            pull_back_fake(pull)[1], starts=starts, shape=waveform.shape
        )
    pulls, more = jax.grad(discriminator_loss, argnums=(0, 1), has_aux=True)(real, fake)
    (of_real,), (of_fake, _) = pull_back_real(pulls[0]), pull_back_fake(pulls[1])
    return output_gradients, jax.tree.map(jnp.add, of_real, of_fake), metrics | more


def once(has_joined: jax.Array | bool, play: Callable[..., Any], *args: Any) -> Any:
    """What `play` returns once the discriminators have joined; before that zeros, at no cost.

    Where they play from the first step on, nothing branches: in a branch, XLA for CPUs leaves the
    gradients of convolutions to plain loops (those of DAC's geometry: 5.4 s instead of 1.0).
    """
    if has_joined is True:
        return play(*args)
    shapes = jax.eval_shape(play, *args)
    zeros = lambda *_: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.cond(has_joined, play, zeros, *args)


def meet(
    gradients_by_loss: Mapping[str, jax.Array], losses: ml_collections.ConfigDict, accumulate: int
) -> tuple[jax.Array, Metrics]:
    """The generator's gradient at its output, from those of its losses, and their squared norms.

    "weights": the sum of the losses' gradients times their weights (DAC). "gradients": every loss
    has the share of a total norm of 1 that its weight has in all weights, whatever the size of its
    own gradient (EnCodec's balancer). EnCodec averages norms over steps (0.999); here they are the
    microbatch's own, which resumes without a state. Until the discriminators join, the others share
    their part.

    Args:
        gradients_by_loss: [b, n], unweighted; GAME's is weighted.
        losses: config.losses.
        accumulate: microbatches per step; with "gradients" the squares of their norms add up to 1.

    Returns:
        [b, n], and by NORM the squared norm of each, with weight 1 where it is not 0.
    """
    squares = {name: jnp.sum(jnp.square(g)) for name, g in gradients_by_loss.items()}
    weights = {name: 1.0 if name == GAME else losses.weights[name] for name in squares}
    if losses.balance == "gradients":
        total = sum(weights[name] * (squares[name] > 0) for name in squares)
        weights = {
            name: weights[name]
            * jax.lax.rsqrt(jnp.maximum(squares[name], 1e-24) * accumulate)
            / jnp.maximum(total, 1e-12)
            for name in squares
        }
    output_gradient = sum(weights[name] * g for name, g in gradients_by_loss.items())
    return output_gradient, {
        NORM.format(loss=name): (value, jnp.float32(value > 0)) for name, value in squares.items()
    }


def norms(metrics: Metrics) -> Metrics:
    """The squared norms of `meet`, summed over microbatches, as norms over the batch."""
    prefix = NORM.format(loss="")
    return {
        name: (jnp.sqrt(value), jnp.minimum(weight, 1.0)) if name.startswith(prefix) else pair
        for name, pair in metrics.items()
        for value, weight in [pair]
    }


def _pulled_back(losses: ml_collections.ConfigDict) -> dict[str, dict[str, float]]:
    """By name of a gradient, the weights of the losses that are pulled back together for it."""
    if losses.balance == "gradients" or losses.split_game:
        return {name: {name: 1.0} for name in LOSSES}
    return {GAME: {name: losses.weights[name] for name in LOSSES}}


def _cut(sound: jax.Array, *, starts: jax.Array, length: int) -> jax.Array:
    """`length` samples of every example of [b, n] from its start on."""
    if length == sound.shape[1]:
        return sound
    return jax.vmap(lambda x, start: jax.lax.dynamic_slice_in_dim(x, start, length))(sound, starts)


def _put_back(crop: jax.Array, *, starts: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """The gradient of a sound from that of its `_cut`: zeros around it."""
    if crop.shape == shape:
        return crop
    zeros = jnp.zeros(shape[1:], crop.dtype)
    return jax.vmap(lambda x, start: jax.lax.dynamic_update_slice_in_dim(zeros, x, start, axis=0))(
        crop, starts
    )
