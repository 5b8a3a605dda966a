# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Silero VAD over all windows at once, beside its graph that takes one after the other."""

import numpy as np
import pytest

from f3tok_jax.evaluation.judges import judge
from f3tok_jax.evaluation.judges import voice_activity
from tests.support import sounds

_missing = voice_activity.SileroVad.package.missing()


@pytest.fixture(scope="module")
def hearer():
    if _missing:
        pytest.skip(_missing)
    return voice_activity.SileroVad()


def test_probabilities_are_those_of_windows_one_after_the_other(hearer):
    sound = sounds.speechlike(1.01).astype(np.float32)
    graph = judge.onnx_session(hearer.package.file("silero_vad/data/silero_vad.onnx"))
    state, context, wanted = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32), []
    for window in np.pad(sound, (0, -len(sound) % 512)).reshape(-1, 512):
        inputs = {"input": np.concatenate([context, window])[None], "state": state}
        found, state = graph.run(None, inputs | {"sr": np.array(16_000)})
        context = window[-64:]
        wanted.append(found.item())
    np.testing.assert_allclose(hearer.probabilities(sound), wanted, atol=1e-4)


def test_silence_is_no_speech_and_agrees_with_itself(hearer):
    silence = np.zeros(9_000, np.float32)
    found = hearer(silence, judge.RATE, reference=silence)
    assert found.values == {"speech_share": 0.0, "speech_agreement": 1.0} and not found.undefined


def test_decisions_are_compared_window_by_window(hearer):
    one, other = np.array([True, True, False, False]), np.array([True, False, False, False, True])
    found = hearer.verdict(one, reference=other).values
    assert found == {"speech_share": 0.5, "speech_agreement": 0.75}
