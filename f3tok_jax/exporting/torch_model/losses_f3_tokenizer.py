# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""How far a reconstruction is from its sound: the log-mel distance that the decoder is trained by.

Source: descript-audio-codec's MelSpectrogramLoss (windows, bands, floor 1e-5, power 1), with zeros
around the sound and with a mask.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from .mel_f3_tokenizer import SLANEY
from .mel_f3_tokenizer import mel_filters
from .product_f3_tokenizer import Product

_FLOOR = 1e-5  # of mel magnitudes
_LEAST = 1e-14  # of squared magnitudes: below, no gradient


class MelDistance(nn.Module):
    """L1 distance of log10 mel spectra, the mean over valid samples, summed over windows."""

    def __init__(self, sampling_rate: int, windows: Sequence[int], bands: Sequence[int]):
        """Args: Hz; samples, the hop is a quarter; and one number of bands per window."""
        super().__init__()
        self.windows = tuple(windows)
        self.filters = nn.ModuleList(
            Product(mel_filters(sampling_rate, window, num_bands, SLANEY))
            for window, num_bands in zip(windows, bands, strict=True)
        )

    def forward(
        self, target: torch.Tensor, output: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """The distance of sounds [b, n] in [-1, 1], of what is valid in `mask` [b, n] bool."""
        if not mask.shape[1]:
            raise ValueError(
                "sound must be of at least one sample where a loss is wanted, got none"
            )
        target, output = (torch.where(mask, x.float(), 0.0) for x in (target, output))
        total = output.new_zeros(())
        for window, filters in zip(self.windows, self.filters):
            one, other = (_log_mel(x, window, filters) for x in (target, output))
            missing = -mask.shape[1] % (window // 4)
            weight = F.pad(mask, (0, missing)).unflatten(1, (-1, window // 4)).sum(dim=-1)
            total = total + ((one - other).abs().mean(dim=-1) * weight).sum()
        return total / mask.sum().clamp(min=1)


def _log_mel(waveform: torch.Tensor, window: int, filters: Product) -> torch.Tensor:
    """[b, n] -> [b, ceil(n / hop), bands]: frame i is centred on the i-th hop."""
    hop = window // 4
    left, count = (window - hop) // 2, -(-waveform.shape[1] // hop)
    right = (count - 1) * hop + window - left - waveform.shape[1]
    frames = F.pad(waveform, (left, right)).unfold(1, window, hop)
    spectrum = torch.fft.rfft(frames * torch.hann_window(window, device=frames.device))
    energy = spectrum.real.square() + spectrum.imag.square()
    return filters(energy.clamp(min=_LEAST).sqrt()).clamp(min=_FLOOR).log10()
