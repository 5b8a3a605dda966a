# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Metrics on sounds whose values are known."""

import jax
import numpy as np
import pytest

from f3tok_jax.evaluation import metrics
from f3tok_jax.losses import reconstruction as reconstruction_losses
from tests.support import sounds

_OWN = tuple(name for name, metric in metrics.METRICS.items() if not metric.package)


@pytest.mark.parametrize(
    "name, best",
    [
        ("mel_distance", 0.0),
        ("mel_distance_in_band", 0.0),
        ("mel_distance_at_one_level", 0.0),
        ("level_difference", 0.0),
        ("stft_distance", 0.0),
        ("si_sdr", 100.0),
        ("mel_cepstral_distortion", 0.0),
        ("phase_coherence", 1.0),
    ],
)
def test_best_value_for_the_sound_itself(name, best):
    sound = sounds.speechlike()
    values, undefined = metrics.compare(sound, sound.copy(), sample_rate=16_000, names=(name,))
    assert values[name] == pytest.approx(best, abs=1e-6) and not undefined


@pytest.mark.parametrize("name", _OWN)
def test_more_noise_is_worse(name):
    sound, noise = sounds.speechlike(), np.random.default_rng(1).normal(size=16_000)
    values = [
        metrics.METRICS[name].function(sound, sound + level * noise, 16_000)
        for level in (0.001, 0.01, 0.1)
    ]
    assert values == sorted(values, reverse=metrics.METRICS[name].higher_is_better)


def test_distances_equal_the_losses():
    rng = np.random.default_rng(0)
    target, output = rng.uniform(-0.5, 0.5, (2, 2003)).astype(np.float32)

    @jax.jit  # eagerly, each operation of each window would be compiled by itself
    def both(*arrays):
        mel = reconstruction_losses.multi_scale_mel(
            *arrays,
            sample_rate=16_000,
            windows=metrics.MEL_WINDOWS,
            bands=metrics.MEL_BANDS,
            unit_area=False,
        )
        stft = reconstruction_losses.multi_resolution_stft(*arrays, windows=metrics.STFT_WINDOWS)
        return mel[0] / mel[1], stft[0] / stft[1]

    mel, stft = both(target[None], output[None], np.ones((1, 2003), bool))
    # float32 against float64 in the windows' products.
    assert metrics.mel_distance(target, output, 16_000) == pytest.approx(float(mel), rel=1e-4)
    assert metrics.stft_distance(target, output, 16_000) == pytest.approx(float(stft), rel=1e-4)


def test_what_lies_above_the_band_of_a_recording_counts_in_the_full_band_alone():
    time = np.arange(24_000) / 24_000
    low = sum(np.sin(2 * np.pi * 200 * k * time) for k in range(1, 16)) / 30  # up to 3 kHz
    hiss = 1e-2 * np.sin(2 * np.pi * 9_000 * time)
    full, in_band = (
        metrics.METRICS[name].function(low, low + hiss, 24_000)
        for name in ("mel_distance", "mel_distance_in_band")
    )
    assert full > 0.5 and in_band < 0.05 * full
    # And what the codec does within the band counts as it does in the full one.
    worse = [
        metrics.METRICS[name].function(low, 0.5 * low, 24_000)
        for name in ("mel_distance", "mel_distance_in_band")
    ]
    assert worse[1] > worse[0]


def test_a_gain_is_a_difference_of_level_and_nothing_else():
    sound = sounds.speechlike()
    for gain, decibels in ((0.5, 6.02), (2.0, 6.02), (-1.0, 0.0)):
        values, _ = metrics.compare(
            sound,
            gain * sound,
            sample_rate=16_000,
            names=("level_difference", "mel_distance_at_one_level"),
        )
        assert values["level_difference"] == pytest.approx(decibels, abs=0.01)
        assert values["mel_distance_at_one_level"] == pytest.approx(0.0, abs=1e-3)
    assert metrics.mel_distance(sound, 0.5 * sound, 16_000) > 0.5


def test_si_sdr_known_values():
    reference = np.tile([1.0, -1.0, 1.0, -1.0], 100)
    error = np.tile([1.0, 1.0, -1.0, -1.0], 100)  # orthogonal to the reference, without a mean
    assert metrics.si_sdr(reference, reference + 0.1 * error, 1) == pytest.approx(20.0)
    assert metrics.si_sdr(reference, 3.0 * (reference + 0.1 * error) + 0.5, 1) == pytest.approx(
        20.0
    )
    assert metrics.si_sdr(reference, error, 1) == pytest.approx(-100.0)
    assert metrics.si_sdr(reference, 0.0 * error, 1) == -100.0


def test_phase_coherence_known_values():
    sound = sounds.speechlike()
    assert metrics.phase_coherence(sound, 0.3 * sound, 16_000) == pytest.approx(1.0)
    assert metrics.phase_coherence(sound, -sound, 16_000) == pytest.approx(-1.0)
    rng = np.random.default_rng(0)
    # Unrelated noises: about 60 frames x 513 bins of independent cosines, so 0.01 around 0.
    assert (
        abs(metrics.phase_coherence(rng.normal(size=16_000), rng.normal(size=16_000), 16_000))
        < 0.05
    )


def test_mel_cepstral_distortion_ignores_level_and_measures_decibels():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=16_000)
    assert metrics.mel_cepstral_distortion(noise, 0.25 * noise, 16_000) == pytest.approx(
        0.0, abs=1e-9
    )
    # A ripple of a dB over the mel axis, made of one cosine of the 13: its root mean square is a /
    # sqrt 2.
    basis = metrics._cosine_transform(40, 13)
    ripple_db = 6.0 * np.cos(np.pi * 3 * (np.arange(40) + 0.5) / 40)
    cepstra = (ripple_db / 20 * np.log(10)) @ basis
    assert 10 / np.log(10) * np.sqrt(2 * np.sum(cepstra**2)) == pytest.approx(6.0 / np.sqrt(2))


@pytest.mark.parametrize("num_samples", [1, 2, 63, 1000])
def test_short_sounds_have_values_or_reasons(num_samples):
    names = tuple(name for name in metrics.METRICS if name not in metrics.missing())
    rng = np.random.default_rng(0)
    values, undefined = metrics.compare(
        rng.normal(size=num_samples), rng.normal(size=num_samples), sample_rate=16_000, names=names
    )
    assert set(values) | set(undefined) == set(names) and not set(values) & set(undefined)
    assert all(np.isfinite(value) for value in values.values())
    for name in set(names) - set(_OWN):
        assert undefined[name]


@pytest.mark.parametrize("which", ["reference", "estimate", "both"])
def test_silence_has_values_or_reasons(which):
    names = tuple(name for name in metrics.METRICS if name not in metrics.missing())
    sound, silence = sounds.speechlike(0.6), np.zeros(9600)
    values, undefined = metrics.compare(
        silence if which != "estimate" else sound,
        silence if which != "reference" else sound,
        sample_rate=16_000,
        names=names,
    )
    assert set(values) | set(undefined) == set(names)
    assert all(np.isfinite(value) for value in values.values())
    assert "silent" in undefined["phase_coherence"]
    assert ("si_sdr" in undefined) == (which != "estimate")
    assert "silent" in undefined["level_difference"]


@pytest.mark.parametrize(
    "name, package, low, high",
    [
        *(("stoi", "pystoi", 0.9, 1.0), ("estoi", "pystoi", 0.8, 1.0)),
        ("pesq", "pesq", 3.0, 4.7),
    ],
)
def test_speech_metrics_of_nearly_the_same_sound(name, package, low, high):
    pytest.importorskip(package)
    sound = sounds.speechlike(1.5, 24_000)
    estimate = sound + 1e-4 * np.random.default_rng(1).normal(size=len(sound))
    assert low < metrics.METRICS[name].function(sound, estimate, 24_000) <= high


def test_absent_packages_are_named(monkeypatch):
    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: None)
    assert metrics.missing() == {
        "stoi": "not installed: pip install -e '.[eval]' in the checkout",
        "estoi": "not installed: pip install -e '.[eval]' in the checkout",
        "pesq": "not installed: pip install -e '.[eval]' in the checkout",
        "visqol": "not installed: pip install -e '.[visqol]' in the checkout",
    }


def test_shapes_and_broken_estimates_are_refused():
    with pytest.raises(ValueError, match="trim both"):
        metrics.compare(np.zeros(10), np.zeros(9), sample_rate=16_000)
    with pytest.raises(ValueError, match="weights are broken"):
        metrics.compare(np.ones(10), np.full(10, np.nan), sample_rate=16_000)


def test_effective_rank():
    assert metrics.effective_rank(np.eye(7)) == pytest.approx(7.0)
    assert metrics.effective_rank(np.diag([4.0, 0.0, 0.0])) == pytest.approx(1.0)
    assert metrics.effective_rank(np.zeros((3, 3))) == 0.0
    # Singular values 3 and 1: entropy of (3/4, 1/4).
    assert metrics.effective_rank(np.diag([9.0, 1.0])) == pytest.approx(
        np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))
    )
