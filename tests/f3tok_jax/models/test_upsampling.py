# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Both formulations of the transposed convolution against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sequence_layers.jax as sl

from f3tok_jax.models import upsampling

_CASES = [
    ((1, 2), (3, 4)),
    ((2, 1), (4, 3)),
    ((1, 3), (3, 6)),
    ((2, 2), (4, 4)),
    ((1, 1), (3, 3)),
    ((3, 2), (7, 5)),
]


def _operands(kernel_size):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 5, 3)).astype(np.float32)
    kernel = rng.normal(size=(*kernel_size, 3, 2)).astype(np.float32)
    return x, kernel


def _by_definition(x, kernel, strides):
    (b, t, f, _), (kt, kf, _, c) = x.shape, kernel.shape
    full = np.zeros(
        (b, (t - 1) * strides[0] + kt + strides[0], (f - 1) * strides[1] + kf + strides[1], c)
    )
    for i in range(t):
        for j in range(f):
            patch = np.einsum("bi,tfio->btfo", x[:, i, j], kernel)
            full[:, i * strides[0] : i * strides[0] + kt, j * strides[1] : j * strides[1] + kf] += (
                patch
            )
    left = (kf - strides[1]) // 2
    return full[:, : t * strides[0], left : left + f * strides[1]]


@pytest.mark.parametrize("formulation", upsampling.FORMULATIONS)
@pytest.mark.parametrize("strides, kernel_size", _CASES)
def test_equals_definition(strides, kernel_size, formulation):
    x, kernel = _operands(kernel_size)
    y = upsampling.transposed_conv(x, kernel, strides=strides, formulation=formulation)
    # Sums of at most 100 float32 products of order 1.
    np.testing.assert_allclose(y, _by_definition(x, kernel, strides), atol=1e-5)


@pytest.mark.parametrize("strides, kernel_size", _CASES)
def test_gradients_of_the_formulations_agree(strides, kernel_size):
    x, kernel = _operands(kernel_size)

    def loss(x, kernel, formulation):
        y = upsampling.transposed_conv(x, kernel, strides=strides, formulation=formulation)
        return jnp.sum(jnp.sin(y))

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2)
    expected = gradient(x, kernel, "transposed")
    for formulation in ("subpixel", "auto"):
        for a, b in zip(expected, gradient(x, kernel, formulation), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)


def test_auto_is_subpixel_on_a_cpu_and_dilated_on_a_tpu():
    x, kernel = _operands((4, 3))
    upsample = jax.jit(
        lambda x, w: upsampling.transposed_conv(x, w, strides=(2, 1), formulation="auto")
    )
    on = lambda platform: upsample.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
    assert "lhs_dilate = [2, 1]" not in on("cpu")
    assert "lhs_dilate = [2, 1]" in on("tpu")


@pytest.mark.parametrize("rates", [(1, 2), (2, 1), (1, 3), (2, 3)])
def test_repetition_is_the_same_in_both_forms(rates):
    x, _ = _operands((4, 3))
    weights = np.random.default_rng(1).normal(size=(2, 4 * rates[0], 5 * rates[1], 3))
    expected = x.repeat(rates[0], axis=1).repeat(rates[1], axis=2)
    gradient = weights.reshape(2, 4, rates[0], 5, rates[1], 3).sum(axis=(2, 4))
    for form in (upsampling.repeated, upsampling._added_up):
        y, pull_back = jax.vjp(lambda x: form(x, rates), x)
        np.testing.assert_array_equal(y, expected)
        (found,) = pull_back(weights.astype(np.float32))
        np.testing.assert_allclose(found, gradient, atol=1e-5)  # sums of six at most
    lowered = lambda platform: (
        jax.jit(lambda x: upsampling.repeated(x, rates))
        .trace(x)
        .lower(lowering_platforms=(platform,))
        .as_text()
    )
    assert "stablehlo.pad" in lowered("tpu") and "stablehlo.pad" not in lowered("cpu")


@pytest.mark.parametrize("formulation", upsampling.FORMULATIONS)
def test_steps_equal_whole(formulation):
    config = upsampling.CausalConv2DTranspose.Config(
        2, (4, 3), (2, 1), formulation=formulation, compute_dtype=jnp.dtype("float32")
    )
    layer = config.make()
    x = sl.Sequence.from_values(jnp.asarray(_operands((4, 3))[0]))
    variables = layer.init(jax.random.key(0), x, training=False)
    whole = layer.apply(variables, x, training=False).values
    state = layer.apply(variables, 2, x.channel_spec, training=False, method="get_initial_state")
    parts = []
    for start, stop in ((0, 1), (1, 4)):
        y, state = layer.apply(variables, x[:, start:stop], state, training=False, method="step")
        parts.append(y.values)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-6)


def test_unknown_formulation_is_refused():
    x, kernel = _operands((3, 3))
    with pytest.raises(ValueError, match="must be one of .*'fast'"):
        upsampling.transposed_conv(x, kernel, strides=(1, 1), formulation="fast")
