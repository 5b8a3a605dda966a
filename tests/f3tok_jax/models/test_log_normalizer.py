# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The normaliser of a softmax and its gradient, and that the gradient does not compute it again."""

import jax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.models import log_normalizer as log_normalizer_lib


def test_it_and_its_gradient_are_those_of_logsumexp():
    logits = 30.0 * np.random.default_rng(0).standard_normal((3, 4, 50)).astype(np.float32)
    weights = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    results = [
        jax.value_and_grad(lambda x, f=function: jnp.sum(weights * f(x)))(logits)
        for function in (
            lambda x: jax.nn.logsumexp(x, axis=-1),
            log_normalizer_lib.log_normalizer,
        )
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *results)


def test_where_it_is_kept_by_name_no_maximum_is_taken_again():
    policy = jax.checkpoint_policies.save_only_these_names(log_normalizer_lib.NAME)

    def text(function):
        loss = jax.checkpoint(lambda x: jnp.sum(function(2.0 * x)), policy=policy)
        return str(jax.make_jaxpr(jax.grad(loss))(jnp.ones((4, 5))))

    assert text(log_normalizer_lib.log_normalizer).count("reduce_max") == 1
    assert text(lambda x: jax.nn.logsumexp(x, axis=-1)).count("reduce_max") == 2
