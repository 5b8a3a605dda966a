# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""F3-Tokenizer in PyTorch: sound to latents at 25 Hz and back, to representations, and from text.

    extractor = AutoFeatureExtractor.from_pretrained(FOLDER)
    model = AutoModel.from_pretrained(FOLDER, trust_remote_code=True)
    inputs = extractor(waveforms, sampling_rate=model.config.sampling_rate, return_tensors="pt")
    encoded = model.encode(**inputs)
    audio = model.decode(encoded.latents, encoded.padding_mask).audio

Sound is [b, 1, n] in [-1, 1], latents are [b, t, latent_dim] float32. Of a batch that is padded on the
right every row is what it would be alone. A stream gives its chunks one after the other, of any
lengths, with use_cache=True and the padding_cache that the same method gave for the chunk before; the
last with use_cache=False. No gradient passes from chunk to chunk.

A model has the parts that its run knew; from_pretrained(FOLDER, parts=["decoder"]) loads these alone.
PyTorch and transformers 5 are all that is needed. In float32 it computes what f3tok_jax does with
compute_dtype float32, within rounding; the geometry is SpectroStream's (arXiv 2508.05207), the rest
F3-Tokenizer's (arXiv 2606.06357).
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig
from transformers import AutoModel
from transformers.modeling_utils import PreTrainedAudioTokenizerBase
from transformers.utils import ModelOutput

from .autoencoder_f3_tokenizer import Cache
from .autoencoder_f3_tokenizer import Conv
from .autoencoder_f3_tokenizer import F3TokDecoder
from .autoencoder_f3_tokenizer import F3TokEncoder
from .autoencoder_f3_tokenizer import TransposedConv
from .autoencoder_f3_tokenizer import detached
from .configuration_f3_tokenizer import GENERATOR
from .configuration_f3_tokenizer import F3TokConfig
from .generation_f3_tokenizer import F3TokFlowHead
from .generation_f3_tokenizer import F3TokProjector
from .generation_f3_tokenizer import Generator
from .generation_f3_tokenizer import Sampling
from .losses_f3_tokenizer import multi_scale_mel
from .transformer_f3_tokenizer import F3TokRepresentationEncoder


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
    """

    loss: torch.Tensor | None = None
    audio: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    representations: torch.Tensor | None = None
    padding_mask: torch.Tensor | None = None
    padding_cache: Cache | None = None


class F3TokModel(PreTrainedAudioTokenizerBase):
    """Sound to latents and back, to representations, and from text; as far as its parts go.

    It is no F3TokenizerModel: what transformers saves as code under such a name it takes for a text
    tokenizer, and cannot load again.
    """

    config_class = F3TokConfig
    base_model_prefix = "f3_tokenizer"
    main_input_name = "input_values"

    def __init__(self, config: F3TokConfig):
        super().__init__(config)
        makers = _makers(config)
        if unknown := [part for part in config.parts if part not in makers]:
            raise ValueError(f"parts must be of {', '.join(makers)}, got {unknown}")
        for part in config.parts:
            setattr(self, part, makers[part]())
        absent = makers.keys() - set(config.parts)
        self._keys_to_ignore_on_load_unexpected = [rf"^{part}\." for part in sorted(absent)]
        for name, module in self.named_modules():
            if isinstance(module, (Conv, TransposedConv)):
                module.cache_name = name
        self.post_init()

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

    def encode(
        self,
        input_values: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        padding_cache: Mapping[str, torch.Tensor] | None = None,
        use_cache: bool = False,
    ) -> F3TokOutput:
        """Latents of sound.

        Args:
            input_values: [b, 1, n] or [b, n], float in [-1, 1] at config.sampling_rate. Zeros are
                appended up to a whole number of latents; in a stream what is left waits for the next
                chunk.
            padding_mask: [b, n], True or 1 where valid, which comes first; None for all.
            padding_cache: of the chunk before; None for a whole sound, or for the first chunk.
            use_cache: more will follow.

        Returns:
            latents, their padding_mask, and with use_cache the padding_cache.

        Raises:
            ValueError: for sound of several channels or in integers, a mask of another shape, or a
                cache of decode or of another batch.
        """
        waveform, mask = _checked_sound(input_values, padding_mask)
        cache = _opened(padding_cache, use_cache, "waveform", waveform.shape[0])
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
        latents = waveform.new_zeros(waveform.shape[0], 0, self.config.latent_dim)
        if count:
            latents = self.part("encoder")(waveform, cache)
        valid = mask.unflatten(1, (count, hop)).any(dim=-1) if count else mask[:, :0]
        return F3TokOutput(
            latents=latents, padding_mask=valid, padding_cache=cache if use_cache else None
        )

    def decode(
        self,
        latents: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        padding_cache: Mapping[str, torch.Tensor] | None = None,
        use_cache: bool = False,
    ) -> F3TokOutput:
        """Sound of latents.

        Args:
            latents: [b, t, latent_dim].
            padding_mask: [b, t], True or 1 where valid, which comes first; None for all.
            padding_cache: of the chunk before; None for a whole sequence, or for the first chunk.
            use_cache: more will follow. The sound of a chunk comes decoder_lookahead latents late.

        Returns:
            audio [b, 1, t * samples_per_latent], its padding_mask, and with use_cache the
            padding_cache.

        Raises:
            ValueError: for latents of another width, a mask of another shape, or a cache of encode or
                of another batch.
        """
        latents, mask = _checked_latents(latents, self.config.latent_dim, padding_mask)
        cache = _opened(padding_cache, use_cache, "late", latents.shape[0])
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
        if begins:
            audio = audio[:, ahead * hop :]
        return F3TokOutput(
            audio=audio[:, None],
            padding_mask=mask.repeat_interleave(hop, dim=1),
            padding_cache=cache if use_cache else None,
        )

    def represent(
        self,
        latents: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        padding_cache: Mapping[str, torch.Tensor] | None = None,
        use_cache: bool = False,
    ) -> F3TokOutput:
        """Representations of latents, one for each; arguments and errors are those of `decode`."""
        latents, mask = _checked_latents(latents, self.config.latent_dim, padding_mask)
        cache = _opened(padding_cache, use_cache, "representation.valid", latents.shape[0])
        found = self.part("representation_encoder")(latents, cache)
        return F3TokOutput(
            representations=found, padding_mask=mask, padding_cache=cache if use_cache else None
        )

    def prepare_text(
        self, tokenizer, text: str | Sequence[str], task: str | None = None
    ) -> dict[str, torch.Tensor]:
        """`input_ids` and `attention_mask` [b, s] of texts, for `generate` and `forward`.

        Args:
            tokenizer: PreTrainedTokenizerFast.from_pretrained of the same folder.
            text: what is said, or the caption of a sound; "" where a prompt is continued.
            task: how it is meant, one of config.generation["tasks"]; default the first of them.

        Raises:
            ValueError: for another task, or a text that is too long.
        """
        fields, rows = self._generation, []
        task = task or next(iter(fields["tasks"]))
        if task not in fields["tasks"]:
            raise ValueError(f"task must be one of {', '.join(fields['tasks'])}, got {task!r}")
        for one in [text] if isinstance(text, str) else text:
            # What is spelt like a special token is text.
            options = dict(add_special_tokens=False, split_special_tokens=True)
            ids = tokenizer(fields["gap"] + one, **options)["input_ids"]
            rows.append([*fields["tasks"][task], *ids, self.config.eos_token_id] if one else [])
        if (longest := max(map(len, rows))) > fields["max_tokens"]:
            raise ValueError(
                f"text must be of {fields['max_tokens']} tokens, got {longest}: cut it"
            )
        ids = torch.zeros(len(rows), longest, dtype=torch.long, device=self.device)
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)], mask[index, : len(row)] = torch.tensor(row), 1
        return {"input_ids": ids, "attention_mask": mask}

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        latents: torch.Tensor | None = None,
        padding_mask: torch.Tensor | None = None,
        max_seconds: float = 10.0,
        min_seconds: float = 0.0,
        generator: torch.Generator | None = None,
        noise: torch.Tensor | None = None,
        **sampling,
    ) -> F3TokOutput:
        """Sound of texts; of each as much as it asks for.

        Args:
            input_ids: [b, s] of `prepare_text`.
            attention_mask: [b, s]; None for all.
            latents: [b, t, latent_dim] of recordings that are continued; what fills no patch of them
                is left out.
            padding_mask: [b, t], True or 1 where valid, which comes first; None for all.
            max_seconds: of what follows.
            min_seconds: before which nothing ends by itself.
            generator: of the noise, on the model's device.
            noise: [b, n, patch, latent_dim] of standard deviation 1, in its place.
            **sampling: what differs from config.generation["sampling"], such as guidance=3.0.

        Returns:
            latents, audio in [-1, 1] and its padding_mask; where there is no decoder, latents and
            their padding_mask.

        Raises:
            ValueError: where all is longer than the language model reads.
        """
        fields, rate = self._generation, self.config.sampling_rate / self.config.samples_per_latent
        patch, batch_size = fields["patch"], input_ids.shape[0]
        most, least = (math.ceil(time * rate / patch) for time in (max_seconds, min_seconds))
        if latents is None:
            latents = torch.zeros(batch_size, 0, self.config.latent_dim, device=self.device)
        latents, mask = _checked_latents(latents, self.config.latent_dim, padding_mask)
        whole = latents.shape[1] // patch
        mask = (
            mask[:, : whole * patch].unflatten(1, (whole, patch)).all(-1) if whole else mask[:, :0]
        )
        window = fields["language_model"]["max_position_embeddings"]
        if most < 1 or (total := input_ids.shape[1] + 1 + whole + most) > window:
            raise ValueError(
                f"text, prompt and sound must be at least a patch and at most {window} positions of the "
                f"language model, got {total if most else 0}: give another max_seconds"
            )
        shape = batch_size, patch, self.config.latent_dim

        def drawn(index: int) -> torch.Tensor:
            if noise is not None:
                return noise[:, index]
            return torch.randn(shape, generator=generator, device=self.device)

        found, mask = self._generator().generate(
            input_ids,
            _checked_mask(attention_mask, input_ids),
            latents[:, : whole * patch],
            mask.repeat_interleave(patch, dim=1),
            max_patches=most,
            min_patches=least,
            sampling=Sampling(**{**fields["sampling"], **sampling}),
            noise=drawn,
        )
        if "decoder" not in self.config.parts:
            return F3TokOutput(latents=found, padding_mask=mask)
        said = self.decode(found, mask)
        audio = said.audio.clamp(-1, 1)
        return F3TokOutput(latents=found, audio=audio, padding_mask=said.padding_mask)

    def forward(
        self,
        input_values: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        return_loss: bool = False,
    ) -> F3TokOutput:
        """Sound [b, 1, n] -> its reconstruction [b, 1, n], and the latents with their mask.

        Args:
            input_values: see `encode`.
            padding_mask: see `encode`.
            input_ids: [b, s] of `prepare_text`: what is said in whole recordings; then `loss` is that
                of the flow head, and nothing is decoded.
            attention_mask: [b, s]; None for all.
            return_loss: whether `loss` is wanted: the log-mel distance of the reconstruction. Where
                the model trains, noise is added to what the decoder hears, as it was in training.
        """
        encoded = self.encode(input_values, padding_mask)
        if input_ids is not None:
            fields = self._generation
            flow, stop = self._generator().losses(
                input_ids,
                _checked_mask(attention_mask, input_ids),
                encoded.latents.detach(),
                encoded.padding_mask,
                condition_drop=fields["condition_drop"] if self.training else 0.0,
            )
            return F3TokOutput(
                loss=flow + fields["stop_weight"] * stop,
                latents=encoded.latents,
                padding_mask=encoded.padding_mask,
            )
        heard, loss = encoded.latents, None
        if self.training and return_loss:
            alpha = self.config.gamma * torch.rand_like(heard[:, :1, :1])
            heard = heard + alpha * torch.randn_like(heard)
        audio = self.decode(heard, encoded.padding_mask).audio[..., : input_values.shape[-1]]
        if return_loss:
            target, mask = _checked_sound(input_values, padding_mask)
            scales = {"windows": self.config.mel_windows, "bands": self.config.mel_bands}
            rate = self.config.sampling_rate
            loss = multi_scale_mel(target, audio[:, 0], mask, sampling_rate=rate, **scales)
        return F3TokOutput(
            loss=loss, audio=audio, latents=encoded.latents, padding_mask=encoded.padding_mask
        )

    @property
    def _generation(self) -> Mapping:
        if not self.config.generation:
            raise ValueError(
                "text needs a run of the generation stage, got a model of an earlier one"
            )
        return self.config.generation

    def _generator(self) -> Generator:
        own = "generation_encoder" in self.config.parts
        return Generator(
            encoder=self.part("generation_encoder" if own else "representation_encoder"),
            embedding_rms=self._generation["embedding_rms"],
            **{name: self.part(name) for name in GENERATOR},
        )


def _makers(config: F3TokConfig) -> dict[str, Callable[[], nn.Module]]:
    """Name -> how it is made, of every part that the config knows."""
    encoder = functools.partial(
        F3TokRepresentationEncoder, config.latent_dim, config.representation
    )
    makers = {
        "encoder": lambda: F3TokEncoder(config),
        "decoder": lambda: F3TokDecoder(config),
    }
    if config.representation:
        makers["representation_encoder"] = encoder
    if config.generation:
        fields = config.generation
        language_model = AutoConfig.for_model(**fields["language_model"])
        width, patch = language_model.hidden_size, fields["patch"]
        makers |= {
            "generation_encoder": encoder,
            "projector": lambda: F3TokProjector(
                config.representation["width"], patch, width, fields["projector"]
            ),
            "language_model": lambda: AutoModel.from_config(language_model),
            "flow_head": lambda: F3TokFlowHead(
                config.latent_dim, patch, width, fields["flow_head"]
            ),
        }
    return makers


def _checked_sound(
    input_values: torch.Tensor, padding_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sound and mask, both [b, n]; the sound is zeros where it is not valid."""
    if input_values.ndim == 3 and input_values.shape[1] == 1:
        input_values = input_values[:, 0]
    if input_values.ndim != 2:
        raise ValueError(
            f"input_values must be [b, 1, n] or [b, n], mono, got {tuple(input_values.shape)}: mix "
            "its channels first"
        )
    if not input_values.is_floating_point():
        raise ValueError(
            f"input_values must be float in [-1, 1], got {input_values.dtype}: scale them"
        )
    mask = _checked_mask(padding_mask, input_values)
    return torch.where(mask, input_values.float(), 0.0), mask


def _checked_latents(
    latents: torch.Tensor, latent_dim: int, padding_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and mask [b, t]; the latents are zeros where they are not valid."""
    if latents.ndim != 3 or latents.shape[2] != latent_dim:
        raise ValueError(f"latents must be [b, t, {latent_dim}], got {tuple(latents.shape)}")
    mask = _checked_mask(padding_mask, latents[..., 0])
    return torch.where(mask[..., None], latents, 0.0), mask


def _checked_mask(padding_mask: torch.Tensor | None, masked: torch.Tensor) -> torch.Tensor:
    if padding_mask is None:
        return torch.ones_like(masked, dtype=torch.bool)
    if padding_mask.shape != masked.shape:
        raise ValueError(
            f"padding_mask must be {tuple(masked.shape)}, as what it masks, got "
            f"{tuple(padding_mask.shape)}"
        )
    return padding_mask.bool()


def _opened(
    padding_cache: Mapping[str, torch.Tensor] | None, use_cache: bool, own: str, batch_size: int
) -> Cache | None:
    """A copy to write to; the caller's stays as it is. None for a sound that is no stream."""
    if padding_cache is None:
        return {} if use_cache else None
    if own not in padding_cache or padding_cache[own].shape[0] != batch_size:
        raise ValueError(
            "padding_cache must be what the same method gave for the chunk before, of as many rows "
            f"as here, {batch_size}; got {sorted(padding_cache)}"
        )
    return dict(padding_cache)
