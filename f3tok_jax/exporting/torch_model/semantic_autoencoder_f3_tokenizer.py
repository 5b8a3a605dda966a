# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The hearing half of LoSATok and DashengTokenizer in PyTorch: a frozen semantic encoder beside a layer.

Source: LoSATok (arXiv 2605.27840), DashengTokenizer (arXiv 2602.23765), as f3tok_jax has them.
"""

import torch
from torch import nn
from torch.nn import functional as F

from .bottleneck_f3_tokenizer import encoder_dim
from .bottleneck_f3_tokenizer import latents_of
from .configuration_f3_tokenizer import F3TokConfig
from .mel_f3_tokenizer import MelSpectra
from .semantic_encoder_f3_tokenizer import SemanticEncoder
from .transformer_f3_tokenizer import LayerNorm

_EPSILON = 1e-5  # of the acoustic branch's norm


class F3TokFusedEncoder(nn.Module):
    """Whole sounds to latents: what a semantic encoder says of them, and what it does not say.

    No gradient reaches the semantic encoder and the semantic bottleneck, which were trained before.
    """

    def __init__(self, config: F3TokConfig):
        super().__init__()
        self.config = config
        fields = config.semantic_autoencoder
        width, latent_dim = fields["feature_dim"], config.latent_dim
        self.semantic_encoder = SemanticEncoder(fields["semantic_encoder"])
        self.acoustic = _AcousticBranch(config)
        self.fuses_latents = fields["fusion"] == "latents"
        if self.fuses_latents:
            sizes = width, fields["bottleneck_dim"], latent_dim
            self.semantic_bottleneck = nn.ModuleDict({"down": _Mapping(*sizes)})
            self.acoustic_output = nn.Linear(width, latent_dim)
            self.output = nn.Linear(latent_dim, encoder_dim(config))

    def forward(
        self, waveform: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Latents of sounds.

        Args:
            waveform: [b, n] float32, zeros where it is not valid.
            mask: [b, n] bool, True where valid, which comes first.

        Returns:
            Latents [b, ceil(n / samples_per_latent), latent_dim] float32, of a KL-VAE their deviations, and
            the mask [b, t] of what is of a sound.
        """
        hop = self.config.samples_per_latent
        num_latents = (mask.sum(dim=1) + hop - 1) // hop
        waveform = F.pad(waveform, (0, -waveform.shape[1] % hop))
        count = waveform.shape[1] // hop
        valid = torch.arange(count, device=mask.device)[None] < num_latents[:, None]
        if not count:
            return waveform.new_zeros(len(waveform), 0, self.config.latent_dim), None, valid
        acoustic = self.acoustic(waveform, num_latents * hop)[:, :count]
        with torch.no_grad():
            features = self._features(waveform, num_latents * hop)
            semantic = self._at_latent_rate(features, num_latents)[:, :count]
        # Behind a sound both may be anything.
        streams = (torch.where(valid[..., None], x, 0.0) for x in (acoustic, semantic))
        encoded = self._fused(*streams)
        return *latents_of(encoded.float(), self.config), valid

    def _features(self, waveform: torch.Tensor, num_samples: torch.Tensor) -> torch.Tensor:
        """What the semantic encoder says [b, s, feature_dim] float32; of latents more often than
        features, the last feature may be of fewer samples."""
        per_feature = self.semantic_encoder.samples_per_feature
        waveform = F.pad(waveform, (0, -waveform.shape[1] % per_feature))
        num_samples = (num_samples + per_feature - 1) // per_feature * per_feature
        return self.semantic_encoder(waveform, num_samples).float()

    def _at_latent_rate(self, features: torch.Tensor, num_latents: torch.Tensor) -> torch.Tensor:
        """Features [b, s, d] of sounds of `num_latents` [b], interpolated: [b, t, d]."""
        config = self.config
        latent_rate = config.sampling_rate / config.samples_per_latent
        per_latent = config.semantic_autoencoder["feature_rate"] / latent_rate
        if per_latent == 1.0:
            return features
        last = (num_latents * per_latent).ceil().long() - 1
        last = last.clamp(0, features.shape[1] - 1)[:, None]
        # The middle of a latent's time, between those of the features' times.
        count = int(features.shape[1] / per_latent)
        place = (torch.arange(count, device=last.device, dtype=torch.float64) + 0.5) * per_latent
        place = (place - 0.5).clamp(min=0.0)
        before = place.floor().long()
        low, high = (
            torch.minimum(index[None], last)[..., None].expand(-1, -1, features.shape[2])
            for index in (before, before + 1)
        )
        low, high = features.gather(1, low), features.gather(1, high)
        return low + (place - before).float()[None, :, None] * (high - low)

    def _fused(self, acoustic: torch.Tensor, semantic: torch.Tensor) -> torch.Tensor:
        """[b, t, feature_dim] float32 each -> [b, t, encoder_dim]."""
        if not self.fuses_latents:
            return semantic + acoustic
        dtype = self.output.weight.dtype
        with torch.no_grad():
            narrow = self.semantic_bottleneck["down"](semantic.to(dtype)).float()
        return self.output((narrow + self.acoustic_output(acoustic.to(dtype)).float()).to(dtype))


class _AcousticBranch(nn.Module):
    """A log-mel spectrum, cut into patches of all bands, each projected and normalised."""

    def __init__(self, config: F3TokConfig):
        super().__init__()
        fields = config.semantic_autoencoder
        num_mels, width = fields["num_mels"], fields["feature_dim"]
        sizes = config.sampling_rate, fields["frame_length"], fields["hop_length"], num_mels
        self.floor, self.patch_frames = fields["mel_floor"], fields["patch_frames"]
        self.spectra = MelSpectra(*sizes, power=1)
        self.patch = nn.Linear(num_mels * self.patch_frames, width)
        self.norm = LayerNorm(width, _EPSILON)

    def forward(self, waveform: torch.Tensor, num_samples: torch.Tensor) -> torch.Tensor:
        """[b, n], of which [b] are valid -> [b, (1 + n // hop) // patch_frames, width] float32."""
        levels = self.spectra(waveform, num_samples).clamp(min=self.floor).log()
        count = levels.shape[1] // self.patch_frames
        frames = levels[:, : count * self.patch_frames]
        patches = frames.unflatten(1, (count, self.patch_frames)).flatten(2)
        return self.norm(self.patch(patches.to(self.patch.weight.dtype)).float())


class _Mapping(nn.Module):
    """A linear map, an exact GELU, a linear map."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.hidden, self.output = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(F.gelu(self.hidden(x)))
