# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Mel spectra in decibels with a floor below the loudest of each example, whatever it is padded with."""

import jax
import jax.numpy as jnp

from f3tok_jax.signal import mel_front_end

_MIN_POWER = 1e-10  # of a band: what silence counts as, -100 dB


def num_frames(num_samples: jax.Array | int, hop_length: int) -> jax.Array | int:
    """Frames of `mel_decibels`: one centred on the first sample, and one on every hop after it."""
    return num_samples // hop_length + 1


def mel_decibels(
    waveform: jax.Array,
    mask: jax.Array | None = None,
    *,
    sample_rate: int,
    frame_length: int,
    hop_length: int,
    num_mels: int,
    range_db: float,
) -> jax.Array:
    """Powers of the bands of mel_front_end.mel_spectra in decibels, each example as it is alone.

    Args:
        waveform: [b, n], float32 in [-1, 1].
        mask: [b, n] bool, True where valid, which comes first; default all.
        sample_rate: Hz.
        frame_length: samples per frame and per transform.
        hop_length: samples between frames.
        num_mels: bands between 0 Hz and half the sample rate.
        range_db: dB below the loudest band of an example, at which its others end.

    Returns:
        [b, n // hop_length + 1, num_mels] float32. Of an example of m valid samples the first
        m // hop_length + 1 frames mean something, and are those that it has alone; others are 0.

    Source: torchaudio.transforms.AmplitudeToDB, but for the floor, which there lies below the loudest of
    a batch.
    """
    if mask is None:
        lengths = jnp.full(len(waveform), waveform.shape[-1])
    else:
        lengths = jnp.sum(mask, axis=-1, dtype=jnp.int32)
    power = mel_front_end.mel_spectra(
        waveform,
        None if mask is None else lengths,
        sample_rate=sample_rate,
        frame_length=frame_length,
        hop_length=hop_length,
        num_mels=num_mels,
        power=2,
    )
    levels = 10.0 * jnp.log10(jnp.maximum(power, _MIN_POWER))
    counts = jnp.where(lengths > 0, num_frames(lengths, hop_length), 0)
    is_valid = (jnp.arange(levels.shape[1])[None] < counts[:, None])[..., None]
    loudest = jnp.max(jnp.where(is_valid, levels, -jnp.inf), axis=(1, 2), keepdims=True)
    return jnp.where(is_valid, jnp.maximum(levels, loudest - range_db), 0.0)
