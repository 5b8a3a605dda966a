# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""F3-Tokenizer's autoencoder in PyTorch: convolutions over the frames and bins of an STFT.

The geometry is SpectroStream's (arXiv 2508.05207).
Whatever it computes lies with channels last; with its weights so, too, by
model.to(memory_format=torch.channels_last), a step of a stream is a fifth faster on a CPU.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from .bottleneck_f3_tokenizer import Affine
from .bottleneck_f3_tokenizer import encoder_dim
from .bottleneck_f3_tokenizer import latents_of
from .configuration_f3_tokenizer import F3TokConfig
from .product_f3_tokenizer import Product

# What a stream's next chunk needs of those before, by the name of whoever keeps it.
Cache = dict[str, torch.Tensor]

_SAME_KERNEL = (3, 3)  # of a stage's convolution without stride


class Conv(nn.Conv2d):
    """Over frames and bins [b, c, frames, bins]; it ends with its stride's last frame."""

    cache_name = ""

    def __init__(self, inputs: int, outputs: int, kernel, stride=(1, 1)):
        super().__init__(inputs, outputs, kernel, stride)
        self.past, below = kernel[0] - stride[0], (kernel[1] - 1) // 2
        self.margins = (below, kernel[1] - stride[1] - below)  # bins, below and above

    def forward(self, x: torch.Tensor, cache: Cache | None) -> torch.Tensor:
        x = _with_past(x, self.past, cache, self.cache_name)
        return super().forward(F.pad(x, self.margins))


class TransposedConv(nn.ConvTranspose2d):
    """Upsamples frames, causally, and bins."""

    cache_name = ""

    def __init__(self, inputs: int, outputs: int, kernel, stride):
        super().__init__(inputs, outputs, kernel, stride)
        self.past, self.margin = (kernel[0] - 1) // stride[0], (kernel[1] - stride[1]) // 2

    def forward(self, x: torch.Tensor, cache: Cache | None) -> torch.Tensor:
        frames, bins = x.shape[2] * self.stride[0], x.shape[3] * self.stride[1]
        y = super().forward(_with_past(x, self.past, cache, self.cache_name))
        first = self.past * self.stride[0]
        return y[:, :, first : first + frames, self.margin : self.margin + bins]


def _with_past(x: torch.Tensor, count: int, cache: Cache | None, name: str) -> torch.Tensor:
    """`x` after the `count` frames before it: zeros, or what the stream's last chunk left."""
    if not count:
        return x
    past = None if cache is None else cache.get(name)
    if past is None:
        past = x.new_zeros(x.shape[0], x.shape[1], count, x.shape[3])
    # Channels last, as they come from the STFT: a convolution of a CPU need not move them twice.
    x = torch.cat([_channels_last(past), x], dim=2)
    if cache is not None:
        cache[name] = detached(x[:, :, x.shape[2] - count :])
    return x


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _channels_together(x: torch.Tensor) -> torch.Tensor:
    """[b, c, frames, bins] -> [b, frames, bins * c]."""
    # A copy, small here: what is exported may find another layout than the one that it was traced in.
    return x.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).flatten(2)


def detached(x: torch.Tensor) -> torch.Tensor:
    """What a cache holds: no view of the caller's buffer, and no graph."""
    return x.detach().clone()


class _DensePair(nn.Module):
    """A linear map and, beside it, one with a hidden layer."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.hidden = nn.Linear(inputs, hidden)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.output(F.elu(self.hidden(x)))


class _DownStage(nn.Module):
    """Convolutions beside a mean over the stride."""

    def __init__(self, inputs: int, outputs: int, strides):
        super().__init__()
        self.strides = tuple(strides)
        self.same = Conv(inputs, inputs, _SAME_KERNEL)
        self.down = Conv(inputs, outputs, _kernel(strides), self.strides)
        self.shortcut = Conv(inputs, outputs, (1, 1)) if inputs != outputs else None

    def forward(self, x: torch.Tensor, cache: Cache | None) -> torch.Tensor:
        # As wide as its stride, but its windows begin where a kernel's do: half of it below.
        beside = F.avg_pool2d(F.pad(x, ((self.strides[1] - 1) // 2, 0)), self.strides)
        if self.shortcut is not None:
            beside = self.shortcut(beside, cache)
        return beside + self.down(F.elu(self.same(F.elu(x), cache)), cache)


class _UpStage(nn.Module):
    """The mirror of `_DownStage`: convolutions beside repetition."""

    def __init__(self, inputs: int, outputs: int, strides):
        super().__init__()
        self.strides = tuple(strides)
        self.up = TransposedConv(inputs, outputs, _kernel(strides), self.strides)
        self.same = Conv(outputs, outputs, _SAME_KERNEL)
        self.shortcut = Conv(inputs, outputs, (1, 1)) if inputs != outputs else None

    def forward(self, x: torch.Tensor, cache: Cache | None) -> torch.Tensor:
        beside = x if self.shortcut is None else self.shortcut(x, cache)
        x = self.same(F.elu(self.up(F.elu(x), cache)), cache)
        # A sum with what is repeated, without repeating it in memory.
        x = x.unflatten(3, (-1, self.strides[1])).unflatten(2, (-1, self.strides[0]))
        return (x + beside[:, :, :, None, :, None]).flatten(4).flatten(2, 3)


class F3TokEncoder(nn.Module):
    """Waveform to latents, of whole frames."""

    def __init__(self, config: F3TokConfig):
        super().__init__()
        self.config = config
        channels = [*config.encoder_channels, config.encoder_channels[-1]]
        width = config.bottom_width * channels[-1]
        self.stem = Conv(2 * config.fold, channels[0], _edge_kernel(config.fold))
        self.stages = nn.ModuleList(
            _DownStage(channels[i], channels[i + 1], strides)
            for i, strides in enumerate(config.strides)
        )
        self.dense_pair = _DensePair(width, width, encoder_dim(config))
        self.affine = Affine(config.latent_dim) if config.bottleneck_kind == "soft_norm" else None
        self.analysis = Product(_analysis_matrix(config.hop_length))

    def forward(self, waveform: torch.Tensor, cache: Cache | None = None) -> torch.Tensor:
        """[b, t * samples_per_latent + encoder_lookahead] float32 -> [b, t, latent_dim] float32."""
        return self.distribution(waveform, cache)[0]

    def distribution(
        self, waveform: torch.Tensor, cache: Cache | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The same, and of a KL-VAE the deviations of the latents, [b, t, latent_dim]."""
        config = self.config
        hops = waveform.unflatten(1, (-1, config.hop_length))
        frames = torch.cat([hops[:, :-1], hops[:, 1:]], dim=-1)
        spectrum = _scale_magnitudes(self.analysis(frames), config.compression - 1)
        x = spectrum.unflatten(2, (-1, 2 * config.fold)).permute(0, 3, 1, 2)
        x = self.stem(x.to(self.stem.weight.dtype), cache)
        for stage in self.stages:
            x = stage(x, cache)
        x = self.dense_pair(_channels_together(x)).float()
        return latents_of(x if self.affine is None else self.affine(x), config)


class F3TokDecoder(nn.Module):
    """Latents to waveform; what it says comes `decoder_lookahead` latents late."""

    def __init__(self, config: F3TokConfig):
        super().__init__()
        self.config = config
        channels = [*config.decoder_channels, config.decoder_channels[-1]]
        width = config.bottom_width * channels[-1]
        self.dense_pair = _DensePair(config.latent_dim, width, width)
        self.stages = nn.ModuleList(  # in the encoder's order
            _UpStage(channels[i + 1], channels[i], strides)
            for i, strides in enumerate(config.strides)
        )
        self.output = Conv(channels[0], 2 * config.fold, _edge_kernel(config.fold))
        self.synthesis = Product(_synthesis_matrix(config.hop_length))

    def forward(self, latents: torch.Tensor, cache: Cache | None = None) -> torch.Tensor:
        """[b, t, latent_dim] -> [b, t * samples_per_latent] float32."""
        config = self.config
        x = self.dense_pair(latents.to(self.output.weight.dtype))
        x = x.unflatten(2, (config.bottom_width, -1)).permute(0, 3, 1, 2)
        for stage in reversed(self.stages):
            x = stage(x, cache)
        x = self.output(F.elu(x), cache).float()
        spectrum = _channels_together(x)
        spectrum = _scale_magnitudes(spectrum, 1 / config.compression - 1)
        frames = self.synthesis(spectrum)
        first, second = frames.split(config.hop_length, dim=-1)
        # The second half of the frame before, in the layout [b, 1, frames, hop].
        before = _with_past(second[:, None], 1, cache, "tail")[:, 0, :-1]
        return (first + before).flatten(1)


def _kernel(strides) -> tuple[int, ...]:
    return tuple(max(3, 2 * stride) for stride in strides)


def _edge_kernel(fold: int) -> tuple[int, int]:
    """Of the first and last convolution: 7 x 7 bins, or 3 x 3 groups of folded ones."""
    return (7, 7) if fold == 1 else (3, 3)


def _scale_magnitudes(spectrum: torch.Tensor, power: float) -> torch.Tensor:
    """Multiplies the complex bins (real and imaginary side by side) by their magnitude^power."""
    if power == 0:
        return spectrum
    bins = spectrum.unflatten(-1, (-1, 2))
    energy = bins.square().sum(dim=-1, keepdim=True)
    return (bins * (energy + 1e-8) ** (0.5 * power)).flatten(-2)


# Made on the host, whatever device a model is built on, and no parameters: they follow from the hop.
def _analysis_matrix(hop_length: int) -> torch.Tensor:
    """[2 hop, 2 hop] float32: samples of a frame to its windowed spectrum."""
    window = _hann(hop_length)
    matrix = window[:, None] * _cosines(hop_length) / window.square().sum().sqrt()
    return matrix.to(torch.float32)


def _synthesis_matrix(hop_length: int) -> torch.Tensor:
    """[2 hop, 2 hop] float32: spectrum to a frame, whose overlapping sum inverts the analysis."""
    window = _hann(hop_length)
    squares = window.square() + window.roll(hop_length).square()
    doubling = torch.full((2 * hop_length,), 2.0, dtype=torch.float64, device="cpu")
    doubling[:2] = 1.0  # Every bin but DC stands for two of the full transform.
    inverse = (doubling * _cosines(hop_length)).T / (2 * hop_length)
    return (inverse * window.square().sum().sqrt() * window / squares).to(torch.float32)


def _hann(hop_length: int) -> torch.Tensor:
    samples = torch.arange(2 * hop_length, dtype=torch.float64, device="cpu")
    return 0.5 - 0.5 * torch.cos(math.pi * samples / hop_length)


def _cosines(hop_length: int) -> torch.Tensor:
    """[2 hop, 2 hop]: the real and imaginary basis of every bin but Nyquist, interleaved."""
    samples = torch.arange(2 * hop_length, dtype=torch.float64, device="cpu")
    angle = math.pi * torch.outer(samples, samples[:hop_length]) / hop_length
    return torch.stack([torch.cos(angle), -torch.sin(angle)], dim=-1).flatten(1)
