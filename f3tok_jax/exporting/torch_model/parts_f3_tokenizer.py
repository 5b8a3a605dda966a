# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The parts of a model of F3-Tokenizer: how each is made of the config."""

from collections.abc import Callable, Mapping
import functools

from torch import nn
from transformers import AutoConfig
from transformers import AutoModel

from .autoencoder_f3_tokenizer import F3TokDecoder
from .autoencoder_f3_tokenizer import F3TokEncoder
from .configuration_f3_tokenizer import ANSWERS
from .configuration_f3_tokenizer import F3TokConfig
from .generation_f3_tokenizer import F3TokFlowHead
from .generation_f3_tokenizer import F3TokProjector
from .semantic_autoencoder_f3_tokenizer import F3TokFusedEncoder
from .transformer_f3_tokenizer import F3TokRepresentationEncoder
from .vocos_f3_tokenizer import F3TokVocosDecoder


def makers(config: F3TokConfig) -> dict[str, Callable[[], nn.Module]]:
    """Name -> how it is made, of every part that the config knows."""
    encoder = functools.partial(
        F3TokRepresentationEncoder, config.latent_dim, config.representation
    )
    is_semantic = bool(config.semantic_autoencoder)
    hears, says = (
        (F3TokFusedEncoder, F3TokVocosDecoder) if is_semantic else (F3TokEncoder, F3TokDecoder)
    )
    found = {"encoder": lambda: hears(config), "decoder": lambda: says(config)}
    if config.representation:
        found["representation_encoder"] = encoder
    if config.generation:
        fields = config.generation
        width, patch = fields["language_model"]["hidden_size"], fields["patch"]
        if fields["has_own_encoder"]:
            found["generation_encoder"] = encoder
        found |= {
            "projector": _reading(config, fields)[0],
            "language_model": _reading(config, fields)[1],
            "flow_head": lambda: F3TokFlowHead(
                config.latent_dim, patch, width, fields["flow_head"]
            ),
        }
    if config.answers:
        found |= _answering(config, config.answers)
    return found


def _answering(config: F3TokConfig, fields: Mapping) -> dict[str, Callable[[], nn.Module]]:
    """The same of the parts that only answers need."""
    projector, language_model, head = ANSWERS
    described = fields["language_model"]
    found = {projector: _reading(config, fields)[0]}
    if fields["has_own_language_model"]:
        found[language_model] = _reading(config, fields)[1]
    if not described["tie_word_embeddings"]:
        sizes = described["hidden_size"], described["vocab_size"]
        found[head] = lambda: nn.Linear(*sizes, bias=False)
    return found


def _reading(config: F3TokConfig, fields: Mapping) -> tuple[Callable[[], nn.Module], ...]:
    """A projector to a language model, and that without its head."""
    language_model = AutoConfig.for_model(**fields["language_model"])
    sizes = config.representation["width"], fields["patch"], language_model.hidden_size
    return (
        lambda: F3TokProjector(*sizes, fields["projector"]),
        lambda: AutoModel.from_config(
            language_model, attn_implementation=config._attn_implementation
        ),
    )
