# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The reference codecs: exact where they must be, deterministic, and of the stated width."""

import numpy as np
import pytest

from f3tok_jax.evaluation import baselines
from f3tok_jax.evaluation import metrics


def _tones(num_samples: int = 8000) -> np.ndarray:
    time = np.arange(num_samples) / 16_000
    return 0.2 * sum(np.sin(2 * np.pi * 220 * k * time + k) / k for k in range(1, 8))


def test_pca_at_full_width_is_exact():
    rng = np.random.default_rng(0)
    sounds = [rng.normal(size=n) for n in (700, 1001)]
    codec = baselines.fit_pca(sounds, frame_length=20, latent_dim=20)
    assert codec.num_frames == 35 + 51
    np.testing.assert_allclose(codec.reconstruct(sounds[1]), sounds[1], atol=1e-12)
    assert codec.waveform_to_latents(sounds[1]).shape == (51, 20)


def test_pca_is_the_best_linear_code():
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 16)) + 0.01 * rng.normal(
        size=(500, 16)
    )
    sound = frames.reshape(-1)
    codec = baselines.fit_pca([sound], frame_length=16, latent_dim=3)
    error = np.mean((codec.reconstruct(sound) - sound) ** 2)
    centred = frames - frames.mean(axis=0)
    best = np.sum(np.linalg.svd(centred, compute_uv=False)[3:] ** 2) / centred.size
    assert error == pytest.approx(best, rel=1e-9)
    np.testing.assert_allclose(codec.components @ codec.components.T, np.eye(3), atol=1e-12)


def test_pca_says_what_it_lacks():
    with pytest.raises(ValueError, match="at most frame_length=8 components, got latent_dim=9"):
        baselines.fit_pca([np.ones(100)], frame_length=8, latent_dim=9)
    with pytest.raises(ValueError, match="got 2 frames of 8 samples"):
        baselines.fit_pca([np.ones(16)], frame_length=8, latent_dim=4)


@pytest.mark.parametrize("latent_dim, num_mels, hop", [(32, 16, 320), (64, 32, 320), (33, 33, 640)])
def test_mel_codec_has_as_many_values_per_second(latent_dim, num_mels, hop):
    codec = baselines.MelCodec(sample_rate=16_000, samples_per_latent=640, latent_dim=latent_dim)
    mel = codec.waveform_to_mel(_tones(6400))
    assert (codec.num_mels, codec.hop_length) == (num_mels, hop)
    assert mel.size == 10 * latent_dim


@pytest.mark.parametrize("num_samples", [1, 319, 640, 1001])
def test_mel_codec_keeps_the_length(num_samples):
    codec = baselines.MelCodec(
        sample_rate=16_000, samples_per_latent=640, latent_dim=32, num_iterations=1
    )
    sound = codec.reconstruct(_tones(num_samples))
    assert sound.shape == (num_samples,) and np.all(np.isfinite(sound))


def test_griffin_lim_improves_with_iterations_and_repeats_itself():
    sound = _tones()

    def distance(num_iterations):
        codec = baselines.MelCodec(
            sample_rate=16_000, samples_per_latent=640, latent_dim=64, num_iterations=num_iterations
        )
        mel = codec.waveform_to_mel(sound)
        return np.mean(np.abs(codec.waveform_to_mel(codec.mel_to_waveform(mel)) - mel)) / np.mean(
            mel
        )

    assert distance(30) < 0.7 * distance(0)
    assert distance(30) == distance(30)


def test_inverse_stft_inverts():
    sound = _tones(3200)
    spectrum = baselines._stft(sound, 160)
    # The first and last hop see three windows of four; the weights make up for it.
    np.testing.assert_allclose(baselines._inverse_stft(spectrum, 160, 3200), sound, atol=1e-6)


def test_silence_stays_silent():
    codec = baselines.MelCodec(
        sample_rate=16_000, samples_per_latent=640, latent_dim=32, num_iterations=2
    )
    assert not np.any(codec.reconstruct(np.zeros(2000)))


def test_both_are_worse_than_the_sound_and_better_than_nothing():
    sound = _tones(16_000)
    pca = baselines.fit_pca([sound], frame_length=640, latent_dim=2)
    mel = baselines.MelCodec(sample_rate=16_000, samples_per_latent=640, latent_dim=32)
    for codec in (pca, mel):
        distance = metrics.mel_distance(sound, codec.reconstruct(sound), 16_000)
        assert 0.0 < distance < metrics.mel_distance(sound, np.zeros_like(sound), 16_000)
