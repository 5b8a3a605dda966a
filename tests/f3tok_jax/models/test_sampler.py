# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The sampler, carried along velocities that are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.models import bottleneck
from f3tok_jax.models import sampler as sampler_lib

_LARGEST_SWAY = 2.0 / (np.pi - 2.0)


def _normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _plain(**changes) -> sampler_lib.Sampler:
    """A sampler that does nothing but solve."""
    return sampler_lib.Sampler(**(dict(sway=0.0, guidance=1.0, renormalize=False) | changes))


@pytest.mark.parametrize("solver", sampler_lib.SOLVERS)
def test_the_true_velocity_of_a_pair_arrives_in_one_step(solver):
    noise, data = _normal(3, 2, 4), _normal(3, 2, 4, seed=1)
    made = _plain(num_steps=1, solver=solver)(lambda x, time: data - noise, noise)
    np.testing.assert_allclose(made, data, atol=1e-6)  # e + (x - e) in float32


# Two bumps of unlike weight, place and width: mean -0.2, variance 1.25.
_SHARES, _MEANS, _STDS = np.array([0.6, 0.4]), np.array([-1.0, 1.0]), np.array([0.3, 0.7])


def _mixture_velocity(x: jax.Array, time: jax.Array) -> jax.Array:
    """E[x - e | x_t] where x is the mixture and e of N(0, 1)."""
    x, t = x[..., None], time[:, None, None, None]
    means, stds, shares = (v[None, None, None] for v in (_MEANS, _STDS, _SHARES))
    variance = t**2 * stds**2 + (1 - t) ** 2
    offset = x - t * means
    share = jax.nn.softmax(
        jnp.log(shares) - 0.5 * jnp.log(variance) - 0.5 * offset**2 / variance, axis=-1
    )
    slope = (t * stds**2 - (1 - t)) / variance
    return jnp.sum(share * (means + slope * offset), axis=-1)


@functools.lru_cache
def _carried(solver: str, num_steps: int) -> np.ndarray:
    """Where quantiles of N(0, 1) arrive, in order."""
    levels = (jnp.arange(1000, dtype=jnp.float32) + 0.5) / 1000
    noise = jax.scipy.stats.norm.ppf(levels)[:, None, None]
    sampler = _plain(num_steps=num_steps, solver=solver)
    return np.asarray(jax.jit(functools.partial(sampler, _mixture_velocity))(noise))[:, 0, 0]


def _moments_error(made: np.ndarray) -> float:
    """Largest distance of the first three moments from those of the mixture."""
    second = _MEANS**2 + _STDS**2
    third = _MEANS**3 + 3 * _MEANS * _STDS**2
    expected = [np.sum(_SHARES * moment) for moment in (_MEANS, second, third)]
    found = [np.mean(made.astype(np.float64) ** power) for power in (1, 2, 3)]
    return float(np.max(np.abs(np.subtract(found, expected))))


def test_noise_becomes_the_mixture_whose_velocity_is_known():
    # Euler's error falls with the steps, midpoint's with their square.
    assert _moments_error(_carried("euler", 200)) < 0.02
    assert _moments_error(_carried("midpoint", 200)) < 0.005
    share = np.mean(_carried("midpoint", 200) < -0.25)
    # Of N(-1, 0.3) 99.4 % lie below -0.25, of N(1, 0.7) 3.7 %.
    assert share == pytest.approx(0.6 * 0.9938 + 0.4 * 0.0371, abs=0.002)


@pytest.mark.parametrize("num_steps", [10, 50])
def test_midpoint_is_nearer_than_euler_with_as_many_steps(num_steps):
    euler, midpoint = (_moments_error(_carried(name, num_steps)) for name in sampler_lib.SOLVERS)
    assert midpoint < 0.5 * euler


def test_steps_halved_halve_the_error_of_euler_and_quarter_that_of_midpoint():
    for solver, order in (("euler", 1), ("midpoint", 2)):
        true = _carried("midpoint", 400)
        errors = [np.abs(_carried(solver, n) - true).mean() for n in (50, 100)]
        assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.25)  # higher orders remain


@pytest.mark.parametrize("sway", [-1.0, -0.5, 0.0, 1.0, _LARGEST_SWAY])
@pytest.mark.parametrize("num_steps", [1, 2, 10])
def test_times_rise_from_noise_to_data(sway, num_steps):
    times = _plain(num_steps=num_steps, sway=sway).times()
    assert len(times) == num_steps + 1
    assert times[0] == 0.0 and times[-1] == 1.0
    assert (np.diff(times) > 0).all()


def test_sway_of_minus_one_takes_smaller_steps_near_the_noise_and_none_equal_ones():
    assert (np.diff(_plain(num_steps=10, sway=-1.0).times(), n=2) > 0).all()
    np.testing.assert_allclose(np.diff(_plain(num_steps=10).times()), 0.1, rtol=1e-9)
    # 1 - cos(pi t / 2), of F5-TTS.
    assert _plain(num_steps=2, sway=-1.0).times()[1] == pytest.approx(1 - np.sqrt(0.5))


def test_the_velocity_is_asked_at_the_times_of_the_solver():
    def velocity(x, time):
        return jnp.broadcast_to(time[:, None, None], x.shape)

    sampler = _plain(num_steps=4, sway=-1.0)
    times, zero = np.array(sampler.times()), jnp.zeros((1, 1, 1))
    # The sum over steps of length times the value at the left; the midpoints integrate t exactly.
    left = np.sum(np.diff(times) * times[:-1])
    np.testing.assert_allclose(sampler(velocity, zero), left, rtol=1e-5)
    middle = _plain(num_steps=4, sway=-1.0, solver="midpoint")(velocity, zero)
    np.testing.assert_allclose(middle, 0.5, rtol=1e-5)


@pytest.mark.parametrize("solver", sampler_lib.SOLVERS)
def test_a_velocity_may_take_what_is_made_of_all_times_at_once(solver):
    sampler, noise, calls = _plain(num_steps=4, solver=solver), _normal(3, 2, 4), []

    def embed(times):
        calls.append(times.shape)
        return jnp.stack([times, 2.0 * times], axis=-1)

    found = sampler(lambda x, pair: pair[:, 1][:, None, None] - x, noise, embed=embed)
    expected = sampler(lambda x, time: 2.0 * time[:, None, None] - x, noise)
    np.testing.assert_array_equal(found, expected)
    assert calls == [(4,)] * (2 if solver == "midpoint" else 1)


def test_temperature_scales_the_noise_and_zero_leaves_none():
    noise = _normal(3, 2, 4)

    def still(x, time):
        return jnp.zeros_like(x)

    np.testing.assert_array_equal(_plain(temperature=0.5)(still, noise), 0.5 * noise)
    np.testing.assert_array_equal(_plain(temperature=0.0)(still, noise), 0.0)


def test_renormalized_latents_have_mean_zero_and_rms_one():
    noise = 3.0 * _normal(5, 2, 32) + 1.0
    made = _plain(renormalize=True)(lambda x, time: jnp.ones_like(x), noise)
    # Float32 sums; epsilon is 1e-5 of a variance of 9.
    np.testing.assert_allclose(np.mean(made, axis=-1), 0.0, atol=1e-5)
    np.testing.assert_allclose(np.mean(np.square(made), axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(made, bottleneck.normalize(noise + 1.0, epsilon=1e-5), atol=1e-5)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(num_steps=0), "sampling steps must be at least 1, got 0"),
        (dict(solver="heun"), "solver must be one of .*'euler'.*, got 'heun'"),
        (dict(guidance=-0.5), "guidance must be at least 0 .*, got -0.5"),
        (dict(guidance=float("nan")), "guidance must be at least 0"),
        (dict(temperature=-1.0), "temperature must be at least 0, got -1.0"),
        (dict(sway=-1.01), r"sway must be in \[-1, 1.75\], .* got -1.01"),
        (dict(sway=1.8), "sway must be in"),
    ],
)
def test_a_sampler_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        sampler_lib.Sampler(**changes)


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0, 2.0, 3.5])
def test_guidance_goes_from_no_condition_to_the_condition_and_beyond(guidance):
    def velocity(condition, time, x):
        return condition[:, :1, None] + time[:, None, None] * x

    condition, x, time = _normal(3, 4), _normal(3, 2, 4, seed=1), jnp.full((3,), 0.25)
    found = sampler_lib.guided(velocity, condition, guidance)(x, time)
    without, with_it = velocity(0 * condition, time, x), velocity(condition, time, x)
    # The same sums in the same order, op by op: no bit differs.
    np.testing.assert_array_equal(found, without + guidance * (with_it - without))
