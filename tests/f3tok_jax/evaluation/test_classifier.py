# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The classifier: on tones with moving resonances, and on changes that nobody would hear."""

import numpy as np
import pytest

from f3tok_jax.evaluation import classifier

_RATE = 16_000
_HEARING = classifier.Features(num_bands=32, num_frames=32)
_RECIPE = classifier.Training(num_steps=40)
_CLASSES = 4


def _sound(label: int, draw: np.random.Generator) -> np.ndarray:
    """A voice-like buzz whose resonance rises or falls (label % 2), from low or from high."""
    time = np.arange(round(draw.uniform(0.2, 0.35) * _RATE)) / _RATE
    share = time / time[-1]
    start = (500.0, 1800.0)[label // 2] * draw.uniform(0.9, 1.1)
    resonance = start + (600.0, -300.0)[label % 2] * share
    pitch = draw.uniform(90.0, 200.0)
    harmonics = pitch * np.arange(1, int(3500 / pitch))
    gains = np.exp(-(((harmonics[:, None] - resonance) / 200.0) ** 2)) + 0.02
    waves = np.sin(2 * np.pi * harmonics[:, None] * time + draw.uniform(0, 6, (len(harmonics), 1)))
    sound = np.sum(gains * waves, axis=0) * np.sin(np.pi * share)
    return (draw.uniform(0.02, 0.2) * sound / np.abs(sound).max()).astype(np.float32)


def _sounds(count: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % _CLASSES
    return [_sound(label, draw) for label in labels], labels


def _train(waveforms, labels, *, seed=0, training=_RECIPE, features=_HEARING, num_classes=_CLASSES):
    return classifier.train(
        waveforms,
        labels,
        sample_rate=_RATE,
        num_classes=num_classes,
        seed=seed,
        features=features,
        training=training,
    )


@pytest.fixture(scope="module")
def trained() -> classifier.Classifier:
    return _train(*_sounds(120, seed=0))


@pytest.fixture(scope="module")
def heldout() -> tuple[list[np.ndarray], np.ndarray]:
    return _sounds(60, seed=1)


def test_it_learns_what_is_easy(trained, heldout):
    sounds, labels = heldout
    found = trained.predict(sounds)
    assert found.shape == (60,) and found.dtype == np.int32
    assert np.mean(found == labels) >= 0.95
    probabilities = trained.probabilities(sounds)
    assert probabilities.shape == (60, _CLASSES) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)
    assert trained.predict([]).shape == (0,)


def test_an_answer_does_not_depend_on_the_company(trained, heldout):
    sounds, _ = heldout
    alone = np.concatenate([trained.probabilities([sound]) for sound in sounds[:3]])
    np.testing.assert_allclose(trained.probabilities(sounds + sounds[:9])[:3], alone, atol=1e-5)


@pytest.mark.parametrize("gain", (1e-4, 0.37, 5.0))
def test_level_does_not_count(trained, heldout, gain):
    sounds, _ = heldout
    louder = [np.float32(gain) * sound for sound in sounds]
    np.testing.assert_allclose(
        trained.probabilities(louder), trained.probabilities(sounds), atol=1e-3
    )


@pytest.mark.parametrize("before, after", ((1600, 0), (0, 4800), (8000, 3217)))
def test_silence_at_the_ends_does_not_count(trained, heldout, before, after):
    sounds, _ = heldout
    padded = [np.pad(sound, (before, after)) for sound in sounds]
    np.testing.assert_allclose(
        trained.probabilities(padded), trained.probabilities(sounds), atol=1e-3
    )


def test_silence_that_moves_the_frames_changes_no_answer(trained, heldout):
    sounds, _ = heldout
    padded = [np.pad(sound, (3273, 0)) for sound in sounds]
    np.testing.assert_array_equal(trained.predict(padded), trained.predict(sounds))


def test_content_above_max_hz_does_not_count(trained, heldout):
    sounds, _ = heldout

    def with_whistle(sound):
        fade = np.sin(np.pi * np.arange(len(sound)) / len(sound)) ** 2
        whistle = np.sin(2 * np.pi * 5500.0 * np.arange(len(sound)) / _RATE)
        return (sound + np.abs(sound).max() * fade * whistle).astype(np.float32)

    np.testing.assert_allclose(
        trained.probabilities([with_whistle(sound) for sound in sounds]),
        trained.probabilities(sounds),
        atol=1e-3,
    )


def test_what_is_far_below_the_peak_does_not_count(trained, heldout):
    sounds, _ = heldout
    draw = np.random.default_rng(2)
    hiss = [
        (sound + 1e-5 * np.abs(sound).max() * draw.standard_normal(len(sound))).astype(np.float32)
        for sound in sounds
    ]
    np.testing.assert_allclose(
        trained.probabilities(hiss), trained.probabilities(sounds), atol=1e-3
    )


def test_the_seed_decides():
    sounds, labels = _sounds(70, seed=3)
    training = classifier.Training(num_steps=3)
    first, again, other = (
        _train(sounds, labels, seed=seed, training=training).probabilities(sounds)
        for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_sounds_of_any_length_are_told_apart(trained):
    draw = np.random.default_rng(4)
    lengths = (1, 7, 161, 5_000, 3 * _RATE)
    sounds = [draw.standard_normal(n).astype(np.float32) for n in lengths]
    assert np.isfinite(trained.probabilities([*sounds, np.zeros(900, np.float32)])).all()


def test_training_survives_the_shortest_sounds():
    sounds, labels = _sounds(8, seed=6)
    sounds[0], sounds[1] = np.ones(1, np.float32), np.zeros(400, np.float32)
    found = _train(sounds, labels, training=classifier.Training(num_steps=3, max_shift=1000.0))
    assert np.isfinite(found.probabilities(sounds)).all()


_FINE = np.sin(np.arange(800, dtype=np.float32))


@pytest.mark.parametrize(
    "broken, what",
    (
        (np.zeros(0, np.float32), r"waveform 1 with shape \[0\]"),
        (np.where(np.arange(800) == 5, np.nan, _FINE), "1 samples not finite"),
        (np.full(800, np.inf, np.float32), "800 samples not finite"),
        (_FINE[None], r"waveform 1 with shape \[1, 800\]"),
    ),
)
def test_sounds_that_cannot_be_told_apart_are_refused(trained, broken, what):
    with pytest.raises(ValueError, match=what):
        trained.predict([_FINE, broken])
    with pytest.raises(ValueError, match=what):
        _train([_FINE, broken], np.array([0, 1]))


@pytest.mark.parametrize(
    "labels, what",
    (
        ([0, 4], r"\[0, num_classes=4\), got int64 from 0 to 4"),
        ([-1, 0], "from -1 to 0"),
        ([0.0, 1.0], "must be integers"),
        ([0, 1, 2], r"labels \[3\] for 2 waveforms"),
        ([[0, 1]], r"labels \[1, 2\] for 2 waveforms"),
    ),
)
def test_labels_that_do_not_fit_are_refused(labels, what):
    with pytest.raises(ValueError, match=what):
        _train([_FINE, _FINE], np.array(labels))


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(ValueError, match="at least one waveform"):
        _train([], np.zeros(0, np.int32))


def test_bands_above_half_the_rate_are_refused():
    with pytest.raises(ValueError, match="max_hz=9000 in its features: lower it"):
        _train([_FINE], np.array([0]), features=classifier.Features(max_hz=9000))


@pytest.mark.parametrize("wrong", ({"num_frames": 7}, {"max_hz": 0}, {"floor_db": -45.0}))
def test_features_that_hears_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="a classifier"):
        classifier.Features(**wrong)


@pytest.mark.parametrize("wrong", ({"num_steps": 0}, {"dropout": 1.0}, {"tilt_db": -1.0}))
def test_a_training_that_trains_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="change the training"):
        classifier.Training(**wrong)
