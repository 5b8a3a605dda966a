# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""How weights of published PyTorch models begin, for models that are held against them."""

from flax import linen as nn

# Uniform within one over the root of the number of inputs, as torch draws kernels by default. It
# draws biases, too; here all begin at 0.
TORCH_UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# Vocos: normal, cut a hundred deviations away, which is never.
VOCOS_NORMAL = nn.initializers.normal(0.02)
