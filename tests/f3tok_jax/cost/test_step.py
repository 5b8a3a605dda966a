# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is counted in a compiled step; compile_check's tests hold the rest to the TPU's compiler."""

import jax
import jax.numpy as jnp

from f3tok_jax.cost import step


def test_a_models_own_products_are_those_in_its_scopes():
    def two_products(x, y):
        with jax.named_scope("encoder"):
            inside = x @ y
        return inside + y @ x

    square = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    compiled = jax.jit(two_products).lower(square, square).compile()
    assert step.own_flops(compiled, scopes=("encoder", "decoder")) == 2 * 64**3
