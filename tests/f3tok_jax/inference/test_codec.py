# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The autoencoder in use: streams and lists are equal to the whole, also with what is padded."""

import numpy as np
import pytest

from f3tok_jax.inference import codec
from tests.support import tiny_models


@pytest.fixture(scope="module")
def model():
    autoencoder, variables = tiny_models.built()
    return codec.Codec(autoencoder, variables["params"])


def _sound(num_samples, channels=1):
    shape = (num_samples, channels)
    return 0.1 * np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("block", [1000, 32_160, 100_000])
@pytest.mark.parametrize("num_samples", [1, 640, 32_000, 32_100, 32_160, 64_161])
def test_streamed_blocks_equal_whole(model, num_samples, block):
    waveform = _sound(num_samples).T
    blocks = [waveform[:, i : i + block] for i in range(0, num_samples, block)]
    latents = np.concatenate(list(model.encode_stream(blocks)), axis=1)
    autoencoder, variables = tiny_models.built()
    whole = autoencoder.apply(variables, waveform, method="waveform_to_latents")
    assert latents.shape == whole.shape
    # Float32 sums in another order; the latents have rms 1.
    np.testing.assert_allclose(latents, whole, atol=1e-4)
    sound = np.concatenate(list(model.decode_stream([latents])), axis=1)
    expected = autoencoder.apply(variables, whole, method="latents_to_waveform")
    np.testing.assert_allclose(sound, expected, atol=1e-4)


@pytest.mark.parametrize("whole_latents", [1000, 20])
def test_a_list_gives_each_sound_as_if_it_were_alone(whole_latents, monkeypatch):
    monkeypatch.setattr(codec, "_WHOLE_LATENTS", whole_latents)  # longer ones are streamed
    autoencoder, variables = tiny_models.built()
    model = codec.Codec(autoencoder, variables["params"])
    waveforms = [_sound(n)[:, 0] for n in (32_100, 1, 640, 5_000, 641)]
    latents = model.encode(waveforms)
    sounds = model.decode(latents, batch_size=2)
    assert [len(row) for row in latents] == [51, 1, 1, 8, 2]
    for waveform, row, sound in zip(waveforms, latents, sounds, strict=True):
        (alone,) = autoencoder.apply(variables, waveform[None], method="waveform_to_latents")
        np.testing.assert_allclose(row, alone, atol=1e-4)
        (expected,) = autoencoder.apply(variables, alone[None], method="latents_to_waveform")
        assert sound.shape == expected.shape == (640 * len(row),)
        np.testing.assert_allclose(sound, expected, atol=1e-4)


def test_nothing_in_a_stream_is_nothing(model):
    assert list(model.encode_stream([])) == list(model.decode_stream([])) == []


@pytest.mark.parametrize("value", [3e38, np.nan])
def test_latents_that_give_no_finite_sound_are_refused(model, value):
    latents = np.full((3, model.autoencoder.latent_dim), value, np.float32)
    with pytest.raises(ValueError, match="some that give no finite sound: encode the sound again"):
        model.decode([latents])
    with pytest.raises(ValueError, match="some that give no finite sound"):
        list(model.decode_stream([latents[None]]))
