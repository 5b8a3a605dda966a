# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is lowered in PyTorch is what is lowered in JAX."""

import jax
import numpy as np
import optax
import pytest

from configs import autoencoder as recipe
from f3tok_jax.losses import reconstruction
from f3tok_jax.models import flow_head
from tests.support import tiny_models
from tests.support import torch_models


def _sound(*shape):
    return 0.1 * np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _autoencoder(preset: str, **changes):
    autoencoder, variables = tiny_models.built(preset)
    losses = recipe.get_config(preset).losses
    changes |= dict(mel_windows=losses.mel_windows, mel_bands=losses.mel_bands)
    made = torch_models.autoencoder_in_torch(autoencoder, variables, **changes)
    return autoencoder, variables, losses, made


@pytest.mark.parametrize("preset", ["tiny", "base"])
def test_a_reconstruction_is_as_far_as_jax_says_whatever_is_behind_an_end(preset):
    autoencoder, variables, losses, (torch, model) = _autoencoder(preset)
    num_samples = 6 * autoencoder.samples_per_latent + 77
    waveform = _sound(2, num_samples)
    mask = np.arange(num_samples)[None] < np.array([[num_samples], [num_samples // 2]])
    found = model(torch.from_numpy(waveform), torch.from_numpy(mask), return_loss=True)
    total, weight = reconstruction.multi_scale_mel(
        waveform, found.audio[:, 0].numpy(), mask, sample_rate=autoencoder.sample_rate,
        windows=losses.mel_windows, bands=losses.mel_bands,
    )  # fmt: skip
    np.testing.assert_allclose(found.loss, total / weight, rtol=1e-5)


def test_only_a_model_that_trains_hears_noise_and_gradients_reach_both_ends():
    *_, (torch, model) = _autoencoder("tiny", gamma=0.5)
    waveform = torch.from_numpy(_sound(1, 4000))
    first, again = (model(waveform, return_loss=True).loss for _ in range(2))
    assert first == again
    model.train().requires_grad_(True)
    one, other = (model(waveform, return_loss=True).loss for _ in range(2))
    assert one != other
    one.backward()
    assert model.encoder.stem.weight.grad.abs().sum() > 0
    assert model.decoder.output.weight.grad.abs().sum() > 0


def test_the_flow_heads_loss_is_that_of_jax_and_reaches_what_is_trained():
    generator, weights = torch_models.generator("swiglu")
    torch, model = torch_models.generator_in_torch(generator, weights)
    latents = np.random.default_rng(0).normal(size=(2, 9, 4)).astype(np.float32)
    mask = np.arange(9)[None] < np.array([[9], [5]])
    text, text_mask = np.array([[1, 2, 3], [4, 3, 0]]), np.array([[1, 1, 1], [1, 1, 0]], bool)
    arguments = [torch.from_numpy(array) for array in (text, text_mask, latents, mask)]
    model.requires_grad_(True)
    torch.manual_seed(0)
    flow, stop = model._generator().losses(*arguments)
    # What was drawn there, in its order.
    torch.manual_seed(0)
    torch.rand(2, 4, 1)
    time, noise = torch.randn(2, 4).sigmoid().numpy(), torch.randn(2, 4, 2, 4).numpy()
    taught = generator.teach(weights, latents, mask, text, text_mask, np.zeros_like(text_mask))
    head = generator.head.bind({"params": weights["head"]})
    noisy = noise + time[..., None, None] * (taught.targets - noise)
    condition = head.condition(taught.states[:, :-1], taught.tokens[:, :-1])
    given = (condition, time, noisy, taught.history)
    velocity = head.velocity(*(jax.lax.collapse(jax.numpy.asarray(x), 0, 2) for x in given))
    error = np.square(velocity.reshape(noise.shape) - (taught.targets - noise)).mean(axis=(2, 3))
    np.testing.assert_allclose(flow.detach(), error[taught.mask].mean(), rtol=1e-4)
    logits = head.stop_logits(taught.states[:, 1:])
    is_last = np.array([[0, 0, 0, 1], [0, 1, 0, 0]], np.float32)
    expected = optax.sigmoid_binary_cross_entropy(logits, is_last)[taught.mask].mean()
    np.testing.assert_allclose(stop.detach(), expected, rtol=1e-4)
    (flow + stop).backward()
    assert model.flow_head.latents_in.weight.grad.abs().sum() > 0
    assert flow_head.patches_of(latents, 2).shape[1] == 4


def test_a_loss_is_the_same_after_inference_and_where_it_is_compiled_or_exported():
    *_, (torch, model) = _autoencoder("tiny")
    waveform = torch.from_numpy(_sound(1, 4000))

    class Loss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, waveform):
            return self.model(waveform, return_loss=True).loss

    with torch.inference_mode():
        expected = Loss()(waveform).item()
    exported = torch.export.export(Loss(), (waveform,)).module()(waveform)
    compiled = torch.compile(Loss(), backend="eager", fullgraph=True)(waveform)
    again = Loss()(waveform)
    assert type(again) is torch.Tensor
    for found in (exported, compiled, again):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    model.requires_grad_(True)
    Loss()(waveform).backward()
    assert model.decoder.output.weight.grad.abs().sum() > 0
