# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Two codecs without a training loop, to stand beside a model at as many values per second."""

from collections.abc import Iterable
import dataclasses

import numpy as np

from f3tok_jax.evaluation import distributions
from f3tok_jax.signal import spectra


@dataclasses.dataclass(frozen=True, kw_only=True)
class PcaCodec:
    """Principal components of raw, non-overlapping frames: the best linear code of a frame.

    Attributes:
        mean: [frame_length], float64.
        components: [latent_dim, frame_length], float64, orthonormal rows, largest variance first.
        num_frames: that it was fitted on.
    """

    mean: np.ndarray
    components: np.ndarray
    num_frames: int

    def waveform_to_latents(self, waveform: np.ndarray) -> np.ndarray:
        """[n] -> [ceil(n / frame_length), latent_dim], the last frame padded with zeros."""
        return (_raw_frames(waveform, len(self.mean)) - self.mean) @ self.components.T

    def latents_to_waveform(self, latents: np.ndarray) -> np.ndarray:
        """[t, latent_dim] -> [t * frame_length]."""
        return (latents @ self.components + self.mean).reshape(-1)

    def reconstruct(self, waveform: np.ndarray) -> np.ndarray:
        """[n] -> [n], through the latents."""
        return self.latents_to_waveform(self.waveform_to_latents(waveform))[: len(waveform)]


def fit_pca(waveforms: Iterable[np.ndarray], *, frame_length: int, latent_dim: int) -> PcaCodec:
    """Fits `PcaCodec` on whole frames of waveforms.

    Args:
        waveforms: arrays [n]; a waveform's last, cut frame is padded with zeros.
        frame_length: samples per latent frame.
        latent_dim: components kept.

    Raises:
        ValueError: if `latent_dim` exceeds `frame_length` or there are not more frames than
            components.
    """
    if latent_dim > frame_length:
        raise ValueError(
            f"PCA keeps at most frame_length={frame_length} components, got latent_dim={latent_dim}"
        )
    moments = distributions.Moments(frame_length)
    for waveform in waveforms:
        moments.add(_raw_frames(waveform, frame_length))
    if moments.count <= latent_dim:
        raise ValueError(
            f"PCA of {latent_dim} components needs more frames than that to fit on, got "
            f"{moments.count} frames of {frame_length} samples; give more sound to --fit_shards"
        )
    _, vectors = np.linalg.eigh(moments.covariance)
    components = vectors[:, ::-1].T[:latent_dim]
    return PcaCodec(mean=moments.mean, components=components, num_frames=moments.count)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MelCodec:
    """Magnitude mel spectrum at a fixed number of values per second, and Griffin-Lim back.

    A latent frame becomes two mel frames of half as many bands where the width is even: 20 ms hops
    at 25 Hz. Windows are four hops.

    Source: Griffin and Lim, 1984. On spoken digits the momentum of Perraudin et al., 2013, gave a
    larger mel distance after as many iterations.

    Attributes:
        sample_rate: Hz.
        samples_per_latent: samples per latent frame of the model to stand beside.
        latent_dim: values per latent frame of that model.
        num_iterations: of Griffin-Lim.
    """

    sample_rate: int
    samples_per_latent: int
    latent_dim: int
    num_iterations: int = 60

    @property
    def frames_per_latent(self) -> int:
        return 2 if self.latent_dim % 2 == 0 and self.samples_per_latent % 2 == 0 else 1

    @property
    def num_mels(self) -> int:
        return self.latent_dim // self.frames_per_latent

    @property
    def hop_length(self) -> int:
        """Samples."""
        return self.samples_per_latent // self.frames_per_latent

    def waveform_to_mel(self, waveform: np.ndarray) -> np.ndarray:
        """[n] -> [ceil(n / hop_length), num_mels]."""
        return np.abs(_stft(waveform, self.hop_length)) @ self._filters()

    def mel_to_waveform(self, mel: np.ndarray) -> np.ndarray:
        """[t, num_mels] -> [t * hop_length]; the same input gives the same output."""
        inverse = np.linalg.pinv(self._filters().astype(np.float64))
        magnitude = np.maximum(mel @ inverse, 0.0).astype(np.float32)
        hop, num_samples = self.hop_length, len(mel) * self.hop_length
        angle = np.random.default_rng(0).uniform(-np.pi, np.pi, magnitude.shape)
        phase = np.exp(1j * angle).astype(np.complex64)
        for _ in range(self.num_iterations):
            rebuilt = _stft(_inverse_stft(magnitude * phase, hop, num_samples), hop)
            phase = rebuilt / np.maximum(np.abs(rebuilt), 1e-12)
        return _inverse_stft(magnitude * phase, hop, num_samples)

    def reconstruct(self, waveform: np.ndarray) -> np.ndarray:
        """[n] -> [n], through the mel spectrum."""
        return self.mel_to_waveform(self.waveform_to_mel(waveform))[: len(waveform)]

    def _filters(self) -> np.ndarray:
        return spectra.mel_filterbank(self.sample_rate, 4 * self.hop_length, self.num_mels)


def _raw_frames(waveform: np.ndarray, frame_length: int) -> np.ndarray:
    padding = -len(waveform) % frame_length
    return np.pad(waveform.astype(np.float64), (0, padding)).reshape(-1, frame_length)


def _stft(waveform: np.ndarray, hop_length: int) -> np.ndarray:
    return spectra.centered_stft_on_host(
        waveform, frame_length=4 * hop_length, hop_length=hop_length
    )


def _inverse_stft(spectrum: np.ndarray, hop_length: int, num_samples: int) -> np.ndarray:
    """Least-squares inverse of `_stft`: [num_samples]."""
    window = 4 * hop_length
    hann = spectra.hann_window(window)
    frames = np.fft.irfft(spectrum, window) * hann
    num_blocks = len(frames) + 3
    sound, weight = np.zeros((2, num_blocks, hop_length), frames.dtype)
    for i in range(4):
        part = slice(i * hop_length, (i + 1) * hop_length)
        sound[i : i + len(frames)] += frames[:, part]
        weight[i : i + len(frames)] += hann[part] ** 2
    left = (window - hop_length) // 2
    # Only the padding around the sound has no weight at all.
    return (sound / np.maximum(weight, 1e-8)).reshape(-1)[left : left + num_samples]
