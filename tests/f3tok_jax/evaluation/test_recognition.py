# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is recognized in sounds, where what is in them is known."""

import numpy as np
import pytest

from f3tok_jax.evaluation import recognition

_CLASSES = ("0", "1", "2", "long word")


def _predict(waveforms) -> np.ndarray:
    """Hears the level of a sound."""
    return np.array([round(float(waveform.mean())) for waveform in waveforms])


def _sound(*levels: int) -> np.ndarray:
    return np.repeat(np.array(levels, np.float32), 10)


def test_one_label_is_heard_in_the_whole_sound():
    measure = recognition.LabelAccuracy(_predict, _CLASSES, ["0", "2", "long word"])
    assert measure([_sound(0), _sound(2), _sound(3)]) == 1.0
    assert measure([_sound(0), _sound(1), _sound(3)]) == pytest.approx(2 / 3)


def test_several_labels_are_heard_in_equal_parts_in_their_order():
    measure = recognition.LabelAccuracy(_predict, _CLASSES, ["0 1 2", "1"])
    assert measure([_sound(0, 1, 2), _sound(1)]) == 1.0
    assert measure([_sound(2, 1, 0), _sound(1)]) == 0.5
    # Slower speech has longer parts.
    assert measure([_sound(0, 0, 1, 1, 2, 2), _sound(1)]) == 1.0


def test_sounds_shorter_than_their_labels_have_parts():
    measure = recognition.LabelAccuracy(_predict, _CLASSES, ["1 1 1"])
    assert measure([np.ones(1, np.float32)]) == 1.0


@pytest.mark.parametrize("label", ["", "7", "0 7"])
def test_a_label_that_the_classifier_never_heard_is_named(label):
    with pytest.raises(ValueError, match=f"got '{label}' to hear and recordings of 0, 1, 2, long"):
        recognition.LabelAccuracy(_predict, _CLASSES, ["0", label])
