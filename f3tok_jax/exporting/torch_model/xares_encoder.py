# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The model as X-ARES wants one (github.com/jimbozhang/xares): sound to frames, without lengths.

    python -m xares.run FOLDER/xares_encoder.py src/tasks/*.py

The path must be relative to where that is run. A run of the autoencoder stage gives latents, later ones
representations.
"""

import pathlib

import torch
from torch import nn
from transformers import AutoConfig
from transformers import AutoModel

_PIECE = 10  # seconds that are encoded at a time: sounds are up to ten minutes


class F3TokXaresEncoder(nn.Module):
    """Sound [b, n] in [-1, 1] at `sampling_rate` to [b, ceil(n / hop), output_dim] float32."""

    def __init__(self):
        super().__init__()
        folder, trusted = pathlib.Path(__file__).resolve().parent, {"trust_remote_code": True}
        fields = AutoConfig.from_pretrained(folder, **trusted).representation
        parts = ["encoder", "representation_encoder"] if fields else ["encoder"]
        model = AutoModel.from_pretrained(folder, parts=parts, **trusted).eval()
        self.model = model
        self.output_dim = fields["width"] if fields else model.config.latent_dim
        self.sampling_rate = model.config.sampling_rate
        self.hop_size_in_ms = 1000 * model.config.samples_per_latent / self.sampling_rate

    @torch.no_grad()
    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        scales = self.model.audio_scales(audio)  # Of the whole: pieces have levels of their own.
        length = _PIECE * self.sampling_rate
        if not self.model.config.can_stream:
            length = max(1, audio.shape[-1])
        pieces = audio.split(length, dim=-1)
        found, latents, read = [], None, None
        for index, piece in enumerate(pieces, start=1):
            more = {"use_cache": index < len(pieces)}
            step = self.model.encode(piece, padding_cache=latents, audio_scales=scales, **more)
            latents, frames = step.padding_cache, step.latents
            if self.model.config.representation:
                step = self.model.represent(frames, padding_cache=read, **more)
                read, frames = step.padding_cache, step.representations
            found.append(frames.float())
        return torch.cat(found, dim=1)
