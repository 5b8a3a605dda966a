# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The decoder of semantic autoencoders in PyTorch: ConvNeXt blocks that say a spectrum, and its inverse.

Source: Vocos (arXiv 2306.00814), with what comes before it in LoSATok (arXiv 2605.27840).
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from .configuration_f3_tokenizer import F3TokConfig
from .product_f3_tokenizer import Product
from .transformer_f3_tokenizer import LayerNorm

_KERNEL = 7  # frames
_EPSILON = 1e-6  # of the layer norms
_MOST_MAGNITUDE = 100.0  # of a bin
_LEAST_WINDOW = 1e-8  # of squared windows that add up; where it is less, there is no frame


class F3TokVocosDecoder(nn.Module):
    """Whole sequences of latents to sound; it hears a few frames to either side."""

    def __init__(self, config: F3TokConfig):
        super().__init__()
        fields = config.semantic_autoencoder
        width, hidden_width = fields["decoder_width"], fields["decoder_hidden_width"]
        self.frame_length = fields["decoder_frame_length"]
        self.hop_length = fields["decoder_hop_length"]
        self.frames_per_latent = config.samples_per_latent // self.hop_length
        self.upsampling = _Upsampling(config.latent_dim, width, self.frames_per_latent)
        self.embedding = nn.Conv1d(width, width, _KERNEL, padding=_KERNEL // 2)
        self.embedding_norm = LayerNorm(width, _EPSILON)
        self.blocks = nn.ModuleList(
            _Block(width, hidden_width, 1 / fields["decoder_blocks"])
            for _ in range(fields["decoder_blocks"])
        )
        self.final_norm = LayerNorm(width, _EPSILON)
        self.head = nn.Linear(width, 2 * (self.frame_length // 2 + 1))
        self.synthesis = Product(_windowed_inverse(self.frame_length))
        self.overlapping = Product(_squared_window(self.frame_length))

    def forward(self, latents: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[b, t, latent_dim] -> [b, t * samples_per_latent] float32; of each row what `mask` [b, t] has,
        with nothing behind it."""
        if not latents.shape[1]:
            return latents.new_zeros(len(latents), 0, dtype=torch.float32)
        mask = mask.repeat_interleave(self.frames_per_latent, dim=1)[..., None]
        dtype = self.embedding.weight.dtype
        x = torch.where(mask, self.upsampling(latents.to(dtype)), 0.0)
        x = self.embedding(x.transpose(1, 2)).transpose(1, 2).float()
        x = self.embedding_norm(x)
        for block in self.blocks:
            x = block(x, mask)
        said = F.linear(self.final_norm(x), self.head.weight.float(), self.head.bias.float())
        said, phase = torch.where(mask, said, 0.0).chunk(2, dim=-1)
        magnitude = said.clamp(max=math.log(_MOST_MAGNITUDE)).exp()
        spectrum = torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=-1)
        return self._sound(spectrum, mask)

    def _sound(self, spectrum: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Frames that overlap and add, over the sum of the squared windows that are there."""
        frames = torch.where(mask, self.synthesis(spectrum), 0.0)
        total, weight = (self._added(x) for x in (frames, self.overlapping(mask.float())))
        sound = torch.where(weight > _LEAST_WINDOW, total / weight.clamp(min=_LEAST_WINDOW), 0.0)
        cut = (self.frame_length - self.hop_length) // 2
        return sound[:, cut : cut + mask.shape[1] * self.hop_length]

    def _added(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames [b, t, frame_length] a hop apart, added: [b, (t - 1) * hop_length + frame_length]."""
        parts = frames.split(self.hop_length, dim=-1)
        behind = len(parts) - 1
        padded = (F.pad(part, (0, 0, i, behind - i)) for i, part in enumerate(parts))
        return sum(padded).flatten(1)


class _Upsampling(nn.Module):
    """A transposed convolution whose kernel is its stride: `factor` frames of each latent."""

    def __init__(self, inputs: int, width: int, factor: int):
        super().__init__()
        self.factor, self.bias = factor, nn.Parameter(torch.zeros(width))
        self.weight = nn.Parameter(torch.empty(factor * width, inputs))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[b, t, inputs] -> [b, t * factor, width]."""
        return F.linear(x, self.weight).unflatten(2, (self.factor, -1)).flatten(1, 2) + self.bias


class _Block(nn.Module):
    """A convolution of each channel by itself, a norm, two linear maps, added to what came in."""

    def __init__(self, width: int, hidden_width: int, gain: float):
        super().__init__()
        self.depthwise = _Depthwise(width)
        self.norm = LayerNorm(width, _EPSILON)
        self.hidden = nn.Linear(width, hidden_width)
        self.output = nn.Linear(hidden_width, width)
        self.gain = nn.Parameter(torch.full((width,), gain))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[b, t, width] float32 to the same; `mask` is [b, t, 1]."""
        y = self.norm(self.depthwise(torch.where(mask, x, 0.0)))
        y = self.output(F.gelu(self.hidden(y.to(self.hidden.weight.dtype))))
        return x + self.gain.float() * y.float()


class _Depthwise(nn.Module):
    """A convolution over time of every channel by itself."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, _KERNEL))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[b, t, width] to the same, float32."""
        x, kernel = x.to(self.weight.dtype).transpose(1, 2), self.weight[:, None]
        options = {"padding": _KERNEL // 2, "groups": len(kernel)}
        return F.conv1d(x, kernel, self.bias, **options).transpose(1, 2).float()


def _squared_window(length: int) -> torch.Tensor:
    """[1, length] float32: that of a frame."""
    return _hann(length).float().square()[None]


def _windowed_inverse(length: int) -> torch.Tensor:
    """[2 (length // 2 + 1), length] float32: real parts, then imaginary ones, to a windowed frame."""
    bins = torch.arange(length // 2 + 1, dtype=torch.float64, device="cpu")
    samples = torch.arange(length, dtype=torch.float64, device="cpu")
    angle = 2 * math.pi / length * (torch.outer(bins, samples) % length)
    doubling = torch.full((len(bins), 1), 2.0, dtype=torch.float64, device="cpu")
    doubling[[0, -1]] = 1.0  # Every bin but 0 Hz and Nyquist stands for two of the full transform.
    matrix = torch.cat([doubling * angle.cos(), -doubling * angle.sin()]) / length
    return (matrix * _hann(length)).float()


def _hann(length: int) -> torch.Tensor:
    samples = torch.arange(length, dtype=torch.float64, device="cpu")
    return 0.5 - 0.5 * torch.cos(2 * math.pi / length * samples)
