# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The level of a sound, and the gain that brings it to the one at which a model hears all sound.

A sound is multiplied by its gain before it is encoded, and divided by it after it is decoded. The level
is the rms of what is no pause: of the frames of 100 ms that are within 40 dB of the loudest one. So
silence before, behind or within a sound does not make it the quieter, and no one click the louder. It
is gated as ITU-R BS.1770 is, without that one's filter, which stands for ears: the encoder has none.

Gains are of whole sounds, and of each alone. A sound at its level may have peaks above 1: the models
hear floats, which end nowhere.
"""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

FRAMES_PER_SECOND = 10
GATE_DB = 40.0  # below the loudest frame, where pauses begin
# The noise of a converter stays quiet. What a decoder says of nothing becomes so much the quieter.
MAX_GAIN_DB = 40.0
# Full scale needs less than the level's own size. Floats of the size of PCM16 are heard at it, too.
MIN_GAIN_DB = -100.0
LEAST_DB = -60.0  # dBFS, of the levels that a model may have

_CHUNK = 2**20  # samples that are squared at a time
_MOST = 1e12


def check(level_db: float) -> None:
    """Raises ValueError for what is not the level of a model: dBFS of rms, or 0 for none."""
    if not LEAST_DB <= level_db <= 0.0:
        raise ValueError(
            f"config.model.level_db must be dBFS of rms, {LEAST_DB:g} to below 0, to which sound is "
            f"brought before it is encoded, or 0 for sound as it comes, got {level_db}"
        )


def gain(waveform: np.ndarray, *, level_db: float, sample_rate: int) -> float:
    """The gain of a whole sound; see `Meter`."""
    meter = Meter(level_db=level_db, sample_rate=sample_rate)
    meter.add(waveform)
    return meter.gain


class Meter:
    """The gain of a sound that comes in blocks, in 80 bytes for each second of it."""

    def __init__(self, *, level_db: float, sample_rate: int):
        """Has heard nothing yet.

        Args:
            level_db: dBFS of rms, to which the gain brings a sound; 0 for a gain of 1.
            sample_rate: Hz.
        """
        self._level_db, self._length = level_db, _frame_length(sample_rate)
        self._energy: list[np.ndarray] = []  # of whole frames
        self._rest = np.zeros(0, np.float32)  # of a frame that has not ended

    def add(self, block: np.ndarray) -> None:
        """Hears the next samples [any number], float."""
        if not self._level_db:
            return
        for start in range(0, len(block), _CHUNK):
            heard = np.concatenate([self._rest, block[start : start + _CHUNK]])
            whole = len(heard) // self._length * self._length
            frames = heard[:whole].reshape(-1, self._length)
            self._energy.append(_energy(frames))
            self._rest = heard[whole:]

    @property
    def gain(self) -> float:
        """Of what was heard, finite and above 0, whatever that was."""
        if not self._level_db:
            return 1.0
        energy = np.concatenate([*self._energy, _energy(self._rest[None])])
        count = np.full(len(energy), self._length)
        count[-1] = len(self._rest)
        return float(_gain(np, energy, count, self._level_db))


def gains(waveform: jax.Array, mask: jax.Array, *, level_db: float, sample_rate: int) -> jax.Array:
    """The gain of each sound of a batch, as `gain` gives it, in a graph.

    Args:
        waveform: [b, n] float32; what is not of the mask is never looked at.
        mask: [b, n] bool, True where there is sound.
        level_db: dBFS of rms, to which gains bring sounds; 0 for gains of 1.
        sample_rate: Hz.

    Returns:
        [b, 1] float32, finite and above 0, through which no gradient flows.
    """
    if not level_db:
        return jnp.ones((waveform.shape[0], 1), jnp.float32)
    length = _frame_length(sample_rate)
    count = waveform.shape[1] // length + 1  # Also of a length that only the program is told.
    missing = count * length - waveform.shape[1]

    def framed(values: jax.Array) -> jax.Array:
        return jnp.pad(values, ((0, 0), (0, missing))).reshape(-1, count, length)

    heard = jax.lax.stop_gradient(jnp.where(mask, waveform, 0.0))
    # The square of what is larger is no float32; the least gain is that of less.
    energy = jnp.sum(jnp.square(framed(jnp.clip(heard, -_MOST, _MOST))), axis=-1)
    return _gain(jnp, energy, jnp.sum(framed(mask), axis=-1), level_db)[..., None]


def _frame_length(sample_rate: int) -> int:
    return max(1, sample_rate // FRAMES_PER_SECOND)


def _energy(frames: np.ndarray) -> np.ndarray:
    """Of frames [k, n]: [k] float64."""
    return np.square(frames, dtype=np.float64).sum(axis=1)


def _gain(xp: ModuleType, energy: Any, count: Any, level_db: float) -> Any:
    """The gain of frames' energies.

    Args:
        xp: numpy or jax.numpy.
        energy: [..., k], sum of squares in each frame.
        count: [..., k], samples of each.
        level_db: dBFS of rms.
    """
    is_heard = energy > 10 ** (-GATE_DB / 10) * xp.max(energy, axis=-1, keepdims=True)
    total = xp.sum(xp.where(is_heard, energy, 0.0), axis=-1)
    samples = xp.maximum(xp.sum(xp.where(is_heard, count, 0), axis=-1), 1)
    # The level is limited in the place of the gain: nothing is divided by 0.
    lowest, highest = (10 ** ((level_db - limit) / 20) for limit in (MAX_GAIN_DB, MIN_GAIN_DB))
    return 10 ** (level_db / 20) / xp.clip(xp.sqrt(total / samples), lowest, highest)
