# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The flow head: what a velocity depends on, rows that patches share, patches and latents."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.devices import compilation
from f3tok_jax.devices import sharding
from f3tok_jax.losses import flow as flow_loss
from f3tok_jax.models import flow_head
from f3tok_jax.models import sampler as sampler_lib
from tests.support import tiny_models


def _normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


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


def test_layers_without_a_loop_give_the_same():
    head, bound, velocity = _built()
    unrolled = head.clone(unrolled=True).bind(bound.variables)
    found = jax.jit(unrolled.velocity)(*_velocity_inputs())
    # Another program: float32 sums in another order.
    np.testing.assert_allclose(found, velocity(*_velocity_inputs()), atol=1e-5)
    assert f"unroll={head.num_layers}" in str(
        jax.make_jaxpr(unrolled.velocity)(*_velocity_inputs())
    )


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


def test_sound_has_ended_where_that_is_more_likely_than_not():
    # Each patch ends the sound with 0.3: after two of them 0.49 goes on, after one 0.7.
    logits = jnp.full(3, np.log(0.3 / 0.7), jnp.float32)
    survival = jnp.cumsum(flow_head.log_survival(logits))
    np.testing.assert_allclose(np.exp(survival), [0.7, 0.49, 0.343], rtol=1e-5)
    assert flow_head.has_ended(survival).tolist() == [False, True, True]
    assert flow_head.has_ended(jnp.log(jnp.array([0.51, 0.49]))).tolist() == [False, True]


def test_each_chip_makes_the_times_of_its_own_patches_alone():
    """Split by width, as the weights are, times of all patches would lie on every chip."""
    head = tiny_models.head()
    shapes = jax.eval_shape(head.init, jax.random.key(0), *tiny_models.head_inputs(head, 16))
    mesh = sharding.make_mesh(dict(replica=2, fsdp=4, tensor=1))
    places = sharding.state_shardings(shapes, mesh, min_shard_size=64)
    states, _, target, history = (
        jax.ShapeDtypeStruct((256, *x.shape[1:]), x.dtype) for x in _velocity_inputs()
    )

    def error(variables, states, target, history, key):
        drawn, bound = flow_loss.draw(key, target), head.bind(variables)
        condition = bound.condition(states, states)
        velocity = bound.velocity(condition, drawn.time, drawn.noisy, history)
        return jnp.mean(jnp.square(velocity - drawn.velocity))

    batch = sharding.batch_sharding(mesh)
    with sharding.use(mesh):
        step = jax.jit(jax.grad(error), in_shardings=(places, *[batch] * 3, None))
        arguments = sharding.unbox(shapes), states, target, history, jax.random.key(0)
        text = step.lower(*arguments).compile().as_text()
    assert "all-gather" in text and "all-to-all" not in text
    # Of the patches of a chip and no others.
    assert "[32,256]" in text and "[128,256]" not in text
