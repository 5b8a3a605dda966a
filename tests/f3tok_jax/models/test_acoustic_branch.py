# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The acoustic branch: its published size, its definition in torch, and batches of unlike lengths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.models import acoustic_branch
from tests.support import noise
from tests.support import tiny_models


def _branch(**changes) -> acoustic_branch.AcousticBranch:
    fields = dict(
        sample_rate=16_000,
        frame_length=1024,
        hop_length=160,
        num_mels=128,
        mel_floor=1e-7,
        patch_frames=4,
        width=24,
        compute_dtype="float32",
    )
    return acoustic_branch.AcousticBranch(**(fields | changes))


@pytest.fixture(scope="module")
def branch():
    """A narrow one and its variables, of random weights."""
    module = _branch()
    abstract = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 3200)))
    return module, {"params": tiny_models.random_weights(abstract["params"])}


@pytest.mark.parametrize("num_samples, count", [(16_000, 25), (640, 1), (16_479, 25), (16_480, 26)])
def test_the_published_size(num_samples, count):
    module, waveform = _branch(width=1280), jax.ShapeDtypeStruct((2, num_samples), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), waveform)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 659_200
    assert jax.eval_shape(module.apply, variables, waveform).shape == (2, count, 1280)


def test_equals_torch(branch):
    torch = pytest.importorskip("torch")
    module, variables = branch
    waveform, params = noise.waveform(2, 5000), variables["params"]
    mel = torch.from_numpy(np.array(module.log_mel(waveform))).swapaxes(1, 2)  # test_mel_front_end
    kernel = torch.from_numpy(np.array(params["patch"]["kernel"]))
    # [frames, bands] of a patch -> a filter [bands, frames] of a convolution over both.
    weight = kernel.reshape(4, 128, 24).permute(2, 1, 0)[:, None]
    arrays = [
        torch.from_numpy(np.array(params[layer][name]))
        for layer, name in (("patch", "bias"), ("norm", "scale"), ("norm", "bias"))
    ]
    x = torch.nn.functional.conv2d(mel[:, None], weight, arrays[0], stride=(128, 4))
    expected = torch.nn.functional.layer_norm(
        x[:, :, 0].swapaxes(1, 2), (24,), *arrays[1:], eps=1e-5
    )
    np.testing.assert_allclose(module.apply(variables, waveform), expected, atol=1e-4)


def test_a_padded_sound_gives_what_it_gives_alone(branch):
    module, variables = branch
    waveform, lengths = noise.waveform(2, 3200), np.array([3200, 1280])
    padded = np.where(np.arange(3200)[None] < lengths[:, None], waveform, 7.0)
    run = jax.jit(module.apply)
    together, alone = run(variables, padded, lengths), run(variables, waveform[1:, :1280])
    np.testing.assert_allclose(together[1:, :2], alone, atol=1e-4)


def test_silence_is_heard_as_the_floor_and_teaches_without_infinities(branch):
    module, variables = branch
    np.testing.assert_allclose(module.log_mel(np.zeros((1, 640))), np.log(1e-7), rtol=1e-6)
    gradient = jax.grad(lambda v: jnp.sum(module.apply(v, jnp.zeros((1, 640))) ** 2))(variables)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
