# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""How noise becomes latents along a velocity: times, solvers, guidance."""

from collections.abc import Callable, Mapping
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from f3tok_jax.models import bottleneck

_EPSILON = 1e-5  # of the variance, as of the bottleneck

SOLVERS = ("euler", "midpoint")
# (x_t [n, p, d], t [n] or what is made of it [n, ...]) -> [n, p, d]
Velocity = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
    """How noise is carried to a patch, or to all of a sound; part of a compiled program.

    Attributes:
        num_steps: of the solver.
        solver: "euler", or "midpoint" with two velocities per step.
        sway: bends the times, t + sway (cos(pi t / 2) - 1 + t): -1 takes small steps near the
            noise, 0 equal ones (F5-TTS, arXiv 2410.06885).
        guidance: w of u + w (c - u), at least 0; see the module.
        temperature: standard deviation of the noise that is carried.
        renormalize: whether each latent is brought back to mean 0 and rms 1 over its channels, as
            the bottleneck makes them.
    """

    num_steps: int = 10
    solver: str = "euler"
    sway: float = -1.0
    guidance: float = 2.0
    temperature: float = 1.0
    renormalize: bool = True

    def __post_init__(self):
        if self.num_steps < 1:
            raise ValueError(f"sampling steps must be at least 1, got {self.num_steps}")
        if self.solver not in SOLVERS:
            raise ValueError(f"solver must be one of {SOLVERS}, got {self.solver!r}")
        if not -1.0 <= self.sway <= 2.0 / (math.pi - 2.0):
            raise ValueError(
                f"sway must be in [-1, {2.0 / (math.pi - 2.0):.2f}], where time still rises, got "
                f"{self.sway}"
            )
        if not self.guidance >= 0:
            raise ValueError(f"guidance must be at least 0 (1 is none), got {self.guidance}")
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")

    def times(self) -> list[float]:
        """num_steps + 1 times from 0 to 1."""
        even = [step / self.num_steps for step in range(self.num_steps + 1)]
        bent = [t + self.sway * (math.cos(math.pi * t / 2) - 1 + t) for t in even]
        return [0.0, *bent[1:-1], 1.0]

    def __call__(
        self,
        velocity: Velocity,
        noise: jax.Array,
        *,
        embed: Callable[[jax.Array], jax.Array] = jnp.asarray,
    ) -> jax.Array:
        """Carries noise to patches.

        Args:
            velocity: whose times [n] are [n, ...] by `embed`.
            noise: [n, p, d] of standard deviation 1.
            embed: makes of times [k] what `velocity` takes of them, [k, ...]; all of a patch at once.

        Returns:
            [n, p, d]
        """
        times = jnp.asarray(self.times(), jnp.float32)
        steps = times[1:] - times[:-1]
        starts, middles = embed(times[:-1]), None
        if self.solver == "midpoint":
            middles = embed(times[:-1] + 0.5 * steps)

        def at(x, time):
            return velocity(x, jnp.broadcast_to(time, (x.shape[0], *time.shape)))

        def advance(x, ahead):
            step, start, middle = ahead
            slope = at(x, start)
            if middle is not None:
                slope = at(x + 0.5 * step * slope, middle)
            return x + step * slope, None

        x, _ = jax.lax.scan(advance, self.temperature * noise, (steps, starts, middles))
        return bottleneck.normalize(x, epsilon=_EPSILON) if self.renormalize else x


def make(fields: Mapping[str, Any], *, normalizes: bool) -> Sampler:
    """The sampler of config.sampling; frames are brought to rms 1 only where the autoencoder
    `normalizes` them: those that were of any mean and rms in training must stay so."""
    return Sampler(**{**fields, "renormalize": fields["renormalize"] and normalizes})


def guided(
    velocity: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    condition: jax.Array,
    guidance: float,
) -> Velocity:
    """A velocity under guidance: of (condition, time, x), both branches in one batch.

    Args:
        velocity: (condition [n, ...], time [n, ...], x [n, p, d]) -> [n, p, d], for any n that is a
            multiple of the rows of `condition`.
        condition: [n, ...], of which zeros are none.
        guidance: w of u + w (c - u).
    """

    def at(x: jax.Array, time: jax.Array) -> jax.Array:
        if guidance == 1.0:
            return velocity(condition, time, x)
        pair = jnp.concatenate([condition, jnp.zeros_like(condition)])
        both = velocity(pair, jnp.concatenate([time, time]), jnp.concatenate([x, x]))
        with_it, without = jnp.split(both, 2)
        return without + guidance * (with_it - without)

    return at
