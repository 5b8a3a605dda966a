# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What flow matching asks of a head: noise, times and velocities."""

import flax.struct
import jax


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
