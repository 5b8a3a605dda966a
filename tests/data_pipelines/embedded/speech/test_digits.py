# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The embedded corpus of single digits."""

import numpy as np
import pytest

from data_pipelines.embedded import corpora
from data_pipelines.embedded.speech import numerals


@pytest.fixture(scope="module")
def clips():
    if corpora.available("digits"):
        pytest.skip(corpora.available("digits"))
    return [corpora.generate("digits", i, seed=0, sample_rate=16_000) for i in range(40)]


def test_each_digit_comes_equally_often_and_is_what_is_said(clips):
    digits = [clip.labels["digit"] for clip in clips]
    assert all(digits.count(str(digit)) == 4 for digit in range(10))
    for clip in clips:
        assert clip.text == numerals.digit(int(clip.labels["digit"]), language="en")
        assert clip.text_kind == "transcript" and clip.labels["language"] == "en"


def test_many_voices_speak_and_no_clip_is_another(clips):
    assert len({clip.labels["voice"] for clip in clips}) > 12
    assert len({clip.waveform.tobytes() for clip in clips}) == len(clips)
    assert all(np.isfinite(clip.waveform).all() for clip in clips)


def test_a_clip_is_the_same_whenever_it_is_made(clips):
    again = corpora.generate("digits", 7, seed=0, sample_rate=16_000)
    np.testing.assert_array_equal(again.waveform, clips[7].waveform)
