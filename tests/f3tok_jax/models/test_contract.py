# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The contract of sequence-layers, by its own check: a layer equals its steps in values and
gradients, padding does not leak, a batch's rows do not meet, the receptive field is as declared."""

import jax
import jax.numpy as jnp
import pytest
from sequence_layers.jax import test_utils

from f3tok_jax.models import upsampling
from tests.support import tiny_models


@pytest.fixture
def verify():
    contract = test_utils.SequenceLayerTest()
    contract.setUp()  # seeds the random lengths

    def check(layer, length, **options):
        """Of `layer`, bound, on sequences of random lengths up to `length`."""
        x = test_utils.random_sequence(3, length, *options.pop("shape"), low_length=1)
        # The check itself adds arrays of unlike ranks.
        with jax.numpy_rank_promotion("allow"):
            return contract.verify_contract(layer, x, training=False, jit=True, **options)

    return check


# "auto" is one of these, as test_upsampling shows.
@pytest.mark.parametrize("formulation", ["transposed", "subpixel"])
@pytest.mark.parametrize(
    "strides, kernel_size",
    [
        ((2, 2), (3, 4)),
        pytest.param((2, 1), (4, 3), marks=pytest.mark.slow),
        pytest.param((3, 2), (7, 5), marks=pytest.mark.slow),
    ],
)
def test_of_the_causal_transposed_convolution(strides, kernel_size, formulation, verify):
    layer = upsampling.CausalConv2DTranspose.Config(
        2, kernel_size, strides, formulation=formulation, compute_dtype=jnp.dtype("float32")
    ).make()
    x = test_utils.random_sequence(1, 4, 5, 3)
    layer = layer.bind(layer.init(jax.random.key(0), x, training=False))
    verify(layer, 4, shape=(5, 3), atol=1e-5, grad_atol=1e-4)


# test_autoencoder holds the whole against its stream, the encoder among it.
@pytest.mark.parametrize("name", [pytest.param("encoder", marks=pytest.mark.slow), "decoder"])
def test_of_the_autoencoder(name, verify):
    model, variables = tiny_models.built(strides=((2, 2),))
    width = {"encoder": model.frame_length, "decoder": model.latent_dim}[name]
    layer = getattr(model.bind(variables), name)
    verify(layer, 3 * layer.block_size, shape=(width,), atol=1e-4, grad_atol=1e-3)
