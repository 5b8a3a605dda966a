# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Convolutions with half the products: what they return is what ordinary ones do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.models import autoencoder as autoencoder_lib
from f3tok_jax.models import bottleneck
from f3tok_jax.models import short_filters
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder

# Of a float32 sum of some hundreds of products, as a share of its rms; the ordinary form has 4e-6.
_ROUNDING = 3e-5


def _ordinary(x, kernel, time_padding):
    layout = ("NHWC", "HWIO", "NHWC")
    padding = (time_padding, (1, 1))
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=layout)


def _arrays(num_bins: int, time_taps: int, dtype=np.float32):
    rng = np.random.default_rng(num_bins)
    x, kernel = rng.normal(size=(2, 7, num_bins, 24)), rng.normal(size=(time_taps, 3, 24, 40))
    return x.astype(dtype), (kernel / np.sqrt(9 * 24)).astype(dtype)


@pytest.mark.parametrize("num_bins", [5, 10, 30])
@pytest.mark.parametrize(
    ("time_taps", "padding"), [(3, (2, 0)), (3, (0, 0)), (4, (1, 2)), (1, (0, 0))]
)
def test_it_is_the_ordinary_convolution(num_bins, time_taps, padding):
    x, kernel = _arrays(num_bins, time_taps)
    found = short_filters.convolve(x, kernel, time_padding=padding)
    wanted = _ordinary(x.astype(np.float64), kernel.astype(np.float64), padding)
    np.testing.assert_allclose(found, wanted, atol=_ROUNDING, rtol=0)


def test_so_are_its_gradients():
    x, kernel = _arrays(10, 3)

    def loss(form):
        return lambda x, kernel: jnp.sum(jnp.sin(form(x, kernel)))

    short = loss(lambda x, kernel: short_filters.convolve(x, kernel, time_padding=(2, 0)))
    ordinary = loss(lambda x, kernel: _ordinary(x, kernel, (2, 0)))
    found, wanted = (jax.grad(one, argnums=(0, 1))(x, kernel) for one in (short, ordinary))
    for one, other in zip(found, wanted):
        np.testing.assert_allclose(one, other, atol=_ROUNDING * float(jnp.std(other)) * 4, rtol=0)


def test_it_is_used_where_it_pays():
    assert short_filters.pays((1, 100, 30, 256), 256)
    assert not short_filters.pays((1, 100, 5, 256), 256)  # one tile
    assert not short_filters.pays((1, 100, 12, 256), 256)  # no whole tiles
    assert not short_filters.pays((1, 100, 30, 16), 256)
    assert not short_filters.pays((1, 4, 30, 256), 256)  # a step of a stream


def _autoencoder(**changes) -> autoencoder_lib.Autoencoder:
    return autoencoder_lib.Autoencoder(
        sample_rate=16_000,
        frame_length=320,
        hop_length=160,
        fold=8,
        strides=((1, 2), (1, 2), (2, 1)),
        encoder_channels=(64, 64, 64),
        decoder_channels=(64, 64, 64),
        compression=0.5,
        latent_dim=8,
        decoder_lookahead=1,
        upsampling="auto",
        compute_dtype="float32",
        bottleneck=bottleneck.F3(normalize=True, perturb=True, gamma=1.0, epsilon=1e-5),
        **changes,
    )


def test_an_autoencoder_that_spares_products_codes_what_it_codes_without():
    model, sparing = _autoencoder(), _autoencoder(spare_products=True)
    waveform = 0.1 * np.random.default_rng(0).normal(size=(1, 4_800)).astype(np.float32)
    init = functools.partial(pretrained_autoencoder.init_params, model)
    params = jax.jit(init)(jax.random.key(0), waveform)
    shapes = jax.tree.map(jnp.shape, params)
    assert shapes == jax.tree.map(jnp.shape, pretrained_autoencoder.abstract_params(sparing))
    applied = [
        jax.jit(lambda p, one=one: one.apply({"params": p}, waveform)).trace(params)
        for one in (sparing, model)
    ]
    spared, whole = (str(one.jaxpr).count("conv_general_dilated") for one in applied)
    # Either side has two convolutions of 3 x 3 over more than one tile of bins.
    assert spared == whole + 4 * 6
    found, wanted = (one.lower().compile()(params) for one in applied)
    for one, other in zip(found[:2], wanted[:2]):
        np.testing.assert_allclose(one, other, atol=_ROUNDING * float(jnp.std(other)), rtol=0)


def test_what_is_used_on_a_cpu_is_float32_and_spares_products():
    used = pretrained_autoencoder.for_use(_autoencoder().clone(compute_dtype="bfloat16"))
    assert used.compute_dtype == "float32" and used.spare_products
