# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""PCM16, in which records hold sound, from and to float in [-1, 1]."""

import numpy as np

# One more than the largest PCM16 value, so that 16-bit files keep their samples exactly.
FULL_SCALE = 32768
_CHUNK = 2**15  # samples: temporaries stay in the cache, fresh pages cost more than arithmetic


def to_float(pcm: np.ndarray) -> np.ndarray:
    """Returns int16 samples of any shape as float32 in [-1, 1); exact."""
    return pcm * np.float32(1 / FULL_SCALE)


def from_float(waveform: np.ndarray, *, peak: float = np.inf) -> tuple[np.ndarray, int]:
    """Rounds to PCM16 and limits what lies beyond full scale.

    Args:
        waveform: [samples], float32, full scale is [-1, 1].
        peak: that no sample is beyond, where it is known.

    Returns:
        [samples] int16, and how many samples were limited.
    """
    pcm, num_clipped = np.empty(waveform.shape, np.int16), 0
    may_clip = not peak * FULL_SCALE <= FULL_SCALE - 1
    for start in range(0, waveform.size, _CHUNK):
        scaled = waveform[start : start + _CHUNK] * np.float32(FULL_SCALE)
        np.rint(scaled, out=scaled)
        if may_clip and not -FULL_SCALE <= scaled.min() <= scaled.max() < FULL_SCALE:
            # +1.0 itself is one step above the largest PCM16 value; that is rounding, not clipping.
            num_clipped += int(np.count_nonzero(np.abs(scaled) > FULL_SCALE))
            np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1, out=scaled)
        pcm[start : start + _CHUNK] = scaled
    return pcm, num_clipped
