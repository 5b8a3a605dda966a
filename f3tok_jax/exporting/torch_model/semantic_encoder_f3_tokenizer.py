# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The semantic encoder in PyTorch: Dasheng's architecture (arXiv 2406.06992), sound to what is heard in it."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from .mel_f3_tokenizer import MelSpectra
from .transformer_f3_tokenizer import Transformer

_BATCH_NORM_EPSILON, _NORM_EPSILON = 1e-5, 1e-6
_HIDDEN = 4  # widths of the hidden layer of a block
_MIN_POWER = 1e-10  # of a band: what silence counts as
_RANGE_DB = 120.0  # below the loudest band of a sound, at which its spectrum ends


class SemanticEncoder(nn.Module):
    """Whole sounds to features; each as it is alone, whatever it is padded and batched with.

    A mel spectrum in decibels, standardised per band by `statistics` and scaled and shifted by `weight`
    and `bias`, is cut into patches of all bands, which go through a bidirectional transformer, in chunks
    of `max_patches` that see one another not.
    """

    def __init__(self, fields: Mapping):
        """Args: fields: config.semantic_autoencoder["semantic_encoder"]."""
        super().__init__()
        width, num_mels = fields["width"], fields["num_mels"]
        self.hop_length, self.patch_frames = fields["hop_length"], fields["patch_frames"]
        self.max_patches = fields["max_patches"]
        sizes = fields["sample_rate"], fields["frame_length"], self.hop_length, num_mels
        self.spectra = MelSpectra(*sizes, power=2)
        self.statistics = _Statistics(num_mels)
        self.weight = nn.Parameter(torch.ones(num_mels))
        self.bias = nn.Parameter(torch.zeros(num_mels))
        self.patch = nn.Linear(num_mels * self.patch_frames, width)
        self.time_positions = nn.Parameter(torch.empty(self.max_patches, width).normal_(std=0.02))
        self.frequency_position = nn.Parameter(torch.empty(width).normal_(std=0.02))
        self.transformer = Transformer(_blocks(fields), causal=False)

    @property
    def samples_per_feature(self) -> int:
        return self.hop_length * self.patch_frames

    def forward(self, waveform: torch.Tensor, num_samples: torch.Tensor) -> torch.Tensor:
        """Features [b, (n // hop + 1) // patch_frames, width] of sounds [b, n] at their rate.

        Of each sound `num_samples` [b] are valid, which come first; features behind them mean nothing.
        """
        x = self._embedded(self._levels(waveform, num_samples))
        counts = torch.where(num_samples > 0, num_samples // self.hop_length + 1, 0)
        places = torch.arange(x.shape[1], device=x.device)
        valid = places[None] < (counts // self.patch_frames)[:, None]
        if x.shape[1] <= self.max_patches:
            return self.transformer(x, mask=valid)
        missing = -x.shape[1] % self.max_patches
        rows = F.pad(x, (0, 0, 0, missing)).reshape(-1, self.max_patches, x.shape[2])
        masks = F.pad(valid, (0, missing)).reshape(-1, self.max_patches)
        features = self.transformer(rows, mask=masks)
        return features.reshape(len(x), -1, x.shape[2])[:, : x.shape[1]]

    def _levels(self, waveform: torch.Tensor, num_samples: torch.Tensor) -> torch.Tensor:
        """[b, 1 + n // hop, num_mels] decibels, down to a floor below the loudest band of a sound."""
        levels = 10.0 * self.spectra(waveform, num_samples).clamp(min=_MIN_POWER).log10()
        counts = torch.where(num_samples > 0, num_samples // self.hop_length + 1, 0)
        frames = torch.arange(levels.shape[1], device=levels.device)
        is_valid = (frames[None] < counts[:, None])[..., None]
        heard = torch.where(is_valid, levels, -torch.inf)
        loudest = heard.amax(dim=(1, 2), keepdim=True)
        return torch.where(is_valid, torch.maximum(levels, loudest - _RANGE_DB), 0.0)

    def _embedded(self, levels: torch.Tensor) -> torch.Tensor:
        """What enters the transformer, [b, t, width]: each patch knows its place in its chunk."""
        inverse = torch.rsqrt(self.statistics.variance.float() + _BATCH_NORM_EPSILON)
        standardised = (levels - self.statistics.mean.float()) * (inverse * self.weight.float())
        count = levels.shape[1] // self.patch_frames
        frames = (standardised + self.bias.float())[:, : count * self.patch_frames]
        # All frames of a band, then those of the next.
        patches = frames.unflatten(1, (count, self.patch_frames)).transpose(2, 3).flatten(2)
        x = self.patch(patches.to(self.patch.weight.dtype))
        times = self.time_positions.repeat(-(-count // self.max_patches), 1)[:count]
        return x + (times + self.frequency_position).to(x.dtype)


class _Statistics(nn.Module):
    """What mel bands are standardised by; measured, and never trained."""

    def __init__(self, num_mels: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_mels))
        self.register_buffer("variance", torch.ones(num_mels))


def _blocks(fields: Mapping) -> dict:
    """Of Transformer."""
    width, num_heads = fields["width"], fields["num_heads"]
    return {
        "block": "vit",
        "num_layers": fields["num_layers"],
        "width": width,
        "hidden_width": _HIDDEN * width,
        "num_heads": num_heads,
        "num_kv_heads": num_heads,
        "head_dim": width // num_heads,
        "norm_epsilon": _NORM_EPSILON,
        "qk_norm": False,
    }
