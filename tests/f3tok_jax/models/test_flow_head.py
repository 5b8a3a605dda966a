# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The flow head and its sampler: known flows arrive where they must, guidance and times as said."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.devices import compilation
from f3tok_jax.losses import flow as flow_loss
from f3tok_jax.models import flow_head
from f3tok_jax.models import sampler as sampler_lib
from tests.support import tiny_models

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
    np.testing.assert_allclose(made, sampler_lib.normalized(noise + 1.0), atol=1e-5)


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


@functools.lru_cache
def _built(**changes):
    """A head of random weights, and (condition, time, noisy, history) -> velocity, compiled."""
    head = tiny_models.head(**changes)
    inputs = tiny_models.head_inputs(head, 16)
    shapes = jax.eval_shape(head.init, jax.random.key(0), *inputs)
    bound = head.bind(tiny_models.random_weights(shapes))
    return head, bound, jax.jit(bound.velocity)


_ROWS = 3


def _velocity_inputs() -> tuple[jax.Array, ...]:
    return _normal(_ROWS, 16), jnp.full((_ROWS,), 0.3), _normal(_ROWS, 2, 4), _normal(_ROWS, 4, 4)


def test_guidance_of_one_is_the_condition_alone_and_of_zero_none():
    _, _, velocity = _built()
    condition, time, noisy, history = _velocity_inputs()

    def of(condition, time, x):
        return velocity(condition, time, x, jnp.tile(history, (x.shape[0] // _ROWS, 1, 1)))

    alone = sampler_lib.guided(of, condition, 1.0)(noisy, time)
    np.testing.assert_array_equal(alone, velocity(condition, time, noisy, history))
    without = sampler_lib.guided(of, condition, 0.0)(noisy, time)
    # Twice the rows in a batch: float32 sums in another order.
    expected = velocity(jnp.zeros_like(condition), time, noisy, history)
    np.testing.assert_allclose(without, expected, atol=1e-5)
    assert np.abs(alone - without).max() > 0.01


@pytest.mark.parametrize("use_token", [True, False])
def test_no_condition_is_that_of_a_state_and_a_token_of_zeros(use_token):
    _, bound, _ = _built(use_token=use_token)
    zeros, states, tokens = jnp.zeros((2, 16)), _normal(2, 16), _normal(2, 16, seed=1)
    np.testing.assert_array_equal(bound.condition(zeros, zeros), 0.0)
    by_token = np.abs(bound.condition(states, tokens) - bound.condition(states, zeros)).max()
    assert (by_token > 0.01) == use_token


@pytest.mark.parametrize("row", [0, 21])  # positions: three sequences of 7
def test_a_velocity_depends_on_everything_it_is_given_and_on_its_own_patch_alone(row):
    _, _, velocity = _built(row=row)
    inputs = _velocity_inputs()
    found = np.asarray(velocity(*inputs))
    assert found.shape == (_ROWS, 2, 4) and found.dtype == np.float32
    for index, value in enumerate(inputs):
        changed = list(inputs)
        changed[index] = value.at[1].add(0.5)
        other = np.asarray(velocity(*changed))
        assert (np.abs(other[1] - found[1]).max(axis=-1) > 1e-3).all(), index
        np.testing.assert_array_equal(other[::2], found[::2])


@pytest.mark.parametrize("row", [14, 20, 21, 1000])
def test_patches_that_share_a_row_have_the_velocities_of_their_own_rows(row):
    inputs = [jnp.concatenate([value, -value]) for value in _velocity_inputs()]
    inputs[1] = jnp.abs(inputs[1])
    alone, together = (_built(row=length)[2](*inputs) for length in (0, row))
    # float32 sums over more terms, all but 7 of them zero.
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_both_latents_of_a_patch_see_each_other_and_order_counts():
    _, _, velocity = _built()
    condition, time, noisy, history = _velocity_inputs()
    found = np.asarray(velocity(condition, time, noisy, history))
    for index in (0, 1):
        other = np.asarray(velocity(condition, time, noisy.at[:, index].add(0.5), history))
        assert (np.abs(other[:, 1 - index] - found[:, 1 - index]).max(-1) > 1e-3).all()
    turned = np.asarray(velocity(condition, time, noisy, history[:, ::-1]))
    assert np.abs(turned - found).max() > 1e-3


def test_a_fresh_head_predicts_nothing_and_an_even_chance_to_stop():
    head = tiny_models.head(history=0)
    inputs = tiny_models.head_inputs(head, 16, rows=2)
    params = compilation.run_once(
        lambda key: nn.unbox(head.init(key, *inputs)["params"]), jax.random.key(0)
    )
    inputs = tuple(_normal(*value.shape) for value in inputs)
    velocity, stop = compilation.run_once(lambda p: head.apply({"params": p}, *inputs), params)
    assert velocity.shape == (2, 2, 4) and stop.shape == (2,)
    np.testing.assert_array_equal(velocity, 0.0)
    np.testing.assert_array_equal(stop, 0.0)


@pytest.mark.parametrize("changes", [dict(patch=0), dict(history=-1), dict(latent_dim=0)])
def test_a_head_without_patch_or_latents_is_refused(changes):
    head = tiny_models.head(**changes)
    inputs = tiny_models.head_inputs(tiny_models.head(), 16)
    with pytest.raises(ValueError, match="a patch and a latent_dim of at least 1 and a history"):
        jax.eval_shape(head.init, jax.random.key(0), *inputs)


def test_latents_become_patches_and_come_back_without_what_fills_none():
    latents = _normal(2, 7, 4)
    patches = flow_head.patches_of(latents, 3)
    assert patches.shape == (2, 2, 3, 4)
    np.testing.assert_array_equal(patches[1, 1, 2], latents[1, 5])
    np.testing.assert_array_equal(flow_head.latents_of(patches), latents[:, :6])
    assert flow_head.patches_of(latents[:, :2], 3).shape == (2, 0, 3, 4)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_history_is_the_patches_before_and_zeros_before_the_first(count):
    patches = _normal(2, 4, 3, 5)
    history = flow_head.history_of(patches, count)
    assert history.shape == (2, 4, count * 3, 5)
    for index in range(4):
        before = np.zeros((2, max(0, count - index) * 3, 5), np.float32)
        seen = flow_head.latents_of(patches[:, max(0, index - count) : index])
        expected = np.concatenate([before, seen], axis=1)
        np.testing.assert_array_equal(history[:, index], expected)


def test_a_draw_lies_between_its_noise_and_its_target():
    target = 2.0 + _normal(20_000, 1, 2)
    drawn = flow_loss.draw(jax.random.key(0), target)
    t = np.asarray(drawn.time)[:, None, None]
    assert drawn.time.shape == (20_000,) and 0 < t.min() < t.max() < 1
    noise = np.asarray(target - drawn.velocity)
    np.testing.assert_allclose(drawn.noisy, t * target + (1 - t) * noise, atol=1e-5)
    # Standard errors are below 0.01: of noise N(0, 1), of times whose logits are.
    for values in (noise, np.log(t / (1 - t))):
        assert values.mean() == pytest.approx(0.0, abs=0.03)
        assert values.std() == pytest.approx(1.0, abs=0.03)
    assert abs(np.corrcoef(t[:, 0, 0], noise[:, 0, 0])[0, 1]) < 0.03
    assert abs(np.corrcoef(noise[:, 0, 0], noise[:, 0, 1])[0, 1]) < 0.03
