# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The same sound, heard a little otherwise: later, louder, beside noise."""

from collections.abc import Callable
import functools
import math

import numpy as np

# Of a sound [n] float32, its rate in Hz and a seed; all of one sound are equally long.
Disturbance = Callable[..., np.ndarray]


def margin(sample_rate: int, seconds: float = 0.002) -> int:
    """Samples that `shift` needs before a sound: those of the longest shift."""
    return math.ceil(seconds * sample_rate)


def nothing(waveform: np.ndarray, sample_rate: int, seed: int) -> np.ndarray:
    """The sound as all others are compared with: without its first `margin` samples."""
    del seed
    return waveform[margin(sample_rate) :]


def shift(waveform: np.ndarray, sample_rate: int, seed: int, *, seconds: float) -> np.ndarray:
    """The sound as it was `seconds` before, rounded to samples: of the recording, not of zeros."""
    del seed
    start = margin(sample_rate) - round(seconds * sample_rate)
    return waveform[start : start + len(waveform) - margin(sample_rate)]


def gain(waveform: np.ndarray, sample_rate: int, seed: int, *, decibels: float) -> np.ndarray:
    """The sound at another level; nothing is limited."""
    return nothing(waveform, sample_rate, seed) * np.float32(10 ** (decibels / 20))


def noise(waveform: np.ndarray, sample_rate: int, seed: int, *, decibels: float) -> np.ndarray:
    """The sound beside white noise of this rms, full scale being 0."""
    heard = nothing(waveform, sample_rate, seed)
    drawn = np.random.default_rng(seed).standard_normal(len(heard), np.float32)
    return heard + drawn * np.float32(10 ** (decibels / 20))


ALL: dict[str, Disturbance] = {
    "0.5 ms": functools.partial(shift, seconds=0.0005),
    "1 ms": functools.partial(shift, seconds=0.001),
    "2 ms": functools.partial(shift, seconds=0.002),
    "+6 dB": functools.partial(gain, decibels=6.0),
    "-6 dB": functools.partial(gain, decibels=-6.0),
    "noise -50": functools.partial(noise, decibels=-50.0),
    "noise -40": functools.partial(noise, decibels=-40.0),
}
