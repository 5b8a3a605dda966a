# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The rows of an evaluation, with a codec that only cuts a waveform into frames."""

import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.evaluation import baselines
from f3tok_jax.evaluation import examples as examples_lib
from f3tok_jax.evaluation import opus
from f3tok_jax.evaluation import rows as rows_lib
from f3tok_jax.inference import codec


class _Frames:
    """An autoencoder whose latents are raw frames times a weight, and that adds a hiss."""

    samples_per_latent, sample_rate, latent_dim = 4, 100, 4

    def __init__(self, hiss: float = 0.0, level_db: float = 0.0):
        self._hiss, self.level_db = hiss, level_db

    def apply(self, variables, array, *, mask, method):
        del mask
        weight = variables["params"]["weight"]
        if method == "waveform_to_latents":
            padded = jnp.pad(array, ((0, 0), (0, -array.shape[1] % 4)))
            return weight * padded.reshape(len(array), -1, 4)
        return (array / weight).reshape(len(array), -1) + self._hiss


def _model(batch_size: int = 3, **fields: float) -> rows_lib.Model:
    params = {"weight": jnp.float32(2.0)}
    found = codec.Codec(_Frames(**fields), params)
    return rows_lib.Model(found, batch_size=batch_size, num_samples=10)


def _examples(*lengths: int) -> list[examples_lib.Example]:
    rng = np.random.default_rng(0)
    return [
        examples_lib.Example(key=f"key {index}", waveform=rng.normal(size=n).astype(np.float32))
        for index, n in enumerate(lengths)
    ]


def test_clean_sounds_come_back_at_their_lengths():
    examples = _examples(10, 3)
    for example, sound in zip(examples, _model().reconstruct(examples, alpha=0.0), strict=True):
        np.testing.assert_array_equal(sound, example.waveform)


def test_a_sound_has_the_latents_that_it_has_alone():
    examples = _examples(10, 3, 4)
    latents = _model().encode(examples)
    assert [len(one) for one in latents] == [3, 1, 1]
    for example, one in zip(examples, latents):
        np.testing.assert_array_equal(_model().encode([example])[0], one)


def test_noise_depends_on_the_key_and_grows_with_alpha():
    first, second = _examples(10, 10)
    together = _model().reconstruct([first, second], alpha=1.0)
    alone = _model(batch_size=1).reconstruct([second], alpha=1.0)
    np.testing.assert_array_equal(together[1], alone[0])
    half = _model().reconstruct([first, second], alpha=0.5)
    for example, whole, smaller in zip([first, second], together, half, strict=True):
        # Noise of alpha 1 on latents twice the samples: half of it on the samples.
        noise = whole - example.waveform
        assert 0.1 < np.std(noise) < 1.5
        np.testing.assert_allclose(smaller - example.waveform, 0.5 * noise, atol=1e-6)
    assert np.any(np.abs((together[0] - first.waveform) - (together[1] - second.waveform)) > 0.1)


def test_noise_is_as_loud_as_latents_that_nothing_holds_at_an_rms_of_1():
    examples = _examples(10, 3, 9, 8)
    model, plain = _model(), _model()
    model.measure(examples)
    frames = np.concatenate(model.encode(examples[:3]) + model.encode(examples[3:]))
    assert model.latent_rms == pytest.approx(np.sqrt(np.mean(frames**2)), rel=1e-6)
    assert model.latent_rms > 1.2 and plain.latent_rms == 1.0
    (found,), (wanted,) = (one.reconstruct(examples[:1], alpha=0.5) for one in (model, plain))
    sound = examples[0].waveform
    np.testing.assert_allclose(found - sound, model.latent_rms * (wanted - sound), atol=1e-5)
    pca = baselines.fit_pca([np.arange(40.0)], frame_length=4, latent_dim=2)
    mel = baselines.MelCodec(sample_rate=16_000, samples_per_latent=4, latent_dim=2)
    description = rows_lib.make_rows(model, pca, mel)[2].description
    assert f"0.5 times that of clean latents, {model.latent_rms:.3g}" in description


def test_every_row_is_there_in_order():
    examples = _examples(10, 7, 9)
    pca = baselines.fit_pca([e.waveform for e in examples], frame_length=4, latent_dim=4)
    mel = baselines.MelCodec(sample_rate=16_000, samples_per_latent=4, latent_dim=2)
    rows = rows_lib.make_rows(_model(), pca, mel)
    names = [row.name for row in rows]
    assert names == [
        "model",
        "model_alpha_0.25",
        "model_alpha_0.5",
        "model_alpha_1",
        "pca",
        "mel_griffin_lim",
        *([] if opus.missing() else ["opus_6", "opus_12", "opus_24"]),
    ]
    for row in rows:
        sounds = row.reconstruct(examples)
        assert [len(sound) for sound in sounds] == [10, 7, 9]
    # PCA of as many components as samples is exact.
    np.testing.assert_allclose(rows[4].reconstruct(examples)[1], examples[1].waveform, atol=1e-6)


def test_pca_describes_itself():
    pca = baselines.fit_pca([np.arange(40.0)], frame_length=4, latent_dim=2)
    mel = baselines.MelCodec(sample_rate=16_000, samples_per_latent=4, latent_dim=2)
    description = rows_lib.make_rows(_model(), pca, mel)[4].description
    assert "2 principal components" in description and "fitted on 10 frames" in description


@pytest.mark.parametrize("alpha", rows_lib.ALPHAS)
def test_repeated_decoding_is_equal(alpha):
    examples = _examples(10, 5)
    one, two = (_model().reconstruct(examples, alpha=alpha) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_sound_is_heard_at_a_level_and_brought_back_to_its_own():
    given = _examples(10, 7)
    silence = examples_lib.Example(key="silence", waveform=np.zeros(4, np.float32))
    for level, hiss in ((0.0, 1e-3), (-40.0, 1e-3), (-40.0, 0.0)):
        found = _model(hiss=hiss).reconstruct_at([*given, silence], level_db=level)
        for one, example in zip(found, given):
            # Beside a quiet sound the same hiss is the louder.
            peak = np.abs(example.waveform).max()
            expected = example.waveform + hiss * peak * 10 ** (-level / 20)
            np.testing.assert_allclose(one, expected, atol=1e-5 * peak)
        np.testing.assert_allclose(found[2], hiss, atol=1e-7)


@pytest.mark.parametrize("level_db", [-20.0, 0.0])
def test_sounds_come_back_at_their_level_with_a_hiss_that_is_as_loud_as_they_are(level_db):
    model, (loud,) = _model(hiss=1e-2, level_db=level_db), _examples(10)
    quiet = examples_lib.Example(key="quiet", waveform=0.01 * loud.waveform)
    for example, found in zip((loud, quiet), model.reconstruct([loud, quiet], alpha=0.0)):
        (gain,) = model.codec.gains([example.waveform])
        np.testing.assert_allclose(found - example.waveform, 1e-2 / gain, rtol=1e-3)
    # Digital silence has the largest gain.
    assert model.silence_db() == pytest.approx(-80.0 if level_db else -40.0, abs=0.01)


@pytest.mark.parametrize("hiss, wanted", [(1e-3, -60.0), (0.0, -200.0), (1e-12, -200.0)])
def test_silence_is_what_comes_of_none(hiss, wanted):
    assert _model(hiss=hiss).silence_db() == pytest.approx(wanted, abs=1e-3)
