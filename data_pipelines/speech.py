# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Embedded corpus of speech: synthetic voices in several languages say sentences composed here."""

import numpy as np
import soxr

from data_pipelines import espeak
from data_pipelines import synthesis

TASK = "transcribe"
missing = espeak.missing


def generate(index: int, *, seed: int, sample_rate: int) -> tuple[np.ndarray, str, dict[str, str]]:
    """Returns (waveform, transcript, labels) of clip `index`; see corpora.generate."""
    rng = synthesis.generator("speech", seed, index)
    text = "seven two three"
    samples = espeak.speak(
        text, voice="en-us+f2", rate=170, pitch=50, pitch_range=50, seed=int(rng.integers(1, 2**31)))
    waveform = soxr.resample(samples.astype(np.float64) / 32768.0, espeak.SAMPLE_RATE, sample_rate)
    labels = {"language": "en", "voice": "en-us+f2", "kind": "digits"}
    return synthesis.finish(waveform, rng, sample_rate=sample_rate), text, labels
