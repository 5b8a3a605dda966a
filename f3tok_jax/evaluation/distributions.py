# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Whether many vectors together look like many others, whichever belongs to which."""

import numpy as np

from f3tok_jax.signal import spectra

_WINDOW_SECONDS = 0.032  # long enough to tell a voice's harmonics apart
_FLOOR = 1e-4  # of a spectrum's magnitudes, a full-scale sine having about 1


class Moments:
    """Count, mean and covariance of vectors, added up part by part in float64."""

    def __init__(self, width: int):
        self.count, self._sum = 0, np.zeros(width)
        self._second_moment = np.zeros((width, width))

    def add(self, vectors: np.ndarray) -> None:
        """Adds vectors [n, width]."""
        vectors = vectors.astype(np.float64)
        self.count += len(vectors)
        self._sum += vectors.sum(axis=0)
        self._second_moment += vectors.T @ vectors

    @property
    def mean(self) -> np.ndarray:
        """[width]"""
        return self._sum / self.count

    @property
    def second_moment(self) -> np.ndarray:
        """[width, width], about zero."""
        return self._second_moment / self.count

    @property
    def covariance(self) -> np.ndarray:
        """[width, width]"""
        return self.second_moment - np.outer(self.mean, self.mean)


def moments_of(vectors: np.ndarray) -> Moments:
    """Moments of vectors [n, width]."""
    moments = Moments(vectors.shape[1])
    moments.add(vectors)
    return moments


def frechet_distance(one: Moments, other: Moments) -> float:
    """Squared Frechet distance of the Gaussians with these moments.

    Source: Frechet audio distance (arXiv 1812.08466), here of whatever vectors are given.
    """
    first, second = one.covariance, other.covariance
    # The trace of the root of a product of covariances, whose eigenvalues are not negative.
    eigenvalues = np.linalg.eigvals(first @ second).real
    root = np.sqrt(np.maximum(eigenvalues, 0.0)).sum()
    gap = np.square(one.mean - other.mean).sum()
    # Rounding may leave a little less than 0 of two that are equal.
    return max(0.0, float(gap + np.trace(first) + np.trace(second) - 2 * root))


def log_spectrum(waveform: np.ndarray, *, sample_rate: int) -> np.ndarray:
    """Log10 magnitudes of windows of 32 ms, every 8 ms.

    Args:
        waveform: [n] float.
        sample_rate: Hz.

    Returns:
        [t, bins] float64, bins of 31.25 Hz.
    """
    hop = round(_WINDOW_SECONDS * sample_rate / 4)
    waveform = waveform.astype(np.float64)
    spectrum = spectra.centered_stft_on_host(waveform, frame_length=4 * hop, hop_length=hop)
    return np.log10(np.maximum(np.abs(spectrum) / hop, _FLOOR))
