# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Embedded corpus of music: plucked, bowed, blown and struck tones, chords and rhythms."""

import numpy as np

from data_pipelines import synthesis

TASK = "caption"


def missing() -> str | None:
    """Returns None: this corpus needs nothing that is not always installed."""
    return None


def generate(index: int, *, seed: int, sample_rate: int) -> tuple[np.ndarray, str, dict[str, str]]:
    """Returns (waveform, caption, labels) of clip `index`; see corpora.generate."""
    rng = synthesis.generator("music", seed, index)
    pitch = int(rng.integers(45, 75))
    partials = np.arange(1, 40)
    tone = synthesis.modes(
        440.0 * 2.0 ** ((pitch - 69) / 12.0) * partials, amplitudes=np.sin(0.6 * partials) / partials,
        decay_times=1.0 / partials, num_samples=int(2.0 * sample_rate), sample_rate=sample_rate)
    labels = {"instrument": "guitar", "pitch": str(pitch), "tempo": "none", "texture": "note"}
    return synthesis.finish(tone, rng, sample_rate=sample_rate), "a guitar plays one note", labels
