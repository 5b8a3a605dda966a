# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The parts of a model of F3-Tokenizer: how each is made of the config."""

from collections.abc import Callable
import functools

from torch import nn
from transformers import AutoConfig
from transformers import AutoModel

from .autoencoder_f3_tokenizer import F3TokDecoder
from .autoencoder_f3_tokenizer import F3TokEncoder
from .configuration_f3_tokenizer import F3TokConfig
from .generation_f3_tokenizer import F3TokFlowHead
from .generation_f3_tokenizer import F3TokProjector
from .transformer_f3_tokenizer import F3TokRepresentationEncoder


def makers(config: F3TokConfig) -> dict[str, Callable[[], nn.Module]]:
    """Name -> how it is made, of every part that the config knows."""
    encoder = functools.partial(
        F3TokRepresentationEncoder, config.latent_dim, config.representation
    )
    found = {
        "encoder": lambda: F3TokEncoder(config),
        "decoder": lambda: F3TokDecoder(config),
    }
    if config.representation:
        found["representation_encoder"] = encoder
    if config.generation:
        fields = config.generation
        language_model = AutoConfig.for_model(**fields["language_model"])
        width, patch = language_model.hidden_size, fields["patch"]
        if fields["has_own_encoder"]:
            found["generation_encoder"] = encoder
        found |= {
            "projector": lambda: F3TokProjector(
                config.representation["width"], patch, width, fields["projector"]
            ),
            "language_model": lambda: AutoModel.from_config(
                language_model, attn_implementation=config._attn_implementation
            ),
            "flow_head": lambda: F3TokFlowHead(
                config.latent_dim, patch, width, fields["flow_head"]
            ),
        }
    return found
