# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The synthesiser behind embedded speech: no state between utterances, errors in words."""

import _ctypes
import ctypes

import numpy as np
import pytest

from data_pipelines.embedded.speech import espeak

pytestmark = pytest.mark.skipif(espeak.missing() is not None, reason=str(espeak.missing()))

_MANNER = dict(rate=170, pitch=50, pitch_range=50, seed=5)


def test_an_utterance_does_not_depend_on_those_before():
    voices = ("en-us+f2", "de+m3", "fr+steph", "es+aunty", "it+david")
    first = [espeak.speak("one, two", voice=voice, **_MANNER) for voice in voices]
    again = [espeak.speak("one, two", voice=voice, **_MANNER) for voice in reversed(voices)]
    for left, right in zip(first, reversed(again), strict=True):
        np.testing.assert_array_equal(left, right)


def test_manner_is_heard():
    slow = espeak.speak("seven", voice="en+m1", **{**_MANNER, "rate": 100})
    fast = espeak.speak("seven", voice="en+m1", **{**_MANNER, "rate": 250})
    assert len(slow) > 1.3 * len(fast)
    assert np.abs(slow.astype(int)).max() < 32767  # does not clip


def test_unknown_voice_and_held_library_are_errors():
    with pytest.raises(ValueError, match="got 'xx-nowhere'"):
        espeak.speak("one", voice="xx-nowhere", **_MANNER)
    espeakng_loader = pytest.importorskip("espeakng_loader")
    held = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        with pytest.raises(RuntimeError, match="holds it loaded"):
            espeak.speak("one", voice="en", **_MANNER)
    finally:
        _ctypes.dlclose(held._handle)
    assert len(espeak.speak("one", voice="en", **_MANNER))
