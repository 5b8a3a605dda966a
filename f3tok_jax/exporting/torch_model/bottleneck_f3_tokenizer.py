# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What of an encoder's output the latents are, and the noise by which a decoder is trained on them.

F3's norm and noise (arXiv 2606.06357), or what it is held against: a KL-VAE, VibeVoice's sigma-VAE
(arXiv 2508.19205) and the soft norm of stable-audio-tools.
"""

import torch
from torch import nn

from .configuration_f3_tokenizer import F3TokConfig


class Affine(nn.Module):
    """A scale and a shift per channel, in float32."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight.float() + self.bias.float()


def encoder_dim(config: F3TokConfig) -> int:
    """Width of the encoder's output: a KL-VAE's says a mean and the logarithm of a variance."""
    return config.latent_dim * (2 if config.bottleneck_kind == "kl_vae" else 1)


def latents_of(
    encoded: torch.Tensor, config: F3TokConfig
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Latents [b, t, latent_dim] of [b, t, encoder_dim], and of a KL-VAE their deviations."""
    if config.bottleneck_kind == "kl_vae":
        mean, logvar = encoded.chunk(2, dim=-1)
        clip = config.bottleneck["logvar_clip"]
        return mean, (0.5 * logvar.clamp(-clip, clip)).exp()
    if not config.normalize:
        return encoded, None
    centred = encoded - encoded.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)
    return centred * torch.rsqrt(variance + config.epsilon), None


def noisy(
    latents: torch.Tensor,
    mask: torch.Tensor,
    deviations: torch.Tensor | None,
    config: F3TokConfig,
) -> torch.Tensor:
    """What a decoder is trained on.

    Args:
        latents: [b, t, latent_dim].
        mask: [b, t], True where valid.
        deviations: that came with them.
        config: of the model.
    """
    one_each, kind = latents[:, :1, :1], config.bottleneck_kind
    if kind == "kl_vae":
        scale = deviations
    elif kind == "sigma_vae":
        scale = config.bottleneck["noise_std"] * torch.randn_like(one_each)
    elif kind == "soft_norm":
        scale = config.bottleneck["noise_ratio"] * _deviations_over_time(latents, mask)
    else:
        scale = config.gamma * torch.rand_like(one_each)
    return latents + scale * torch.randn_like(latents)


def _deviations_over_time(latents: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """[b, 1, latent_dim]: of each channel over the valid frames, of n - 1 degrees of freedom."""
    valid = mask[..., None].to(latents.dtype)
    count = valid.sum(dim=1, keepdim=True)
    mean = (latents * valid).sum(dim=1, keepdim=True) / count.clamp(min=1)
    squares = ((latents - mean).square() * valid).sum(dim=1, keepdim=True)
    # A root has no finite gradient at 0, where a channel is constant.
    return (squares / (count - 1).clamp(min=1)).clamp(min=1e-12).sqrt()
