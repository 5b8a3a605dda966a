# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The decoder of the rivals: published sizes, its definition in torch, masks and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.models import vocos_decoder
from tests.support import tiny_models

_PUBLISHED = dict(
    width=1280,
    hidden_width=5120,
    num_blocks=12,
    frames_per_latent=2,
    frame_length=1280,
    hop_length=320,
    compute_dtype="float32",
)
_SMALL = _PUBLISHED | dict(width=12, hidden_width=20, num_blocks=2, frame_length=64, hop_length=16)


def _decoder(**changes) -> vocos_decoder.VocosDecoder:
    return vocos_decoder.VocosDecoder(**(_SMALL | changes))


def _size(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def small():
    """A small one's function and its variables, of random weights, for latents of width 5."""
    module = _decoder()
    abstract = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 2, 5)))
    return jax.jit(module.apply), {"params": tiny_models.random_weights(abstract["params"])}


def _latents(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("latent_dim, size", [(128, 170_978_562), (1280, 173_927_682)])
def test_the_published_sizes(latent_dim, size):
    module = _decoder(**_PUBLISHED)
    latents = jax.ShapeDtypeStruct((2, 25, latent_dim), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), latents)
    assert _size(variables) == size
    if latent_dim == 128:
        assert _size(variables["params"]["upsampling"]) == 328_960
    assert jax.eval_shape(module.apply, variables, latents).shape == (2, 16_000)


def test_equals_torch(small):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    decode, variables = small
    params = jax.tree.map(lambda leaf: torch.from_numpy(np.array(leaf)), variables["params"])
    latents = _latents(2, 9, 5)

    def linear(part, x):
        return F.linear(x, part["kernel"].T, part["bias"])

    def norm(part, x):
        return F.layer_norm(x, x.shape[-1:], part["scale"], part["bias"], eps=1e-6)

    up, embedding = params["upsampling"], params["embedding"]
    weight = up["kernel"].reshape(5, 2, 12).swapaxes(1, 2)  # [in, out, taps]
    x = F.conv_transpose1d(torch.from_numpy(latents).swapaxes(1, 2), weight, up["bias"], stride=2)
    x = F.conv1d(x, embedding["kernel"].permute(2, 1, 0), embedding["bias"], padding=3)
    x = norm(params["embedding_norm"], x.swapaxes(1, 2))
    for index in range(2):
        block = params[f"block_{index}"]
        taps = block["depthwise"]["kernel"].T[:, None]
        y = F.conv1d(x.swapaxes(1, 2), taps, block["depthwise"]["bias"], padding=3, groups=12)
        y = norm(block["norm"], y.swapaxes(1, 2))
        y = linear(block["output"], F.gelu(linear(block["hidden"], y)))
        x = x + block["gain"] * y
    said, phase = linear(params["head"], norm(params["final_norm"], x)).chunk(2, dim=-1)
    magnitude = torch.exp(said).clip(max=100.0)
    spectra = torch.complex(magnitude * torch.cos(phase), magnitude * torch.sin(phase))
    window = torch.hann_window(64)
    frames = torch.fft.irfft(spectra, 64, dim=-1) * window

    def overlapping(values):  # [b, t, 64] -> [b, samples]
        size = (1, (values.shape[1] - 1) * 16 + 64)
        return F.fold(values.swapaxes(1, 2), size, (1, 64), stride=(1, 16))[:, 0, 0, 24:-24]

    expected = overlapping(frames) / overlapping((window**2).expand_as(frames))
    found = decode(variables, latents)
    assert found.shape == (2, 9 * 32)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_shorter_sound_of_a_batch_is_what_it_is_alone(small):
    decode, variables = small
    mask = np.arange(9)[None] < np.array([[9], [4], [0]])
    latents = _latents(3, 9, 5)
    holes = np.where(mask[..., None], latents, np.nan)
    together = np.asarray(decode(variables, holes, mask))
    alone = decode(variables, latents[1:2, :4])
    np.testing.assert_allclose(together[1:2, : 4 * 32], alone, atol=1e-5)
    np.testing.assert_allclose(together[:1], decode(variables, latents[:1]), atol=1e-5)
    assert np.all(np.isfinite(together)) and not np.any(together[2])


def test_it_hears_3_frames_to_either_side_in_every_layer():
    module = _decoder(num_blocks=3, frames_per_latent=1, frame_length=32)  # 4 convolutions
    abstract = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 2, 5)))
    params = tiny_models.random_weights(abstract["params"])
    # The middle of a hop, where a window of two hops begins, is of one frame.
    sound = lambda x: module.apply({"params": params}, x)[0, 20 * 16 + 8]
    reached = np.any(np.asarray(jax.jit(jax.grad(sound))(_latents(1, 40, 5))[0]), axis=-1)
    assert np.flatnonzero(reached)[[0, -1]].tolist() == [20 - 12, 20 + 12]


def test_gradients_are_finite_where_magnitudes_are_cut(small):
    decode, variables = small
    head = variables["params"]["head"]
    loud = variables["params"] | {"head": head | {"bias": head["bias"] + 1e3}}
    value, gradient = jax.value_and_grad(
        lambda p: jnp.sum(jnp.square(decode({"params": p}, _latents(1, 4, 5))))
    )(loud)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_weights_begin_as_published():
    module = _decoder(width=64, hidden_width=128)
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 2, 64)))["params"]
    for kernel in (params["embedding"], params["block_0"]["hidden"], params["head"]):
        assert np.std(kernel["kernel"]) == pytest.approx(0.02, rel=0.05)
    np.testing.assert_allclose(params["block_1"]["gain"], 1 / 2)
    assert np.abs(params["upsampling"]["kernel"]).max() <= 1 / 8


def test_products_are_of_the_compute_dtype_and_the_sound_is_float32(small):
    decode, variables = small
    exact = decode(variables, _latents(1, 9, 5))
    rounded = jax.jit(_decoder(compute_dtype="bfloat16").apply)(variables, _latents(1, 9, 5))
    assert rounded.dtype == jnp.float32
    error = np.sqrt(np.mean((rounded - exact) ** 2) / np.mean(exact**2))
    assert 1e-4 < error < 0.2
