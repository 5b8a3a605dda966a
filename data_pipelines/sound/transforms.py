# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is done to a sound: channels and rate for shards, crop and gain in training."""

from collections.abc import Sequence
import math

import numpy as np
import soxr

from data_pipelines.records import pcm16
from data_pipelines.sound import levels

MONO_POLICIES = ("mean", "left", "right")


def to_mono(block: np.ndarray, *, policy: str) -> np.ndarray:
    """Returns one channel of a block of sound.

    Args:
        block: [samples, channels], float32.
        policy: "mean" of all channels, or the "left" (first) or "right" (second; the only one of a
            mono file) channel.

    Returns:
        [samples], float32.
    """
    if policy not in MONO_POLICIES:
        raise ValueError(f"mono must be one of {MONO_POLICIES}, got {policy!r}")
    if block.shape[1] == 1 or policy == "left":
        return block[:, 0]
    if policy == "right":
        return block[:, 1]
    if block.shape[1] == 2:  # the same numbers twenty times as fast
        return (block[:, 0] + block[:, 1]) * np.float32(0.5)
    return block.mean(axis=1, dtype=np.float32)


class Resampler:
    """Changes the rate of a mono stream block by block; the sizes of the blocks do not matter.

    The output has about samples * to_rate / from_rate samples, rounded as soxr does: 0 of a few.
    """

    def __init__(self, from_rate: int, to_rate: int):
        """Prepares the stream; rates in Hz."""
        self._stream = None
        if from_rate != to_rate:
            self._stream = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality="HQ")

    def __call__(self, block: np.ndarray, *, last: bool) -> np.ndarray:
        """Returns what is ready after `block` ([samples], float32); `last` flushes the rest."""
        if self._stream is None:
            return block
        return self._stream.resample_chunk(np.ascontiguousarray(block), last=last)


def crop(pcm: np.ndarray, position: float, *, out: np.ndarray) -> range:
    """Copies one crop of a record into the front of `out`.

    Args:
        pcm: [samples], int16, at least one: the whole record.
        position: in [0, 1), where the crop lies in the room it has; a record that is shorter than
            the crop is taken whole.
        out: [crop], int16; what lies behind a short record is left alone.

    Returns:
        The samples of the record that were copied.
    """
    room = max(pcm.size - out.size, 0)
    start = int(position * (room + 1))
    taken = range(start, min(start + out.size, pcm.size))
    out[: len(taken)] = pcm[start : taken.stop]
    return taken


def salient_crop(
    pcm: np.ndarray, positions: Sequence[float], *, least_db: float, out: np.ndarray
) -> range:
    """Copies the first crop that is not too quiet, or the loudest where all are.

    Args:
        pcm: as in `crop`.
        positions: in [0, 1), to be tried one after another.
        least_db: dBFS, of a crop's root mean square.
        out: as in `crop`.

    Returns:
        The samples of the record that were copied.

    Source: audiotools' AudioSignal.salient_excerpt, as DAC's loader calls it, by LUFS; it takes the
    last of all that are too quiet.
    """
    found = []
    for position in positions if pcm.size > out.size else positions[:1]:
        taken = crop(pcm, position, out=out)
        found.append(rms_db(out[: len(taken)]))
        if found[-1] >= least_db:
            return taken
    return crop(pcm, positions[int(np.argmax(found))], out=out)


def rms_db(pcm: np.ndarray) -> float:
    """The root mean square of [samples] int16, at least one, in dBFS; LEAST_DB of silence."""
    # Sums of squares of PCM16 are whole numbers that float64 holds exactly: the same everywhere.
    values = pcm.astype(np.float64)
    power = float(values @ values) / pcm.size / pcm16.FULL_SCALE**2
    return 10.0 * math.log10(power) if power else levels.LEAST_DB


def amplify(pcm: np.ndarray, gain_db: np.ndarray | None) -> np.ndarray:
    """Returns a batch as float32 in [-1, 1], each row with a gain.

    Args:
        pcm: [batch, samples], int16.
        gain_db: [batch], dB, each lowered where it would clip; None leaves the levels as they are.

    Returns:
        [batch, samples], float32.
    """
    gain = np.ones(len(pcm)) if gain_db is None else 10.0 ** (np.asarray(gain_db) / 20.0)
    louder = gain > 1.0
    if louder.any():
        peak = np.maximum(pcm.max(axis=1), -pcm.min(axis=1).astype(np.int32))
        # One step below full scale, because float32 rounding may add half of one; but never a loss.
        room = np.maximum((pcm16.FULL_SCALE - 1) / np.maximum(peak, 1), 1.0)
        gain = np.where(louder, np.minimum(gain, room), gain)
    return pcm * (gain / pcm16.FULL_SCALE).astype(np.float32)[:, None]
