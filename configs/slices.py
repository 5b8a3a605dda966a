# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The slices that every preset is for: it fits them, and tests hold it to what it costs there."""

from collections.abc import Mapping, Sequence

# Recipe -> preset -> (topology, how many of such slices).
ALL: Mapping[str, Mapping[str, Sequence[tuple[str, int]]]] = {
    "autoencoder": {
        "tiny": [("v5e:1x1", 1)],
        "tiny_24khz": [("v5e:1x1", 1)],
        "small": [("v5e:1x1", 1)],
        "base": [("v5e:2x2", 1), ("v5e:4x4", 1), ("v5e:4x4", 2), ("v6e:4x4", 1), ("v5p:4x4x4", 1)],
        "base_16khz": [("v5e:2x4", 1)],
        "base_48khz": [("v5e:2x4", 1)],
        "large": [("v5p:4x4x4", 1)],
        "spectrostream": [("v5e:4x4", 1)],
    },
    "semantic_autoencoder": {
        "losatok_tiny": [("v5e:1x1", 1)],
        "dasheng_tokenizer_tiny": [("v5e:1x1", 1)],
        "losatok": [("v5e:4x4", 1), ("v5p:4x4x4", 1)],
        "dasheng_tokenizer": [("v5e:4x4", 1), ("v5p:4x4x4", 1)],
    },
    "language_model": {
        "tiny": [("v5e:1x1", 1)],
        "small": [("v5e:1x1", 1)],
        "base": [("v5e:2x2", 1)],
    },
    "representation": {
        "tiny": [("v5e:1x1", 1)],
        "small": [("v5e:1x1", 1)],
        "base": [("v5e:4x4", 1), ("v6e:2x4", 1), ("v5p:2x2x1", 1)],
        "large": [("v5p:4x4x4", 1), ("v5p:4x4x4", 2)],
    },
    "generation": {
        "tiny": [("v5e:1x1", 1)],
        "small": [("v5e:1x1", 1)],
        "base": [("v5e:4x4", 1), ("v5e:4x4", 2), ("v5p:2x2x1", 1)],
        "large": [("v5p:4x4x4", 1), ("v5p:4x4x4", 2)],
    },
    "diffusion_transformer": {
        "tiny": [("v5e:1x1", 1)],
        "base": [("v5e:4x4", 1), ("v5p:4x4x4", 1)],
    },
    "semantic_encoder": {
        "tiny": [("v5e:1x1", 1)],
        "base": [("v5e:2x2", 1), ("v5e:4x4", 1)],
    },
    "semantic_bottleneck": {
        "tiny": [("v5e:1x1", 1)],
        "base": [("v5e:2x2", 1), ("v5e:4x4", 1)],
    },
}
