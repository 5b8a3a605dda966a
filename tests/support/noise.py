# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of the discriminators share."""

import jax
import numpy as np


def waveform(batch: int, length: int, seed: int = 0) -> np.ndarray:
    """Returns noise [batch, length], float32."""
    return 0.1 * np.random.default_rng(seed).standard_normal((batch, length)).astype(np.float32)


def with_random_biases(params, seed=1):
    """Biases start at zero, which would hide a wrong one."""
    rng = np.random.default_rng(seed)
    return jax.tree.map_with_path(
        lambda path, x: (
            x + 0.1 * rng.standard_normal(x.shape).astype(np.float32)
            if "bias" in jax.tree_util.keystr(path)
            else x
        ),
        params,
    )
