# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a softmax divides by, as a logarithm, with a gradient that needs nothing else than itself.

The gradient that JAX derives keeps or makes again an exponential of every logit and its maximum;
this one is the exponential of the logits less the result, which a policy of rematerialisation can
keep by its name.
"""

import jax
from jax import ad_checkpoint
import jax.numpy as jnp

NAME = "log normalizer"  # for policies of rematerialisation


@jax.custom_vjp
def log_normalizer(logits: jax.Array) -> jax.Array:
    """Logarithm of the sum of exponentials over the last axis.

    Args:
        logits: [..., v] float32.

    Returns:
        [...] float32.
    """
    return jax.nn.logsumexp(logits, axis=-1)


def _forward(logits):
    total = ad_checkpoint.checkpoint_name(log_normalizer(logits), NAME)
    return total, (logits, total)


def _backward(residuals, gradient):
    logits, total = residuals
    return (gradient[..., None] * jnp.exp(logits - total[..., None]),)


log_normalizer.defvjp(_forward, _backward)
