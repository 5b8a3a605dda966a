# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""X-Codec's discriminators: published sizes, what they hear, and their definition in torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import autoencoder as recipe
from f3tok_jax.models.discriminators import discriminators
from f3tok_jax.models.discriminators import frequencies
from tests.support import noise


def test_the_published_geometry():
    section = recipe.get_config("base_16khz").discriminators
    windows = tuple(4 * 2**power for power in range(5, 11))  # hops of 32 to 1024
    section.update(dict(kind="multi_frequency", stft_windows=windows, stft_channels=512))
    module = discriminators.Discriminators(**section)
    assert module.map_weights == [1.0] * 6
    waveform = jax.ShapeDtypeStruct((2, 16_384), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), waveform)
    assert variables["params"].keys() == {"stft"}
    maps, _ = jax.eval_shape(module.apply, variables, waveform)
    # Published widths of the last layer by hop; each before it is half as wide.
    published = (64, 128, 256, 512, 512, 512)
    for layers, last, window in zip(maps, published, windows, strict=True):
        assert [layer.shape[-1] for layer in layers[:-1]] == [
            last // 2**i for i in range(5, -1, -1)
        ]
        frames, bins = 16_384 // (window // 4), window // 2
        assert layers[0].shape[1:3] == (frames, bins)
        assert layers[-1].shape == (1, frames // 8, bins // 8, 2)
        assert layers[-1].dtype == jnp.float32
    count = 0
    for last in published:
        sizes = [2, *(last // 2**i for i in range(5, -1, -1)), 1]
        count += sum(9 * one * two + two for one, two in zip(sizes, sizes[1:]))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == count


def test_hears_magnitudes_and_levels():
    waveform = noise.waveform(2, 1024)
    heard = frequencies.magnitudes_and_levels(waveform, window=128)
    padded = np.pad(waveform, ((0, 0), (48, 48)))
    starts = range(0, 1024, 32)
    frames = np.stack([padded[:, start : start + 128] for start in starts], axis=1)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(128) / 128)
    magnitude = np.abs(np.fft.rfft(frames * window))[..., :-1] / np.sqrt(128)
    magnitude = np.sqrt(np.maximum(magnitude**2, 1e-7))
    level = np.clip((20 * np.log10(magnitude) - 20 + 100) / 100, 0, 1)
    np.testing.assert_allclose(heard[..., 0], magnitude, atol=1e-5)
    np.testing.assert_allclose(heard[..., 1], level, atol=1e-4)


def test_equals_torch():
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    module = frequencies.MultiFrequencyDiscriminators((128,), 64, "float32")
    waveform, num_samples = noise.waveform(2, 1024), np.full(2, 1024)
    params = jax.jit(module.init)(jax.random.key(0), waveform, num_samples)["params"]
    params = noise.with_random_biases(params)
    (maps,), _ = jax.jit(module.apply)({"params": params}, waveform, num_samples)
    heard = frequencies.magnitudes_and_levels(waveform, window=128)
    x = torch.from_numpy(np.array(heard)).permute(0, 3, 1, 2)
    names = [f"128_conv_{layer}" for layer in range(6)] + ["128_logits"]
    for layer, (name, found) in enumerate(zip(names, maps, strict=True)):
        kernel, bias = (torch.from_numpy(np.array(params[name][k])) for k in ("kernel", "bias"))
        x = F.leaky_relu(x, 0.2) if layer else x
        x = F.conv2d(x, kernel.permute(3, 2, 0, 1), bias, stride=1 + layer % 2, padding=1)
        expected = x.permute(2, 3, 0, 1)  # [frames, bins, b, c]
        expected = expected if layer < 6 else expected[..., 0]
        np.testing.assert_allclose(found[0], expected, atol=1e-4)


@pytest.mark.parametrize("window, channels", [(32, 512), (4096, 48)])
def test_widths_that_cannot_be_halved_are_refused(window, channels):
    with pytest.raises(ValueError, match=f"multiple of 32 wide, got .* window of {window} samples"):
        frequencies.widths(window, channels)
