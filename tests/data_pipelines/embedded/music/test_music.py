# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Embedded music: labels are in the vocabulary and true of the sound."""

import numpy as np

from data_pipelines.embedded import synthesis
from data_pipelines.embedded.music import instruments
from data_pipelines.embedded.music import music
from data_pipelines.embedded.speech import numerals

_RATE = 16_000  # Hz


def test_vocabulary_and_coverage():
    clips = [music.generate(index, seed=0, sample_rate=8_000) for index in range(48)]
    labels = [label for _, _, label in clips]
    assert {label["instrument"] for label in labels} == {*instruments.INSTRUMENTS, "drums"}
    assert {label["family"] for label in labels} == {"plucked", "bowed", "blown", "struck"}
    assert {label["texture"] for label in labels} == {
        "note",
        "melody",
        "chord",
        "arpeggio",
        "rhythm",
    }
    assert {label["mode"] for label in labels} == {"major", "minor", "none"}
    for _, caption, label in clips:
        assert label["instrument"] in caption
        assert (label["tempo"] == "none") == (label["texture"] in ("note", "chord"))
        if label["tempo"] != "none":
            tempo = int(label["tempo"])
            assert 60 <= tempo <= 160
            assert f"{numerals.words(tempo, language='en')} beats per minute" in caption
        if label["instrument"] != "drums":
            assert 28 <= int(label["pitch"]) <= 96


def test_single_notes_have_the_pitch_of_their_label():
    checked = 0
    for index in range(60):
        waveform, caption, label = music.generate(index, seed=1, sample_rate=_RATE)
        if label["texture"] != "note" or label["instrument"] == "drums":
            continue
        wanted = instruments.frequency(int(label["pitch"]))
        power = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 1 << 18)) ** 2
        cents = 1200.0 * np.log2(np.maximum(np.fft.rfftfreq(1 << 18, 1.0 / _RATE), 1.0) / wanted)
        near = np.abs(cents) < 100.0
        # Vibrato reaches 14 cents; a room adds nothing to the frequency.
        assert abs(cents[np.argmax(np.where(near, power, 0.0))]) < 20.0, caption
        assert music.note_name(int(label["pitch"])) in caption
        checked += 1
    assert checked >= 10


def test_rhythms_beat_at_their_tempo():
    checked = 0
    players = (*instruments.INSTRUMENTS, "drums")
    for index in range(200):
        player = synthesis.balanced_choice(players, stream="music player", seed=2, index=index)
        if player != "drums":
            continue
        waveform, _, label = music.generate(index, seed=2, sample_rate=_RATE)
        beat = 60.0 / int(label["tempo"])
        level = np.abs(waveform[: len(waveform) // 80 * 80]).reshape(-1, 80).max(axis=1)  # 5 ms
        onset = np.maximum(np.diff(level), 0.0)

        # Drums repeat every bar: the onsets agree with themselves four beats later, not 3.37.
        def agreement(seconds):
            lag = int(round(seconds / 0.005))
            return max(
                np.sum(onset[: -lag - 2] * onset[lag + shift : len(onset) - 2 + shift])
                for shift in (0, 1, 2)
            )

        if 8 * beat < len(waveform) / _RATE:
            assert agreement(4 * beat) > 2.0 * agreement(3.37 * beat)
            checked += 1
    assert checked >= 3


def test_note_names():
    assert music.note_name(60) == "c four"
    assert music.note_name(70) == "a sharp four"
