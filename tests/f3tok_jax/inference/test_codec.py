# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The autoencoder in use: streams and lists are equal to the whole, also with what is padded."""

import functools

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


@functools.cache
def _whole(num_samples):
    """Latents of a sound and the sound that is made of them, each in one piece."""
    autoencoder, variables = tiny_models.built()
    apply = tiny_models.compiled(autoencoder)
    latents = apply(variables, _sound(num_samples).T, method="waveform_to_latents")
    return latents, apply(variables, latents, method="latents_to_waveform")


@pytest.mark.parametrize("block", [1000, 32_160, 100_000])
@pytest.mark.parametrize("num_samples", [1, 640, 32_000, 32_100, 32_160, 64_161])
def test_streamed_blocks_equal_whole(model, num_samples, block):
    waveform = _sound(num_samples).T
    blocks = [waveform[:, i : i + block] for i in range(0, num_samples, block)]
    latents = np.concatenate(list(model.encode_stream(blocks)), axis=1)
    whole, expected = _whole(num_samples)
    assert latents.shape == whole.shape
    # Float32 sums in another order; the latents have rms 1.
    np.testing.assert_allclose(latents, whole, atol=1e-4)
    sound = np.concatenate(list(model.decode_stream([latents])), axis=1)
    np.testing.assert_allclose(sound, expected, atol=1e-4)


@pytest.mark.parametrize("whole_latents", [1000, 20])
def test_a_list_gives_each_sound_as_if_it_were_alone(whole_latents, monkeypatch):
    monkeypatch.setattr(codec, "_WHOLE_LATENTS", whole_latents)  # longer ones are streamed
    autoencoder, variables = tiny_models.built()
    model = codec.Codec(autoencoder, variables["params"])
    lengths = (32_100, 1, 640, 5_000, 641)
    latents = model.encode([_sound(n)[:, 0] for n in lengths])
    sounds = model.decode(latents, batch_size=2)
    assert [len(row) for row in latents] == [51, 1, 1, 8, 2]
    for length, row, sound in zip(lengths, latents, sounds, strict=True):
        (alone,), (expected,) = _whole(length)
        np.testing.assert_allclose(row, alone, atol=1e-4)
        assert sound.shape == expected.shape == (640 * len(row),)
        np.testing.assert_allclose(sound, expected, atol=1e-4)


@pytest.fixture(scope="module")
def leveled():
    """The same autoencoder, which hears all sound at a level."""
    autoencoder, variables = tiny_models.built()
    return codec.Codec(autoencoder.clone(level_db=-20.0), variables["params"])


@pytest.mark.parametrize("factor", [0.01, 0.2, 3.0])
def test_latents_are_those_of_any_level_and_sounds_have_their_own(leveled, factor):
    sound = 2 * _sound(32_100)[:, 0]  # -14 dBFS
    (latents,), gains = leveled.encode([sound]), leveled.gains([sound])
    (decoded,) = leveled.decode([latents], gains=gains)
    scaled = np.float32(factor) * sound
    (found,), found_gains = leveled.encode([scaled]), leveled.gains([scaled])
    np.testing.assert_allclose(found, latents, atol=1e-4)
    (again,) = leveled.decode([found], gains=found_gains)
    np.testing.assert_allclose(again, factor * decoded, atol=1e-4 * factor)
    assert 20 * np.log10(gains[0]) == pytest.approx(-6.0, abs=0.1)


def test_a_sound_is_heard_at_the_level_and_what_has_no_gain_comes_out_at_it(model, leveled):
    sounds = [_sound(5_000)[:, 0] * factor for factor in (1.0, 0.02)]
    gains = leveled.gains(sounds)
    expected = model.encode([gain * sound for gain, sound in zip(gains, sounds)])
    for found, wanted in zip(leveled.encode(sounds), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    for found, wanted in zip(leveled.decode(expected), model.decode(expected), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    for gain, found, wanted in zip(
        gains, leveled.decode(expected, gains=gains), model.decode(expected), strict=True
    ):
        np.testing.assert_allclose(found, wanted / gain, atol=1e-4 / gain)


def test_silence_comes_out_quieter_than_without_a_level(model, leveled):
    silence = np.zeros(6_400, np.float32)
    gains = leveled.gains([silence])
    assert gains == [pytest.approx(100.0)] and model.gains([silence]) == [1.0]
    (found,) = leveled.decode(leveled.encode([silence], gains=gains), gains=gains)
    (without,) = model.decode(model.encode([silence]))
    np.testing.assert_allclose(found, without / 100.0, atol=1e-7)


def test_long_sounds_and_streams_have_gains(leveled, monkeypatch):
    autoencoder, variables = tiny_models.built()
    waveform, gain = 0.1 * _sound(70_000)[:, 0], leveled.gains([0.1 * _sound(70_000)[:, 0]])[0]
    (whole,) = leveled.encode([waveform])
    streamed = list(leveled.encode_stream([waveform[None]], gain=gain))
    np.testing.assert_allclose(np.concatenate(streamed, axis=1)[0], whole, atol=1e-4)
    (sound,) = leveled.decode([whole], gains=[gain])
    streamed = list(leveled.decode_stream([whole[None]], gain=[gain]))
    np.testing.assert_allclose(np.concatenate(streamed, axis=1)[0], sound, atol=1e-5)
    monkeypatch.setattr(codec, "_WHOLE_LATENTS", 20)  # longer ones are streamed
    short = codec.Codec(autoencoder.clone(level_db=-20.0), variables["params"])
    np.testing.assert_allclose(short.encode([waveform])[0], whole, atol=1e-4)
    np.testing.assert_allclose(short.decode([whole], gains=[gain])[0], sound, atol=1e-5)


def test_latents_of_another_level_carry_another_fingerprint(model, leveled):
    assert model.fingerprint != leveled.fingerprint
    (latents,) = leveled.encode([_sound(5_000)[:, 0]])
    made = leveled.frames_of([latents], [5_000], sample_rate=16_000)
    with pytest.raises(ValueError, match="made by weights"):
        model.check(made)


def test_nothing_in_a_stream_is_nothing(model):
    assert list(model.encode_stream([])) == list(model.decode_stream([])) == []


@pytest.mark.parametrize("value", [3e38, np.nan])
def test_latents_that_give_no_finite_sound_are_refused(model, value):
    latents = np.full((3, model.autoencoder.latent_dim), value, np.float32)
    with pytest.raises(ValueError, match="some that give no finite sound: encode the sound again"):
        model.decode([latents])
    with pytest.raises(ValueError, match="some that give no finite sound"):
        list(model.decode_stream([latents[None]]))
