# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sound to latents and back, whole or in a stream, whichever halves an autoencoder has."""

from collections.abc import Mapping
import dataclasses

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_utils import PreTrainedAudioTokenizerBase
from transformers.utils import ModelOutput

from .autoencoder_f3_tokenizer import Cache
from .autoencoder_f3_tokenizer import detached
from .checks_f3_tokenizer import check_whole
from .checks_f3_tokenizer import checked_latents
from .checks_f3_tokenizer import checked_scales
from .checks_f3_tokenizer import checked_sound
from .checks_f3_tokenizer import opened
from .level_f3_tokenizer import scales_of


@dataclasses.dataclass
class F3TokOutput(ModelOutput):
    """What every method returns, as far as it knows it.

    Attributes:
        loss: scalar.
        audio: [b, 1, n] float32.
        latents: [b, t, latent_dim] float32.
        representations: [b, t, width].
        padding_mask: of the latents [b, t] or, from decode and generate, of the samples [b, n]; True
            where valid.
        padding_cache: for the next chunk of a stream.
        latent_deviations: [b, t, latent_dim] float32, of a KL-VAE, of which the latents are the means; None
            of others.
        audio_scales: [b] float32, by what sound was divided before it was encoded, and is to be multiplied
            when it is decoded; None where it was not.
    """

    loss: torch.Tensor | None = None
    audio: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    representations: torch.Tensor | None = None
    padding_mask: torch.Tensor | None = None
    padding_cache: Cache | None = None
    latent_deviations: torch.Tensor | None = None
    audio_scales: torch.Tensor | None = None


class F3TokCodec(PreTrainedAudioTokenizerBase):
    """What codes sound: an encoder and a decoder among the parts of a model."""

    def part(self, name: str) -> nn.Module:
        """One of the parts.

        Raises:
            ValueError: where it was not loaded, or the run had none.
        """
        if name not in self.config.parts:
            raise ValueError(
                f"this needs the part {name!r}, got a model of {', '.join(self.config.parts)}: load it "
                "with that part, or export a run that has it"
            )
        return getattr(self, name)

    def audio_scales(
        self, input_values: torch.Tensor, padding_mask: torch.Tensor | None = None
    ) -> torch.Tensor | None:
        """[b] float32: by what `encode` divides whole sounds, so that each has the level at which the
        model hears; None of a model that hears sound as it comes. Arguments are those of `encode`."""
        if not self.config.level_db:
            return None
        waveform, mask = checked_sound(input_values, padding_mask)
        return scales_of(waveform, mask, self.config.level_db, self.config.sampling_rate)

    def encode(
        self,
        input_values: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        padding_cache: Mapping[str, torch.Tensor] | None = None,
        use_cache: bool = False,
        audio_scales: torch.Tensor | None = None,
    ) -> F3TokOutput:
        """Latents of sound.

        Args:
            input_values: [b, 1, n] or [b, n], float in [-1, 1] at config.sampling_rate. Zeros are
                appended up to a whole number of latents; in a stream what is left waits for the next
                chunk.
            padding_mask: [b, n], True or 1 where valid, which comes first; None for all.
            padding_cache: of the chunk before; None for a whole sound, or for the first chunk.
            use_cache: more will follow.
            audio_scales: [b], by what sound is divided; default those of `audio_scales`. The level of a
                stream is not known before it ends: it is heard as it comes where none are given, which are
                to be the same for every chunk, and best such that sound has about config.level_db.

        Returns:
            latents, their padding_mask, with use_cache the padding_cache, and the audio_scales and
            latent_deviations where there are any.

        Raises:
            ValueError: for sound of several channels, in integers, not finite or far from [-1, 1], a
                mask of another shape or with padding before what is valid, or a cache of decode or of
                another batch; and for a stream where config.can_stream is False.
        """
        waveform, mask = checked_sound(input_values, padding_mask)
        if audio_scales is None and not use_cache and padding_cache is None:
            audio_scales = self.audio_scales(waveform, mask)
        if audio_scales is not None:
            audio_scales = checked_scales(audio_scales, waveform)
            waveform = waveform / audio_scales[:, None]
        cache = None
        if self.config.can_stream:
            cache = opened(padding_cache, use_cache, "waveform", waveform.shape[0])
            found = self._encode_next(waveform, mask, padding_cache, cache, use_cache)
        else:
            check_whole(padding_cache, use_cache)
            found = self.part("encoder")(waveform, mask)
        latents, deviations, valid = found
        return F3TokOutput(
            latents=latents,
            padding_mask=valid,
            padding_cache=cache if use_cache else None,
            latent_deviations=deviations,
            audio_scales=audio_scales,
        )

    def _encode_next(
        self,
        waveform: torch.Tensor,
        mask: torch.Tensor,
        padding_cache: Mapping[str, torch.Tensor] | None,
        cache: Cache | None,
        use_cache: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Latents, their deviations and their mask, of sound [b, n] that is a whole, or the next chunk of
        one; what comes after it needs is written to `cache`."""
        if padding_cache is not None:
            waveform = torch.cat([padding_cache["waveform"], waveform], dim=1)
            mask = torch.cat([padding_cache["mask"], mask], dim=1)
        hop, ahead = self.config.samples_per_latent, self.config.encoder_lookahead
        if use_cache:
            count = max(0, (waveform.shape[1] - ahead) // hop)
            cache["waveform"] = detached(waveform[:, count * hop :])
            cache["mask"] = detached(mask[:, count * hop :])
            waveform, mask = waveform[:, : count * hop + ahead], mask[:, : count * hop]
        else:
            count = (waveform.shape[1] + hop - 1) // hop  # ONNX rounds negative quotients to zero
            missing = count * hop - waveform.shape[1]
            waveform, mask = F.pad(waveform, (0, missing + ahead)), F.pad(mask, (0, missing))
        latents, deviations = waveform.new_zeros(waveform.shape[0], 0, self.config.latent_dim), None
        if count:
            latents, deviations = self.part("encoder").distribution(waveform, cache)
        valid = mask.unflatten(1, (count, hop)).any(dim=-1) if count else mask[:, :0]
        return latents, deviations, valid

    def decode(
        self,
        latents: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        padding_cache: Mapping[str, torch.Tensor] | None = None,
        use_cache: bool = False,
        audio_scales: torch.Tensor | None = None,
    ) -> F3TokOutput:
        """Sound of latents.

        Args:
            latents: [b, t, latent_dim].
            padding_mask: [b, t], True or 1 where valid, which comes first; None for all.
            padding_cache: of the chunk before; None for a whole sequence, or for the first chunk.
            use_cache: more will follow. The sound of a chunk comes decoder_lookahead latents late.
            audio_scales: [b] that `encode` gave, by which the sound is multiplied; None for sound at the
                model's level.

        Returns:
            audio [b, 1, t * samples_per_latent], its padding_mask, and with use_cache the
            padding_cache.

        Raises:
            ValueError: for latents of another width, a mask of another shape, or a cache of encode or
                of another batch; and for a stream where config.can_stream is False.
        """
        latents, mask = checked_latents(latents, self.config.latent_dim, padding_mask)
        cache = None
        if self.config.can_stream:
            cache = opened(padding_cache, use_cache, "late", latents.shape[0])
            audio, mask = self._decode_next(latents, mask, padding_cache, cache, use_cache)
        else:
            check_whole(padding_cache, use_cache)
            audio = self.part("decoder")(latents, mask)
        if audio_scales is not None:
            audio = audio * checked_scales(audio_scales, audio)[:, None]
        return F3TokOutput(
            audio=audio[:, None],
            padding_mask=mask.repeat_interleave(self.config.samples_per_latent, dim=1),
            padding_cache=cache if use_cache else None,
        )

    def _decode_next(
        self,
        latents: torch.Tensor,
        mask: torch.Tensor,
        padding_cache: Mapping[str, torch.Tensor] | None,
        cache: Cache | None,
        use_cache: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sound [b, n] of latents that are a whole, or the next chunk of one, and which latents it is
        of; what comes after it needs is written to `cache`."""
        hop, ahead = self.config.samples_per_latent, self.config.decoder_lookahead
        begins = not cache or "tail" not in cache
        if padding_cache is not None:
            mask = torch.cat([padding_cache["late"], mask], dim=1)
        if use_cache:  # Whether what is not heard yet is valid.
            cache["late"] = detached(mask[:, max(0, mask.shape[1] - ahead) :])
            mask = mask[:, : max(0, mask.shape[1] - ahead)]
        else:
            latents = F.pad(latents, (0, 0, 0, ahead))
        audio = latents.new_zeros(latents.shape[0], 0, dtype=torch.float32)
        if latents.shape[1]:
            audio = self.part("decoder")(latents, cache)
        return audio[:, ahead * hop :] if begins else audio, mask
