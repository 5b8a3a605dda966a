# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Embedded corpus of sound events and noise."""

import numpy as np

from data_pipelines import synthesis

TASK = "caption"


def missing() -> str | None:
    """Returns None: this corpus needs nothing that is not always installed."""
    return None


def generate(index: int, *, seed: int, sample_rate: int) -> tuple[np.ndarray, str, dict[str, str]]:
    """Returns (waveform, caption, labels) of clip `index`; see corpora.generate."""
    rng = synthesis.generator("events", seed, index)
    pink = synthesis.noise(
        rng, num_samples=2 * sample_rate, sample_rate=sample_rate, response=synthesis.tilt(-0.5))
    return synthesis.finish(pink, rng, sample_rate=sample_rate), "steady pink noise", {"class": "noise"}
