# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The autoencoder: shapes of the real presets, causality, streams, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import autoencoder as recipe
from f3tok_jax.models import autoencoder as autoencoder_lib
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from tests.support import tiny_models


def _noise(shape, seed=0):
    return 0.1 * np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("preset", recipe.PRESETS)
def test_full_size_presets_have_the_stated_shapes(preset):
    model = pretrained_autoencoder.make(recipe.get_config(preset))
    waveform = jax.ShapeDtypeStruct((2, model.sample_rate), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), waveform)
    apply = lambda method, x: jax.eval_shape(
        lambda v, y: model.apply(v, y, method=method), variables, x
    )
    latents = apply("waveform_to_latents", waveform)
    assert (latents.shape, latents.dtype) == ((2, 25, model.latent_dim), jnp.float32)
    assert apply("latents_to_waveform", latents).shape == (2, model.sample_rate)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


def test_spectrostream_geometry_has_the_published_size():
    model = pretrained_autoencoder.make(recipe.get_config("spectrostream"))
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 960)))
    count = lambda name: sum(leaf.size for leaf in jax.tree.leaves(variables["params"][name]))
    # methods.md 2.1: 5.9 M at depth 32 in the encoder, 23.4 M at 64 in the decoder.
    assert count("encoder") / 5.9e6 == pytest.approx(1, abs=0.1)
    assert count("decoder") / 23.4e6 == pytest.approx(1, abs=0.1)


def test_the_decoder_begins_with_a_twentieth_of_normalised_latents():
    """Where its units are all but linear; see configs/README.md, "Phases"."""
    model, variables = tiny_models.built()
    pair = variables["params"]["decoder"]["dense_pair"]
    latents = np.random.default_rng(0).normal(size=(1000, model.latent_dim))
    for layer in (pair["hidden"], pair["shortcut_layer"]["linear"]):
        heard = latents @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        assert np.sqrt(np.mean(heard**2)) == pytest.approx(0.05, rel=0.3)


@pytest.mark.parametrize("num_samples", [1, 640, 641])
def test_reconstruction_is_as_long_as_the_input(num_samples):
    model, variables = tiny_models.built()
    reconstruction, latents, _ = jax.eval_shape(model.apply, variables, _noise((2, num_samples)))
    assert reconstruction.shape == (2, num_samples)
    assert latents.shape == (2, -(-num_samples // 640), 8)


def test_encoder_hears_no_further_than_its_lookahead():
    model, variables = tiny_models.built()
    encode = jax.jit(lambda x: model.apply(variables, x, method="waveform_to_latents"))
    waveform = _noise((1, 6 * 640))
    end = 3 * 640 + model.encoder_lookahead
    changed = waveform.copy()
    changed[:, end:] = _noise(changed[:, end:].shape, seed=1)
    before, after = encode(waveform), encode(changed)
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert np.abs(before[:, 3] - after[:, 3]).max() > 1e-3


@pytest.mark.parametrize(
    "strides, fold",
    [(((2, 2), (2, 2)), 5), (((1, 2), (4, 2)), 5), (((1, 2), (2, 2), (2, 2)), 1)],
)
def test_encoder_hears_as_far_back_as_its_history_and_no_further(strides, fold):
    model, variables = tiny_models.built(strides=strides, fold=fold)
    frame, hop = 12, model.samples_per_latent
    waveform = _noise((1, 14 * hop))

    def heard(waveform):
        latents = model.apply(variables, waveform, method="waveform_to_latents")
        return jnp.sum(latents[0, frame] * jnp.arange(1.0, 1.0 + model.latent_dim))

    reached = np.flatnonzero(jax.jit(jax.grad(heard))(waveform)[0])
    # A Hann window is zero at its first sample.
    assert reached[0] == frame * hop - model.encoder_history + 1
    assert reached[-1] == (frame + 1) * hop + model.encoder_lookahead - 1


@pytest.mark.parametrize("lookahead", [0, 1])
def test_decoder_sees_no_further_than_its_lookahead(lookahead):
    model, variables = tiny_models.built(decoder_lookahead=lookahead)
    decode = jax.jit(lambda z: model.apply(variables, z, method="latents_to_waveform"))
    latents = _noise((1, 6, 8))
    changed = latents.copy()
    changed[:, 4:] = _noise((1, 2, 8), seed=1)
    first = (4 - lookahead) * 640
    before, after = decode(latents), decode(changed)
    np.testing.assert_array_equal(before[:, :first], after[:, :first])
    assert np.abs(before[:, first : first + 640] - after[:, first : first + 640]).max() > 1e-6


def _streamed(model, variables, waveform, chunk):
    hop, lookahead = model.samples_per_latent, model.encoder_lookahead
    num_latents = -(-waveform.shape[1] // hop)
    padded = np.pad(waveform, ((0, 0), (0, num_latents * hop + lookahead - waveform.shape[1])))
    apply = tiny_models.compiled(model)
    state, latents = model.apply({}, waveform.shape[0], method="encoder_state"), []
    for start in range(0, num_latents, chunk):
        stop = min(start + chunk, num_latents)
        heard = padded[:, start * hop : stop * hop + lookahead]
        state, part = apply(variables, state, heard, method="encode_step")
        latents.append(part)
    latents = np.concatenate(latents, axis=1)
    late = model.decoder_lookahead
    state, sound = model.apply({}, waveform.shape[0], method="decoder_state"), []
    fed = np.pad(latents, ((0, 0), (0, late), (0, 0)))
    for start in range(0, fed.shape[1], chunk):
        state, part = apply(variables, state, fed[:, start : start + chunk], method="decode_step")
        sound.append(part)
    return latents, np.concatenate(sound, axis=1)[:, late * hop :][:, : waveform.shape[1]]


@pytest.mark.parametrize("num_samples, chunk", [(1, 1), (24_000, 1), (24_000, 50), (100_001, 3)])
def test_stream_equals_whole(num_samples, chunk):
    model, variables = tiny_models.built("tiny_24khz")
    waveform, apply = _noise((1, num_samples)), tiny_models.compiled(model)
    latents, sound = _streamed(model, variables, waveform, chunk)
    whole_latents = apply(variables, waveform, method="waveform_to_latents")
    whole_sound = apply(variables, whole_latents, method="latents_to_waveform")[:, :num_samples]
    assert sound.shape == (1, num_samples)
    # Float32 sums in another order; the latents have rms 1.
    np.testing.assert_allclose(latents, whole_latents, atol=1e-4)
    np.testing.assert_allclose(sound, whole_sound, atol=1e-4)


def test_formulations_give_the_same_sound():
    model, variables = tiny_models.built(upsampling="subpixel")
    other, _ = tiny_models.built(upsampling="transposed")
    waveform = _noise((2, 5 * 640))
    one, two = (tiny_models.compiled(one)(variables, waveform)[0] for one in (model, other))
    np.testing.assert_allclose(one, two, atol=1e-5)


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("fold", 7, "must divide the 160 frequency bins"),
        ("encoder_channels", (8, 8, 8), "one width per stage"),
        ("frame_length", 400, "twice config.model.hop_length"),
        ("decoder_lookahead", 2, "must be one of .*0, 1"),
        ("compression", 0.0, "must be in"),
        ("upsampling", "nearest", "must be one of"),
    ],
)
def test_geometry_that_does_not_fit_is_refused(field, value, words):
    config = tiny_models.config(**{field: value})
    with pytest.raises(ValueError, match=words):
        autoencoder_lib.check_geometry(config.model)
