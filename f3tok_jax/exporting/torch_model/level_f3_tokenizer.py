# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The level at which a model of F3-Tokenizer hears sound: what divides sound before, and multiplies it after.

A sound's level is the rms of its frames of 100 ms that are within 40 dB of the loudest one, so that
pauses do not change it.
"""

import torch
from torch.nn import functional as F

_FRAMES_PER_SECOND = 10
_GATE_DB = 40.0  # below the loudest frame, where pauses begin
_MAX_GAIN_DB, _MIN_GAIN_DB = (
    40.0,
    -100.0,
)  # by which sound is brought to the level, at most and least
_MOST = 1e12  # whose square is still a float32


def scales_of(
    waveform: torch.Tensor, mask: torch.Tensor, level_db: float, sampling_rate: int
) -> torch.Tensor:
    """By what each sound is divided to have a level: of one alone, whatever is behind its end.

    Args:
        waveform: [b, n] float32, zeros where it is not valid.
        mask: [b, n] bool.
        level_db: dBFS of rms.
        sampling_rate: Hz.

    Returns:
        [b] float32, above 0; of silence the least that there is.
    """
    length = max(1, sampling_rate // _FRAMES_PER_SECOND)
    count = waveform.shape[1] // length + 1  # no part of a frame is left out, and there is one
    missing = count * length - waveform.shape[1]

    def summed(values: torch.Tensor) -> torch.Tensor:
        return F.pad(values, (0, missing)).unflatten(1, (count, length)).sum(dim=-1)

    energy = summed(waveform.detach().clamp(-_MOST, _MOST).square())
    is_heard = energy > 10 ** (-_GATE_DB / 10) * energy.amax(dim=-1, keepdim=True)
    total = torch.where(is_heard, energy, 0.0).sum(dim=-1)
    samples = torch.where(is_heard, summed(mask.float()), 0.0).sum(dim=-1).clamp(min=1.0)
    rms, unit = (total / samples).sqrt(), 10 ** (level_db / 20)
    return (rms / unit).clamp(10 ** (-_MAX_GAIN_DB / 20), 10 ** (-_MIN_GAIN_DB / 20))
