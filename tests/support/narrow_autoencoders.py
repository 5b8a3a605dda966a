# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Autoencoders of few channels in every geometry that an export may meet."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from configs import autoencoder as recipe
from tests.support import tiny_models

# Every rate's strides, of 1, 2 and 3 bins; unfolded; no lookahead; magnitudes as they are, and latents
# too (base_48khz).
GEOMETRIES = {
    "tiny": {},
    "tiny_24khz": dict(decoder_lookahead=0),
    "base_48khz": dict(compression=1.0),
    "spectrostream": {},
}

# For forms whose making takes long: one by default, with --slow those that are deeper, too.
PARAMETERS = [
    "tiny_24khz",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("base_48khz", "spectrostream")),
]


@functools.cache
def built(preset):
    """A geometry in few channels, of widths that change from stage to stage, and its variables."""
    strides = recipe.get_config(preset).model.strides
    num_stages = len(strides)
    widths = dict(
        strides=strides,
        encoder_channels=tuple(4 + 2 * (i // 2) for i in range(num_stages)),
        decoder_channels=tuple(8 - 2 * (i // 2) for i in range(num_stages)),
    )
    autoencoder, variables = tiny_models.built(preset, **widths, **GEOMETRIES[preset])
    # Biases are drawn as zeros, which would hide one that is missing, and what zeros become.
    rng = np.random.default_rng(1)

    def with_bias(path, leaf):
        is_bias = path[-1].key == "bias"
        return leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32) if is_bias else leaf

    bottleneck = dataclasses.replace(autoencoder.bottleneck, normalize=preset != "base_48khz")
    return (
        autoencoder.clone(bottleneck=bottleneck),
        jax.tree_util.tree_map_with_path(with_bias, variables),
    )
