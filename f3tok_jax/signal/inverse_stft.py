# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sound of complex spectra: windowed inverse transforms that overlap and add, as many hops as frames.

The sound begins and ends where half of what the first and last frame have more than a hop is cut off
("same"), and is divided by the sum of the squared windows there. So the inverse is exact for spectra of
a sound, and every sample is of at least one frame.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.signal import spectra

# Of squared windows that add up; where it is less, there is no frame.
_LEAST_WINDOW = 1e-8


def check(frame_length: int, hop_length: int) -> None:
    """Raises ValueError unless frames of this size overlap and can be cut to hops."""
    if hop_length < 1 or frame_length % (2 * hop_length):
        raise ValueError(
            "an inverse STFT takes frames of an even number of hops, got "
            f"frame_length={frame_length} and hop_length={hop_length}"
        )


def spectra_to_waveform(
    real: jax.Array,
    imaginary: jax.Array,
    mask: jax.Array | None = None,
    *,
    frame_length: int,
    hop_length: int,
) -> jax.Array:
    """The sound of spectra.

    Args:
        real: [b, t, frame_length // 2 + 1], of unscaled transforms of Hann-windowed frames.
        imaginary: the same; of 0 Hz and Nyquist it has no meaning, and is ignored.
        mask: [b, t] bool, frames that are there; the others are heard nowhere, and each sound is as
            if its own were all. None for all.
        frame_length: samples, an even number of hops.
        hop_length: samples.

    Returns:
        [b, t * hop_length] float32.

    Source: the inverse STFT of Vocos (arXiv 2306.00814) with padding "same".
    """
    check(frame_length, hop_length)
    matrix = _windowed_inverse(frame_length)
    parts = jnp.concatenate([real, imaginary], axis=-1).astype(jnp.float32)
    frames = jnp.matmul(parts, matrix, precision=spectra.PRECISION)
    is_there = jnp.ones((1, real.shape[1]), bool) if mask is None else mask
    frames = jnp.where(is_there[..., None], frames, 0.0)
    window = jnp.square(spectra.hann_window(frame_length))[None, None]
    windows = jnp.where(is_there[..., None], window, 0.0)
    # [b, t + overlap - 1, hop] each, of which as much is cut off before as behind.
    total, weight = _overlap_add(frames, hop_length), _overlap_add(windows, hop_length)
    sound = jnp.where(weight > _LEAST_WINDOW, total / jnp.maximum(weight, _LEAST_WINDOW), 0.0)
    cut = (frame_length - hop_length) // 2
    return sound.reshape(sound.shape[0], -1)[:, cut : cut + real.shape[1] * hop_length]


def _overlap_add(frames: jax.Array, hop_length: int) -> jax.Array:
    """Hops [b, t + overlap - 1, hop_length] of frames [b, t, overlap * hop_length] a hop apart."""
    overlap = frames.shape[-1] // hop_length
    parts = jnp.split(frames, overlap, axis=-1)
    padded = [jnp.pad(part, ((0, 0), (i, overlap - 1 - i), (0, 0))) for i, part in enumerate(parts)]
    return sum(padded)


@functools.lru_cache(maxsize=4)
def _windowed_inverse(length: int) -> np.ndarray:
    """Real parts, then imaginary ones, to a windowed frame: [2 (length // 2 + 1), length] float32."""
    # The angle is reduced in integers, as spectra does.
    turns = (np.arange(length // 2 + 1)[:, None] * np.arange(length)) % length
    angle = (2.0 * np.pi / length) * turns
    doubling = np.full((length // 2 + 1, 1), 2.0)  # A bin stands for two of the full transform.
    doubling[[0, -1]] = 1.0
    matrix = np.concatenate([doubling * np.cos(angle), -doubling * np.sin(angle)]) / length
    matrix = (matrix * spectra.hann_window(length).astype(np.float64)).astype(np.float32)
    matrix.flags.writeable = False
    return matrix
