# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Embedded speech: languages, voices, kinds, and that the words are said."""

import collections

import numpy as np
import pytest

from data_pipelines.embedded.speech import espeak
from data_pipelines.embedded.speech import sentences
from data_pipelines.embedded.speech import speech

pytestmark = pytest.mark.skipif(espeak.missing() is not None, reason=str(espeak.missing()))


def test_every_voice_is_known_and_unlike_the_others():
    voices = [voice for names in speech.VOICES.values() for voice in names]
    assert len(set(voices)) == len(voices) >= 100
    assert len(speech.VOICES) >= 4
    sounds = {
        espeak.speak("a e i o u", voice=voice, rate=200, pitch=50, pitch_range=50, seed=1).tobytes()
        for voice in speech.VOICES["en"]
    }
    assert len(sounds) == len(speech.VOICES["en"])


def test_shares_of_languages_kinds_and_voices():
    labels = [speech.generate(index, seed=0, sample_rate=8_000)[2] for index in range(126)]
    languages = collections.Counter(label["language"] for label in labels)
    kinds = collections.Counter(label["kind"] for label in labels)
    # 126 is a multiple of both balanced blocks (7 and 9), so the shares are exact.
    assert languages == {"en": 54, "de": 18, "es": 18, "fr": 18, "it": 18}
    assert kinds == {"digits": 56, "sentence": 42, "name": 14, "number": 14}
    assert set(kinds) == set(sentences.KINDS)
    assert len({label["voice"] for label in labels}) > 50
    assert {label["gender"] for label in labels} == {"female", "male"}
    assert all(label["voice"] in speech.VOICES[label["language"]] for label in labels)


def test_more_words_take_longer():
    lengths, words = [], []
    for index in range(40):
        waveform, text, _ = speech.generate(index, seed=1, sample_rate=8_000)
        lengths.append(len(waveform))
        words.append(len(text.replace(" ", "")))
    # Voices speak at different rates, so the correlation is not 1.
    assert np.corrcoef(lengths, words)[0, 1] > 0.7


def test_women_speak_higher():
    pitches = {"female": [], "male": []}
    for gender, voice in (
        ("female", "en+f2"),
        ("female", "en-us+Annie"),
        ("male", "en+m1"),
        ("male", "en+m3"),
    ):
        samples = espeak.speak("one", voice=voice, rate=150, pitch=50, pitch_range=20, seed=1)
        middle = samples[len(samples) // 2 - 1024 : len(samples) // 2 + 1024].astype(float)
        correlation = np.fft.irfft(np.abs(np.fft.rfft(middle, 4096)) ** 2)
        pitches[gender].append(espeak.SAMPLE_RATE / (60 + np.argmax(correlation[60:330])))
    assert min(pitches["female"]) > 150.0 > max(pitches["male"])
