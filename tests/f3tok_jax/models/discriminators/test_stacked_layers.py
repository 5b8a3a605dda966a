# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Convolutions of a stack in both forms, what a layer's slope is, and which places are valid."""

import functools

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.devices import slices
from f3tok_jax.models.discriminators import stacked_layers


@pytest.mark.parametrize("stack", [1, 2, 5])
@pytest.mark.parametrize(
    ("places", "taps", "padding"),
    [
        ((7,), (3,), ((1, 1),)),
        ((4, 5), (1, 2), ((0, 0), (0, 0))),
        ((4, 5), (3, 3), ((1, 1), (1, 1))),
    ],
)
def test_both_forms_are_a_convolution_per_entry(stack, places, taps, padding):
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    x, kernel = normal(stack, *places, 2, 3), normal(stack, *taps, 3, 4)
    axes = "HW"[: len(places)]

    def plain(x, kernel):
        form = (f"{axes}NC", f"{axes}IO", f"{axes}NC")
        ones = (1,) * len(places)
        return jnp.stack(
            [
                lax.conv_general_dilated(one, own, ones, padding, dimension_numbers=form)
                for one, own in zip(x, kernel)
            ]
        )

    expected, pull_back = jax.vjp(jax.jit(plain), x, kernel)
    cotangent = normal(*expected.shape)
    for form in (
        stacked_layers.one_convolution,
        stacked_layers.products,
        stacked_layers.convolve,
    ):
        found, pull = jax.vjp(jax.jit(functools.partial(form, padding=padding)), x, kernel)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        for one, two in zip(pull(cotangent), pull_back(cotangent)):
            np.testing.assert_allclose(one, two, atol=1e-5)  # sums of a few tens in another order


def test_examples_on_many_devices_are_not_gathered():
    """Nor is a gradient anything else than on one device: either form's is in one case."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    x, kernel, cotangent = normal(5, 9, 8, 3), normal(5, 3, 3, 4), normal(5, 9, 8, 4)

    def step(x, kernel, cotangent):
        form = functools.partial(stacked_layers.one_convolution, padding=((1, 1),))
        result, pull_back = jax.vjp(form, x, kernel)
        return result, *pull_back(cotangent)

    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("fsdp",))
    by_example, whole = (
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
        for axes in ((None, None, "fsdp", None), ())
    )
    compiled = (
        jax.jit(
            step,
            in_shardings=(by_example, whole, by_example),
            out_shardings=(by_example, by_example, whole),
        )
        .lower(x, kernel, cotangent)
        .compile()
    )
    assert len(jax.devices()) > 1 and "all-gather" not in compiled.as_text()
    on_devices = [
        jax.device_put(a, s)
        for a, s in zip((x, kernel, cotangent), (by_example, whole, by_example))
    ]
    for one, two in zip(compiled(*on_devices), jax.jit(step)(x, kernel, cotangent), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)  # sums of a few tens in another order


def test_a_tpu_compiles_the_gradient_of_examples_on_many_devices(tpu_compiler):
    """Its compiler gives a wrong shape to some forms of it, and refuses to add what is so shaped."""
    mesh = jax.sharding.Mesh(np.array(slices.devices(slices.parse("v5e:2x2"))), ("fsdp",))
    by_example, whole = (
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
        for axes in ((None, None, None, "fsdp", None), ())
    )
    x = jax.ShapeDtypeStruct((5, 4, 8, 32, 128), jnp.bfloat16, sharding=by_example)
    kernel = jax.ShapeDtypeStruct((5, 3, 3, 128, 128), jnp.bfloat16, sharding=whole)

    def loss(x, kernel, more):
        y = stacked_layers.one_convolution(x, kernel, ((1, 1), (1, 1)))
        return jnp.sum(jnp.sin(y.astype(jnp.float32))) + jnp.sum((x * more).astype(jnp.float32))

    gradients = jax.grad(loss, argnums=(0, 1))
    compiled = jax.jit(gradients, out_shardings=(by_example, whole)).lower(x, kernel, x).compile()
    assert [one.shape for one in compiled.out_info] == [x.shape, kernel.shape]
    assert "all-gather" not in compiled.as_text()


def test_a_layers_slope_follows_from_its_result():
    x = jnp.array([-2.0, -1e-30, 1e-30, 3.0, 4.0, -5.0])[None, :, None, None]
    valid = jnp.array([True] * 4 + [False] * 2)[None, :, None, None]
    plain = lambda x: jnp.where(valid, stacked_layers.leaky_relu(x), 0)
    np.testing.assert_array_equal(stacked_layers.activate(x, valid), plain(x))
    slopes, expected = (
        jax.grad(lambda x: jnp.sum(form(x)))(x)
        for form in (lambda x: stacked_layers.activate(x, valid), plain)
    )
    np.testing.assert_array_equal(slopes, expected)


def test_places_are_valid_where_their_stretch_has_sound():
    held = np.array([[True, True, True], [True, True, False]])
    first_samples = np.array([[0, 10, 20], [0, 15, 0]])
    valid = stacked_layers.valid_places(held, first_samples, np.array([11, 15, 0]))
    assert valid.shape == (2, 3, 3, 1)
    assert np.asarray(valid)[..., 0].astype(int).tolist() == [
        [[1, 1, 0], [1, 1, 0], [0, 0, 0]],
        [[1, 1, 0], [0, 0, 0], [0, 0, 0]],
    ]


def test_pads():
    x = jnp.ones((1, 1, 3, 1))
    assert stacked_layers.pad_to(x, 5, axis=2).shape == (1, 1, 5, 1)
    assert stacked_layers.pad_to(x, axis=2, multiple=4).shape == (1, 1, 4, 1)
