# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The autoencoder's STFT and its inverse: half-overlapping Hann frames, one matrix product each.

The hop is half a frame, so framing is two neighbouring hops side by side and overlap-add is one
addition: no gather, no scatter, and a stream carries nothing but one hop of samples. The Nyquist
bin is dropped.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def waveform_to_spectrum(waveform: jax.Array, *, hop_length: int) -> jax.Array:
    """Spectra of the frames that begin at every hop.

    Args:
        waveform: [b, (t + 1) * hop_length] float32; frame i covers samples i * hop to
            (i + 2) * hop.
        hop_length: samples; a frame is two hops.

    Returns:
        [b, t, 2 * hop_length] float32: real and imaginary part of bin 0, of bin 1, ... White noise
        of rms s has coefficients of rms s.
    """
    hops = waveform.reshape(waveform.shape[0], -1, hop_length)
    frames = jnp.concatenate([hops[:, :-1], hops[:, 1:]], axis=-1)
    return jnp.einsum("btn,nf->btf", frames, analysis_matrix(hop_length), precision="highest")


def spectrum_to_frames(spectrum: jax.Array, *, hop_length: int) -> jax.Array:
    """Windowed frames [b, t, 2 * hop_length] of `spectrum`, ready to overlap and add."""
    return jnp.einsum("btf,fn->btn", spectrum, synthesis_matrix(hop_length), precision="highest")


def overlap_add(frames: jax.Array, tail: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Adds half-overlapping frames.

    Args:
        frames: [b, t, 2 * hop_length].
        tail: [b, hop_length], second half of the frame before the first; zeros at the start.

    Returns:
        Samples [b, t * hop_length], and the tail for what follows.
    """
    first, second = jnp.split(frames, 2, axis=-1)
    hops = first + jnp.concatenate([tail[:, None], second[:, :-1]], axis=1)
    return hops.reshape(hops.shape[0], -1), second[:, -1]


def compress(spectrum: jax.Array, exponent: float) -> jax.Array:
    """Raises the magnitude of every bin of [b, t, 2 * hop_length] to `exponent`, keeping its phase.

    Sound spans 80 dB and a network without normalisation layers is all but linear in what is
    small: at exponent 0.5 quiet bins are heard. Below 1e-4 the map is linear, so that silence
    stays silence.
    """
    return _scale_magnitude(spectrum, exponent - 1.0)


def expand(spectrum: jax.Array, exponent: float) -> jax.Array:
    """Undoes `compress` (above 1e-4, and smoothly at 0)."""
    return _scale_magnitude(spectrum, 1.0 / exponent - 1.0)


def _scale_magnitude(spectrum: jax.Array, power: float) -> jax.Array:
    if power == 0.0:
        return spectrum
    bins = spectrum.reshape(*spectrum.shape[:-1], -1, 2)
    energy = jnp.sum(jnp.square(bins), axis=-1, keepdims=True)
    return (bins * (energy + 1e-8) ** (0.5 * power)).reshape(spectrum.shape)


@functools.lru_cache
def analysis_matrix(hop_length: int) -> np.ndarray:
    """[2 hop, 2 hop] float32: samples of a frame to its windowed spectrum."""
    window = _hann(hop_length)
    matrix = window[:, None] * _cosines(hop_length) / np.sqrt(np.sum(window**2))
    return matrix.astype(np.float32)


@functools.lru_cache
def synthesis_matrix(hop_length: int) -> np.ndarray:
    """[2 hop, 2 hop] float32: spectrum to a frame, whose overlapping sum inverts the analysis.

    The synthesis window is the Hann window over the sum of its overlapping squares.
    """
    window = _hann(hop_length)
    squares = window**2 + np.roll(window, hop_length) ** 2
    # Every bin but DC stands for two of the full transform.
    doubling = np.full(2 * hop_length, 2.0)
    doubling[:2] = 1.0
    inverse = (doubling * _cosines(hop_length)).T / (2 * hop_length)
    matrix = inverse * np.sqrt(np.sum(window**2)) * window / squares
    return matrix.astype(np.float32)


def _hann(hop_length: int) -> np.ndarray:
    length = 2 * hop_length
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


def _cosines(hop_length: int) -> np.ndarray:
    """[2 hop, 2 hop]: the real and imaginary basis of every bin but Nyquist, interleaved."""
    length = 2 * hop_length
    angle = 2 * np.pi * np.outer(np.arange(length), np.arange(hop_length)) / length
    return np.stack([np.cos(angle), -np.sin(angle)], axis=-1).reshape(length, length)
