# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Exported modules in PyTorch with weights of JAX."""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.exporting import parts
from f3tok_jax.models import generator as generator_lib
from f3tok_jax.models import language_model
from f3tok_jax.models import projector
from f3tok_jax.models import sampler as sampler_lib
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.pretrained import exported_language_model
from f3tok_jax.pretrained import torch_weights
from tests.support import tiny_models


def made(config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]):
    """PyTorch, and the model of a config.json with its weights; where there is none, a skip."""
    torch = pytest.importorskip("torch", reason="parity needs torch, of the parity extra")
    pytest.importorskip("transformers", reason="parity needs transformers, of the parity extra")
    from f3tok_jax.exporting.torch_model import configuration_f3_tokenizer as configuration
    from f3tok_jax.exporting.torch_model import modeling_f3_tokenizer as modeling

    fields = {
        name: value for name, value in config.items() if name not in ("auto_map", "model_type")
    }
    model = modeling.F3TokModel(configuration.F3TokConfig(**fields)).eval()
    model.load_state_dict({name: torch.tensor(array) for name, array in tensors.items()})
    return torch, model.requires_grad_(False)


def autoencoder_in_torch(
    autoencoder: pretrained_autoencoder.Autoencoder, variables: Mapping[str, Any], **changes: Any
):
    """PyTorch, and an autoencoder; `changes` of its config.json."""
    config = parts.describe(autoencoder) | {"parts": ["encoder", "decoder"]} | changes
    return made(config, parts.autoencoder_tensors(autoencoder, variables["params"]))


def check_close(found, expected) -> None:
    """Raises AssertionError unless numbers differ by at most 1e-4 of their rms: sums in another order."""
    expected = np.asarray(expected)
    scale = np.sqrt(np.mean(np.square(expected)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * scale)


def describe(latent_dim: int, encoder, latent_rms: float = 1.0):
    """config.json of what reads latents, without an autoencoder."""
    return {
        "parts": [],
        "latent_dim": latent_dim,
        "sampling_rate": 16_000,
        "representation": parts.describe_encoder(encoder, latent_rms),
    }


@functools.lru_cache
def generator(
    kind: str = "linear", history: int = 2, use_token: bool = True, family: str = "qwen3"
):
    """A generator in JAX with a language model of a family, and its weights."""
    generator, weights = tiny_models.generator()
    fields = tiny_models.LANGUAGE_MODEL | tiny_models.QWEN | dict(model_type=family)
    reads_text = language_model.make(fields, compute_dtype="float32", remat="none")
    head = tiny_models.head(history=history, use_token=use_token)
    reads = projector.Projector(patch=2, width=16, kind=kind)
    generator = dataclasses.replace(
        generator, head=head, projector=reads, language_model=reads_text
    )
    shapes = {"language_model": language_model.abstract_params(reads_text)}
    for name, module, inputs in (
        ("encoder", generator.encoder, (jnp.zeros((1, 2, 4)),)),
        ("projector", reads, (jnp.zeros((1, 2, 16)),)),
        ("head", head, tiny_models.head_inputs(head, 16)),
    ):
        shapes[name] = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    return generator, weights | tiny_models.random_weights(shapes, seed=3)


def generator_in_torch(
    generator: generator_lib.Generator, weights: Mapping[str, Any], latent_rms: float = 1.0
):
    """PyTorch, and a model that has the generator's parts; no autoencoder."""
    config = describe(4, generator.encoder, latent_rms)
    config["eos_token_id"] = 3
    config["generation"] = {
        "has_own_encoder": False,
        "patch": 2,
        "projector": generator.projector.kind,
        "embedding_rms": float(weights["embedding_rms"]),
        "flow_head": parts.describe_flow_head(generator.head),
        "language_model": language_model.describe(generator.language_model),
        "sampling": vars(sampler_lib.Sampler(num_steps=3)),
        "stop_weight": 1.0,
        "condition_drop": 0.1,
        "tasks": {"transcription": [1, 2], "caption": [4]},
        "task": "transcription",
        "gap": " ",
        "max_tokens": 8,
    }
    names = {"encoder": "representation_encoder", "head": "flow_head", "projector": "projector"}
    config["parts"] = [*names.values(), "language_model"]
    tensors = torch_weights.tensors({name: weights[key] for key, name in names.items()})
    of_text = exported_language_model.tensors(
        generator.language_model, weights["language_model"], "language_model"
    )
    return made(config, tensors | of_text)
