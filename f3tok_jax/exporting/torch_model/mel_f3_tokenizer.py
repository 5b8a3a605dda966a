# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Mel bands in PyTorch: filters of both scales, and spectra as published encoders hear sound.

Source: Slaney's Auditory Toolbox (1998), with triangles of area 1; HTK's scale with triangles of peak 1,
centred frames and mirrored ends as torchaudio.transforms.MelSpectrogram has them.
"""

import math

import torch
from torch import nn

from .product_f3_tokenizer import Product

SLANEY, HTK = "slaney", "htk"
_HZ_PER_MEL, _BREAK_HZ, _LOG_STEP = 200.0 / 3.0, 1000.0, math.log(6.4) / 27.0
_HTK_MELS, _HTK_HZ = 2595.0, 700.0


class MelSpectra(nn.Module):
    """Bands of HTK's scale, of frames centred on the first sample and on every hop after it."""

    def __init__(
        self, sampling_rate: int, frame_length: int, hop_length: int, num_mels: int, power: int
    ):
        """Args: Hz; samples, even; samples; bands; 1 or 2, of the magnitudes that bands sum."""
        super().__init__()
        self.frame_length, self.hop_length, self.power = frame_length, hop_length, power
        self.filters = Product(mel_filters(sampling_rate, frame_length, num_mels, HTK))

    def forward(self, waveform: torch.Tensor, num_samples: torch.Tensor) -> torch.Tensor:
        """[b, n] float32, of which [b] are valid and come first -> [b, 1 + n // hop, num_mels]."""
        mirrored = _mirrored(waveform, self.frame_length // 2, num_samples)
        frames = mirrored.unfold(1, self.frame_length, self.hop_length)
        spectrum = torch.fft.rfft(
            frames * torch.hann_window(self.frame_length, device=frames.device)
        )
        energy = spectrum.real.square() + spectrum.imag.square()
        return self.filters(energy if self.power == 2 else _root(energy))


def _root(energy: torch.Tensor) -> torch.Tensor:
    """The square root, with gradient 0 at 0."""
    is_heard = energy > 0
    return torch.where(is_heard, torch.where(is_heard, energy, 1.0).sqrt(), 0.0)


def _mirrored(waveform: torch.Tensor, count: int, num_samples: torch.Tensor) -> torch.Tensor:
    """[b, n + 2 count]: each sound with so many of its own samples mirrored at either end."""
    place = torch.arange(-count, waveform.shape[1] + count, device=waveform.device)[None]
    last = num_samples.clamp(min=1)[:, None] - 1
    period = (2 * last).clamp(min=1)
    within = place.remainder(period)
    source = torch.minimum(torch.minimum(within, period - within), last)
    found = waveform.gather(1, source)
    return torch.where(place < num_samples[:, None] + count, found, 0.0)


def mel_filters(sampling_rate: int, window: int, num_bands: int, scale: str) -> torch.Tensor:
    """[window // 2 + 1, num_bands] on the host: triangles that are equally spaced in mel."""
    exact = {"dtype": torch.float64, "device": "cpu"}
    shares = torch.linspace(0, 1, num_bands + 2, **exact)
    edges = (_slaney_edges if scale == SLANEY else _htk_edges)(shares, sampling_rate / 2)
    bins = torch.arange(window // 2 + 1, **exact)[:, None] * sampling_rate / window
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    triangles = torch.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    heights = 2 / (high - low) if scale == SLANEY else torch.ones_like(low)
    return (triangles.clamp(min=0) * heights).float()


def _slaney_edges(shares: torch.Tensor, highest_hz: float) -> torch.Tensor:
    """Hz of shares of the highest mel: linear below 1 kHz, logarithmic above."""
    break_mel, highest = _BREAK_HZ / _HZ_PER_MEL, highest_hz / _HZ_PER_MEL
    if highest >= break_mel:
        highest = break_mel + math.log(highest_hz / _BREAK_HZ) / _LOG_STEP
    mel = shares * highest
    above = _BREAK_HZ * (_LOG_STEP * (mel.clamp(min=break_mel) - break_mel)).exp()
    return torch.where(mel < break_mel, mel * _HZ_PER_MEL, above)


def _htk_edges(shares: torch.Tensor, highest_hz: float) -> torch.Tensor:
    """The same where mel is 2595 log10(1 + Hz / 700)."""
    mel = shares * _HTK_MELS * math.log10(1.0 + highest_hz / _HTK_HZ)
    return _HTK_HZ * (10.0 ** (mel / _HTK_MELS) - 1.0)
