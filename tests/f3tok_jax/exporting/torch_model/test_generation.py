# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Representations and generated latents in PyTorch are those of JAX: whole, padded and in a stream."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.models import flow_head
from f3tok_jax.models import generator as generator_lib
from f3tok_jax.models import representation_encoder
from f3tok_jax.models import sampler as sampler_lib
from f3tok_jax.pretrained import torch_weights
from tests.support import tiny_models
from tests.support import torch_models

# Float32 sums in another order; of what is of scale 1.
_ATOL = 1e-4

# Every option of a transformer that the recipes have.
_TRANSFORMERS = {
    "window": dict(window=5),
    "all": dict(window=0, qk_norm=False),
    "groups": dict(window=3, num_heads=4, num_kv_heads=2, num_layers=2),
}


def _encoder(**changes):
    fields = tiny_models.TRANSFORMER | dict(window=5) | changes
    encoder = representation_encoder.RepresentationEncoder(latent_dim=4, input_noise=0.0, **fields)
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), jnp.zeros((1, 2, 4)))["params"]
    params = tiny_models.random_weights(shapes)
    config = torch_models.describe(4, encoder, latent_rms=2.0) | {
        "parts": ["representation_encoder"]
    }
    tensors = torch_weights.tensors({"representation_encoder": params})
    return encoder, params, torch_models.made(config, tensors)


def _latents(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", _TRANSFORMERS)
def test_representations_are_those_of_jax_whole_and_in_a_stream(name):
    encoder, params, (torch, model) = _encoder(**_TRANSFORMERS[name])
    latents = _latents(2, 23, 4)
    expected = np.asarray(encoder.apply({"params": params}, latents / 2.0))
    mask = torch.arange(23)[None] < torch.tensor([[23], [9]])
    whole = model.represent(torch.from_numpy(latents), mask)
    np.testing.assert_allclose(whole.representations[0], expected[0], atol=_ATOL)
    np.testing.assert_allclose(whole.representations[1, :9], expected[1, :9], atol=_ATOL)
    found, cache = [], None
    for first, last in ((0, 1), (1, 1), (1, 8), (8, 22), (22, 23)):
        piece = torch.from_numpy(latents[:, first:last])
        more = dict(padding_cache=cache, use_cache=last < 23)
        step = model.represent(piece, mask[:, first:last], **more)
        cache = step.padding_cache
        found.append(step.representations)
    found = torch.cat(found, dim=1)
    np.testing.assert_allclose(found[0], expected[0], atol=_ATOL)
    np.testing.assert_allclose(found[1, :9], expected[1, :9], atol=_ATOL)


def test_what_is_long_is_read_in_pieces_with_the_same_numbers_and_gradients(monkeypatch):
    _, _, (torch, model) = _encoder()
    from f3tok_jax.exporting.torch_model import transformer_f3_tokenizer

    latents = torch.from_numpy(_latents(2, 50, 4))
    expected = model.represent(latents).representations
    monkeypatch.setattr(transformer_f3_tokenizer, "_PIECE", 7)
    found = model.represent(latents).representations
    np.testing.assert_allclose(found, expected, atol=_ATOL)
    latents.requires_grad_(True)
    model.represent(latents).representations[:, 7].sum().backward()
    assert latents.grad[:, 6].abs().sum() > 0  # of the piece before


@pytest.mark.parametrize(
    ("kind", "history", "use_token", "family", "solver"),
    [
        ("linear", 2, True, "qwen3", "euler"),
        ("swiglu", 0, False, "qwen2", "midpoint"),
        ("swiglu", 1, True, "llama", "euler"),
    ],
)
def test_generated_latents_are_those_of_jax_of_texts_and_prompts_of_any_length(
    kind, history, use_token, family, solver
):
    generator, weights = torch_models.generator(kind, history, use_token, family)
    torch, model = torch_models.generator_in_torch(generator, weights, latent_rms=2.0)
    text = np.array([[1, 2, 5, 3], [4, 3, 0, 0], [7, 0, 0, 0]])
    text_mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], bool)
    prompt = _latents(3, 3, 2, 4)
    prompt_mask = np.array([[0, 0, 0], [1, 1, 0], [1, 1, 1]], bool)
    sampler = sampler_lib.Sampler(num_steps=3, solver=solver)
    speech = generator.begin(weights, text, text_mask, prompt, prompt_mask, max_patches=6)
    key, shape = jax.random.key(0), (3, 6, 2, 4)
    noise = np.stack(
        [
            generator_lib.noise_of(
                key, dataclasses.replace(speech, index=speech.index + index), shape
            )
            for index in range(6)
        ],
        axis=1,
    )
    _, patches, mask = generator.advance(
        weights, speech, key, jnp.full(3, 6), sampler=sampler, num_patches=6, least=2
    )
    expected, mask = np.asarray(flow_head.latents_of(patches)), np.repeat(mask, 2, axis=1)
    found = model.generate(
        torch.from_numpy(text),
        torch.from_numpy(text_mask),
        latents=2 * torch.from_numpy(prompt.reshape(3, 6, 4)),
        padding_mask=torch.from_numpy(np.repeat(prompt_mask, 2, axis=1)),
        max_seconds=6 * 2 / 25,
        min_seconds=2 * 2 / 25,
        noise=torch.from_numpy(noise),
        solver=solver,
    )
    length = found.padding_mask.shape[1]
    np.testing.assert_array_equal(found.padding_mask, mask[:, :length])
    assert not mask[:, length:].any()
    np.testing.assert_allclose(found.latents, 2 * expected[:, :length], atol=10 * _ATOL)


def test_in_bfloat16_representations_are_near_and_sound_is_made():
    generator, weights = torch_models.generator()
    torch, model = torch_models.generator_in_torch(generator, weights)
    latents = torch.from_numpy(_latents(1, 20, 4))
    expected = model.represent(latents).representations
    model = model.to(torch.bfloat16)
    found = model.represent(latents).representations
    assert found.dtype == torch.bfloat16
    # Of rms 1, as the last norm leaves them; 8 bits, rounded a dozen times.
    assert (found - expected).square().mean().sqrt() < 0.05
    made = model.generate(torch.tensor([[1, 2]]), latents=latents, max_seconds=0.5).latents
    assert made.dtype == torch.float32 and made.isfinite().all()
