# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a model of F3-Tokenizer is made of: config.json."""

import math

from transformers import PreTrainedConfig

AUTOENCODER = ("encoder", "decoder")
GENERATOR = ("projector", "language_model", "flow_head")
ANSWERS = ("answer_projector", "answer_language_model", "answer_head")


class F3TokConfig(PreTrainedConfig):
    """The geometry of an autoencoder, and what reads its latents.

    Attributes:
        parts: that a model has: "encoder", "decoder", "representation_encoder", those of GENERATOR,
            "generation_encoder" where generation was trained with one of its own, and those of ANSWERS,
            of the last two what generation has not, and what the table of tokens is not.
        sampling_rate: Hz.
        hop_length: samples; a frame of the STFT is two hops.
        fold: neighbouring frequency bins that become channels.
        strides: (time, frequency) of each stage of the encoder.
        encoder_channels: input width of each stage; the last is also the output's.
        decoder_channels: the same of the decoder, in the encoder's order.
        compression: exponent of the magnitudes that the network sees and says.
        latent_dim: values per latent.
        decoder_lookahead: latents, 0 or 1, that the decoder sees after its own.
        normalize: whether latents have mean 0 and rms 1.
        epsilon: added to their variance.
        gamma: largest rms of the noise on the latents that the decoder hears while it trains.
        bottleneck: kind, of another than F3's norm and noise ("kl_vae", "sigma_vae", "soft_norm"), and what
            its noise depends on: logvar_clip, noise_std, noise_ratio; None for F3's.
        semantic_autoencoder: of an autoencoder that hears through a frozen semantic encoder, too, in the
            place of hop_length to decoder_lookahead but for latent_dim: frame_length, hop_length, num_mels,
            mel_floor, patch_frames of its acoustic branch, feature_dim, feature_rate (Hz), fusion ("latents"
            or "features"), bottleneck_dim, decoder_width, decoder_hidden_width, decoder_blocks,
            decoder_frame_length, decoder_hop_length; semantic_encoder: num_layers, width, num_heads,
            sample_rate, frame_length, hop_length, num_mels, patch_frames, max_patches, and its origin, in
            words. None of others.
        level_db: dBFS of rms, at which whole sounds are heard, see F3TokModel.encode; 0 for sound as it
            comes.
        latents_fingerprint: of the weights that made the latents.
        mel_windows: samples, of the reconstruction's loss.
        mel_bands: one number per window.
        representation: of the representation encoder's transformer: see transformer.Transformer; and
            latent_rms, by which latents are divided; None without.
        generation: patch, projector, embedding_rms, stop_weight, condition_drop; flow_head, sampling and
            language_model: configs; tasks: name -> token ids of what is asked; task: the one of them
            that was trained most; gap: before a text; max_tokens: of a text; has_own_encoder: whether
            there is a generation_encoder. None without.
        answers: what reads representations and answers: patch, projector, embedding_rms, language_model,
            has_own_language_model, tasks, task and max_tokens, likewise. None without.
        eos_token_id: which ends a text.
    """

    model_type = "f3_tokenizer"

    parts: list | tuple = AUTOENCODER
    sampling_rate: int = 16_000
    hop_length: int = 160
    fold: int = 8
    strides: list | tuple = ((1, 2), (1, 2), (2, 1), (2, 1))
    encoder_channels: list | tuple = (32, 64, 64, 96)
    decoder_channels: list | tuple = (32, 64, 64, 96)
    compression: float = 0.5
    latent_dim: int = 32
    decoder_lookahead: int = 1
    normalize: bool = True
    epsilon: float = 1e-5
    gamma: float = 0.0
    bottleneck: dict | None = None
    semantic_autoencoder: dict | None = None
    level_db: float = 0.0
    latents_fingerprint: str = ""
    mel_windows: list | tuple = (64, 128, 256, 512, 1024)
    mel_bands: list | tuple = (10, 20, 40, 80, 80)
    representation: dict | None = None
    generation: dict | None = None
    answers: dict | None = None
    eos_token_id: int | None = None

    @property
    def bottleneck_kind(self) -> str:
        return self.bottleneck["kind"] if self.bottleneck else "f3"

    @property
    def can_stream(self) -> bool:
        """Whether sound can be coded as it comes: a semantic encoder hears all of it at once."""
        return not self.semantic_autoencoder

    @property
    def samples_per_latent(self) -> int:
        if fields := self.semantic_autoencoder:
            return fields["hop_length"] * fields["patch_frames"]
        return self.hop_length * math.prod([time for time, _ in self.strides])

    @property
    def encoder_lookahead(self) -> int:
        """Samples after a latent's end that it depends on."""
        return self.hop_length

    @property
    def bottom_width(self) -> int:
        """Values per latent between the convolutions and the linear layers, over their channels."""
        return self.hop_length // (self.fold * math.prod([bins for _, bins in self.strides]))
