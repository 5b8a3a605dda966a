# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Embedded corpus of single digits: every English synthetic voice says "zero" to "nine".

Labels: digit ("7"), language, voice and gender, as in the corpus of speech.
"""

import numpy as np

from data_pipelines.embedded import synthesis
from data_pipelines.embedded.speech import numerals
from data_pipelines.embedded.speech import speech

TEXT_KIND = speech.TEXT_KIND
LABELS = ("language", "voice", "gender", "digit")

_LANGUAGE = "en"
_DIGITS = tuple(str(digit) for digit in range(10))

missing = speech.missing


def generate(index: int, *, seed: int, sample_rate: int) -> tuple[np.ndarray, str, dict[str, str]]:
    """Returns (waveform, transcript, labels) of clip `index`; see corpora.generate."""
    rng = synthesis.generator("digits", seed, index)
    digit = synthesis.balanced_choice(_DIGITS, stream="digits", seed=seed, index=index)
    voice = str(rng.choice(speech.VOICES[_LANGUAGE]))
    text = numerals.digit(int(digit), language=_LANGUAGE)
    waveform = speech.say(text, voice=voice, rng=rng, sample_rate=sample_rate)
    return waveform, text, speech.voice_labels(voice, _LANGUAGE) | {"digit": digit}
