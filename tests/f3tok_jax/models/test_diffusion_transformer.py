# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The diffusion transformer: what a velocity depends on, how long sounds are, and what it costs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.devices import compilation
from f3tok_jax.devices import sharding
from f3tok_jax.models import diffusion_transformer
from f3tok_jax.models import sampler as sampler_lib
from tests.support import tiny_models

_FIELDS = tiny_models.TRANSFORMER | dict(latent_dim=4, num_layers=2, modulation_rank=3)
_LENGTHS, _TOKENS = np.array([6, 3]), np.array([4, 2])


def _normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _inputs(length: int = 6, tokens: int = 4) -> tuple[jax.Array, ...]:
    """Noisy latents, their mask, times, a text's features and their mask."""
    mask = jnp.asarray(np.arange(length)[None] < _LENGTHS[:, None])
    text_mask = jnp.asarray(np.arange(tokens)[None] < _TOKENS[:, None])
    time, text = jnp.array([0.2, 0.7]), _normal(2, 4, 8, seed=1)
    text = jnp.pad(text, ((0, 0), (0, tokens - 4), (0, 0))) * text_mask[..., None]
    noisy = jnp.pad(_normal(2, 6, 4), ((0, 0), (0, length - 6), (0, 0)))
    return noisy, mask, time, text, text_mask


@functools.lru_cache
def _built():
    """The module, random weights, and its velocity, compiled."""
    model = diffusion_transformer.DiffusionTransformer(**_FIELDS)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *_inputs())
    variables = tiny_models.random_weights(shapes)
    return model, variables, jax.jit(model.apply)


def test_the_first_velocity_is_zero_and_every_weight_learns():
    model, variables, velocity = _built()
    fresh = compilation.run_once(model.init, jax.random.key(0), *_inputs())
    fresh = sharding.unbox(fresh)
    assert not velocity(fresh, *_inputs()).any()
    loss = lambda variables: jnp.sum(jnp.square(model.apply(variables, *_inputs())))
    for path, grad in jax.tree.leaves_with_path(jax.jit(jax.grad(loss))(variables)):
        assert np.isfinite(grad).all() and np.abs(grad).max() > 0, jax.tree_util.keystr(path)


def test_time_text_and_every_frame_decide_a_velocity():
    _, variables, velocity = _built()
    noisy, mask, time, text, text_mask = _inputs()
    before = velocity(variables, noisy, mask, time, text, text_mask)
    for changed in (
        (noisy, mask, time + 0.1, text, text_mask),
        (noisy, mask, time, text.at[:, 0].add(1.0), text_mask),
        (noisy.at[:, -4].add(1.0), mask, time, text, text_mask),  # in both directions
    ):
        after = velocity(variables, *changed)
        assert (np.abs(after - before).max(axis=(1, 2)) > 1e-4).all()


def test_padding_of_sounds_and_texts_decides_nothing():
    _, variables, velocity = _built()
    noisy, mask, time, text, text_mask = _inputs()
    before = np.where(mask[..., None], velocity(variables, *_inputs()), 0.0)
    loud = jnp.where(mask[..., None], noisy, 1e3)
    foreign = jnp.where(text_mask[..., None], text, 1e3)
    after = velocity(variables, loud, mask, time, foreign, text_mask)
    np.testing.assert_array_equal(np.where(mask[..., None], after, 0.0), before)
    longer = velocity(variables, *_inputs(length=9, tokens=7))
    # Another program: float32 sums in another order.
    longer = np.where(mask[..., None], longer[:, :6], 0.0)
    np.testing.assert_allclose(longer, before, atol=1e-5)


def test_a_text_of_zeros_is_none_however_long_it_is():
    _, variables, velocity = _built()
    noisy, mask, time, text, text_mask = _inputs()
    without = velocity(variables, noisy, mask, time, jnp.zeros_like(text), text_mask)
    silent = velocity(variables, noisy, mask, time, jnp.zeros_like(text), text_mask & False)
    np.testing.assert_array_equal(without, silent)
    assert np.abs(velocity(variables, *_inputs()) - without).max() > 0.01


def test_what_is_made_does_not_depend_on_room_or_neighbours():
    model, variables, _ = _built()
    sampler = sampler_lib.Sampler(num_steps=2, sway=0.0, guidance=2.0)
    draw = jax.jit(
        functools.partial(diffusion_transformer.sample, model), static_argnames="sampler"
    )

    def made(length, rows):
        _, mask, _, text, text_mask = _inputs(length=length)
        given = (x[:rows] for x in (mask, text, text_mask))
        return draw(variables["params"], jax.random.key(3), *given, sampler=sampler)

    both = made(6, 2)
    assert not both[1, 3:].any() and np.isfinite(both).all()
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(both[0]), axis=-1)), 1.0, atol=1e-3)
    # Another program: float32 sums in another order.
    np.testing.assert_allclose(made(8, 1)[:, :6], both[:1], atol=1e-4)


def test_flops_are_those_of_the_products_of_a_velocity():
    model, variables, _ = _built()
    inputs = [x[:1] for x in _inputs()]
    found = _products(jax.make_jaxpr(model.apply)(variables, *inputs).jaxpr)
    counted = diffusion_transformer.forward_flops(model, 6, num_tokens=4, text_width=8)
    # And what is the same for every frame; and the permutations by which queries and keys are rotated.
    width, rank = model.width, model.modulation_rank
    of_time = 256 * width + width**2 + 8 * width**2 + model.num_layers * 7 * rank * width
    heads = model.num_heads + model.num_kv_heads
    rotations = 2 * model.num_layers * 6 * heads * model.head_dim**2
    assert found == counted + 2 * of_time + rotations


def _products(jaxpr) -> int:
    """Multiplications and additions of the products of a program, loops unrolled."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            depth = np.prod([left[axis] for axis in contracted], dtype=int)
            total += 2 * int(depth) * int(np.prod(equation.outvars[0].aval.shape, dtype=int))
        for name in ("jaxpr", "call_jaxpr"):
            if inner := equation.params.get(name):
                times = equation.params.get("length", 1)
                total += times * _products(getattr(inner, "jaxpr", inner))
    return total


def test_sizes_that_are_none_are_refused():
    for name in ("latent_dim", "modulation_rank"):
        model = diffusion_transformer.DiffusionTransformer(**_FIELDS | {name: 0})
        with pytest.raises(ValueError, match="a latent_dim and a modulation_rank of at least 1"):
            jax.eval_shape(model.init, jax.random.key(0), *_inputs())
