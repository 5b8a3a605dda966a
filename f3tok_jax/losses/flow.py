# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What flow matching asks of a head: noise, times and velocities, and how far off these are."""

import flax.struct
import jax
import jax.numpy as jnp

_NUM_TIME_BINS = 4  # of the loss by time


@flax.struct.dataclass
class Draw:
    """One noisy patch on its way, and where it is going.

    Attributes:
        time: [n] float32.
        noisy: [n, p, d], x_t.
        velocity: [n, p, d], x - e.
    """

    time: jax.Array
    noisy: jax.Array
    velocity: jax.Array


def draw(key: jax.Array, target: jax.Array) -> Draw:
    """Draws times of a logit-normal (arXiv 2403.03206) and noise for patches [n, p, d]."""
    time_key, noise_key = jax.random.split(key)
    time = jax.nn.sigmoid(jax.random.normal(time_key, target.shape[:1]))
    noise = jax.random.normal(noise_key, target.shape)
    t = time[:, None, None]
    return Draw(time=time, noisy=t * target + (1 - t) * noise, velocity=target - noise)


def measure(
    velocity: jax.Array, drawn: Draw, mask: jax.Array
) -> tuple[jax.Array, dict[str, tuple[jax.Array, jax.Array]]]:
    """The error of velocities, where a mask is True.

    Args:
        velocity: [n, p, d] that were predicted.
        drawn: what they should be.
        mask: [n] bool, of patches as wholes, or [n, p], of frames: of each the mean square counts.

    Returns:
        The sum of mean squares, and by name sums and weights: that, by time too, and the mean
        square of the velocities themselves.
    """
    axes = tuple(range(mask.ndim, velocity.ndim))
    error = jnp.mean(jnp.square(velocity - drawn.velocity), axis=axes)
    error = jnp.where(mask, error, 0.0)
    weight = jnp.sum(mask, dtype=jnp.float32)
    speed = jnp.where(mask, jnp.mean(jnp.square(velocity), axis=axes), 0.0)
    metrics = {
        "flow_loss": (jnp.sum(error), weight),
        "velocity_mean_square": (jnp.sum(speed), weight),
    }
    bins = jnp.minimum((drawn.time * _NUM_TIME_BINS).astype(jnp.int32), _NUM_TIME_BINS - 1)
    bins = bins.reshape(-1, *[1] * (mask.ndim - 1))
    for index in range(_NUM_TIME_BINS):
        inside, name = mask & (bins == index), f"flow_loss/t{index / _NUM_TIME_BINS:g}"
        total = jnp.sum(jnp.where(inside, error, 0.0))
        metrics[name] = total, jnp.sum(inside, dtype=jnp.float32)
    return jnp.sum(error), metrics
