# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Mel spectra as published encoders hear sound: torchaudio's, centred, with reflected ends."""

import jax
import jax.numpy as jnp

from f3tok_jax.signal import spectra


def mel_spectra(
    waveform: jax.Array,
    num_samples: jax.Array | None = None,
    *,
    sample_rate: int,
    frame_length: int,
    hop_length: int,
    num_mels: int,
    power: int,
    method: str = "auto",
) -> jax.Array:
    """Mel bands of frames centred on the first sample and on every hop after it.

    Args:
        waveform: [b, n] float32.
        num_samples: [b] int32, valid ones, which come first; each sound is reflected at its own end,
            so that it gives what it gives alone. None where all are.
        sample_rate: Hz; bands lie between 0 and half of it.
        frame_length: samples, even, of the Hann window and the transform.
        hop_length: samples.
        num_mels: bands on HTK's scale, triangles with peak 1.
        power: of the magnitudes that the bands sum, 1 or 2.
        method: of the STFT, see `spectra.stft`.

    Returns:
        [b, 1 + n // hop_length, num_mels] float32, not negative; of a sound of m samples the first
        1 + m // hop_length frames are its own.

    Source: torchaudio.transforms.MelSpectrogram with its defaults but for the arguments.
    """
    if frame_length % 2 or power not in (1, 2):
        raise ValueError(
            "a mel front end takes frames of an even number of samples and a power of 1 or 2, got "
            f"frame_length={frame_length} and power={power}"
        )
    padded = reflect_ends(waveform, frame_length // 2, num_samples)
    sizes = dict(frame_length=frame_length, hop_length=hop_length)
    real, imaginary = spectra.stft(padded, **sizes, method=method)
    energy = jnp.square(real) + jnp.square(imaginary)
    filters = spectra.mel_filterbank(
        sample_rate, frame_length, num_mels, unit_area=False, scale="htk"
    )
    values = energy if power == 2 else _root(energy)
    return jnp.matmul(values, filters, precision=spectra.PRECISION)


def reflect_ends(
    waveform: jax.Array, count: int, num_samples: jax.Array | None = None
) -> jax.Array:
    """Puts `count` samples before and after each sound, its own ones mirrored at its ends.

    Args:
        waveform: [b, n].
        count: samples on either side; mirrored again where a sound is shorter.
        num_samples: [b] int32, valid ones, which come first; None where all are.

    Returns:
        [b, n + 2 * count]; zeros beyond what is mirrored behind a sound.
    """
    if num_samples is None:
        return jnp.pad(waveform, ((0, 0), (count, count)), mode="reflect")
    place = jnp.arange(-count, waveform.shape[1] + count)[None]
    last = jnp.maximum(num_samples, 1)[:, None] - 1
    period = jnp.maximum(2 * last, 1)
    place_within = place % period
    source = jnp.minimum(place_within, period - place_within)
    mirrored = jnp.take_along_axis(waveform, jnp.minimum(source, last), axis=1)
    return jnp.where(place < num_samples[:, None] + count, mirrored, 0.0)


def _root(energy: jax.Array) -> jax.Array:
    """The square root, with gradient 0 at 0: no floor, which the sum over a band would raise."""
    is_heard = energy > 0
    return jnp.where(is_heard, jnp.sqrt(jnp.where(is_heard, energy, 1.0)), 0.0)
