# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""F3-Tokenizer in PyTorch: sound to latents at 25 Hz and back, to representations, and to text and back.

    extractor = AutoFeatureExtractor.from_pretrained(FOLDER)
    model = AutoModel.from_pretrained(FOLDER, trust_remote_code=True)
    inputs = extractor(waveforms, sampling_rate=model.config.sampling_rate, return_tensors="pt")
    encoded = model.encode(**inputs)
    scales = encoded.audio_scales
    audio = model.decode(encoded.latents, encoded.padding_mask, audio_scales=scales).audio

Sound is [b, 1, n] in [-1, 1], latents are [b, t, latent_dim] float32. A model with config.level_db hears
each sound at that level, and audio_scales give it its own again. Of a batch that is padded on the
right every row is what it would be alone. A stream gives its chunks one after the other, of any
lengths, with use_cache=True and the padding_cache that the same method gave for the chunk before; the
last with use_cache=False. No gradient passes from chunk to chunk.

A model has the parts that its run knew; from_pretrained(FOLDER, parts=["decoder"]) loads these alone.
PyTorch and transformers 5 are all that is needed. In float32 it computes what f3tok_jax does with
compute_dtype float32, within rounding; the geometry is SpectroStream's (arXiv 2508.05207), the rest
F3-Tokenizer's (arXiv 2606.06357). One with config.semantic_autoencoder is LoSATok (arXiv 2605.27840) or
DashengTokenizer (arXiv 2602.23765), which hears whole sounds alone, and streams none.
"""

from collections.abc import Mapping, Sequence
import math
import pathlib
import shutil

import torch

from .answers_f3_tokenizer import Reader
from .autoencoder_f3_tokenizer import Conv
from .autoencoder_f3_tokenizer import TransposedConv
from .autoencoder_f3_tokenizer import detached
from .bottleneck_f3_tokenizer import noisy
from .checks_f3_tokenizer import check_rows
from .checks_f3_tokenizer import check_tensors
from .checks_f3_tokenizer import checked_latents
from .checks_f3_tokenizer import checked_mask
from .checks_f3_tokenizer import checked_sound
from .checks_f3_tokenizer import opened
from .codec_f3_tokenizer import F3TokCodec
from .codec_f3_tokenizer import F3TokOutput
from .configuration_f3_tokenizer import ANSWERS
from .configuration_f3_tokenizer import AUTOENCODER
from .configuration_f3_tokenizer import GENERATOR
from .configuration_f3_tokenizer import F3TokConfig
from .generation_f3_tokenizer import Generator
from .generation_f3_tokenizer import Sampling
from .generation_f3_tokenizer import whole_patches
from .losses_f3_tokenizer import MelDistance
from .parts_f3_tokenizer import makers
from .text_f3_tokenizer import text_rows

# Of an exported folder, what transformers does not save with a model.
_BESIDE = (
    *("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("finetune_decoder.py", "xares_encoder.py"),
)


class F3TokModel(F3TokCodec):
    """Sound to latents and back, to representations and text, and from text; as far as its parts go.

    It is no F3TokenizerModel: what transformers saves as code under such a name it takes for a text
    tokenizer, and cannot load again.
    """

    config_class = F3TokConfig
    base_model_prefix = "f3_tokenizer"
    main_input_name = "input_values"
    _supports_sdpa = True

    def __init__(self, config: F3TokConfig):
        super().__init__(config)
        known = makers(config)
        if unknown := [part for part in config.parts if part not in known]:
            raise ValueError(f"parts must be of {', '.join(known)}, got {unknown}")
        for part in config.parts:
            setattr(self, part, known[part]())
        if set(AUTOENCODER) <= set(config.parts):
            scales = config.mel_windows, config.mel_bands
            self.mel_distance = MelDistance(config.sampling_rate, *scales)
        absent = known.keys() - set(config.parts)
        self._keys_to_ignore_on_load_unexpected = [rf"^{part}\." for part in sorted(absent)]
        for name, module in self.named_modules():
            if isinstance(module, (Conv, TransposedConv)):
                module.cache_name = name
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args, output_loading_info: bool = False, **options):
        """See transformers; weights that are not those of the config are refused, not drawn."""
        model, loaded = super().from_pretrained(*args, output_loading_info=True, **options)
        check_tensors(loaded["missing_keys"], loaded["unexpected_keys"])
        return (model, loaded) if output_loading_info else model

    def save_pretrained(self, save_directory, *args, **options):
        """See transformers; what else a model of this kind needs is copied from where it was loaded."""
        super().save_pretrained(save_directory, *args, **options)
        source, target = pathlib.Path(self.config._name_or_path), pathlib.Path(save_directory)
        for name in _BESIDE:
            if (source / name).is_file() and source.resolve() != target.resolve():
                shutil.copyfile(source / name, target / name)

    def represent(
        self,
        latents: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        padding_cache: Mapping[str, torch.Tensor] | None = None,
        use_cache: bool = False,
    ) -> F3TokOutput:
        """Representations of latents, one for each; arguments and errors are those of `decode`."""
        latents, mask = checked_latents(latents, self.config.latent_dim, padding_mask)
        cache = opened(padding_cache, use_cache, "representation.valid", latents.shape[0])
        encoder = self.part("representation_encoder")
        found = encoder(latents / self.config.representation["latent_rms"], cache)
        kept = {name: detached(array) for name, array in cache.items()} if use_cache else None
        return F3TokOutput(representations=found, padding_mask=mask, padding_cache=kept)

    @torch.no_grad()
    def answer(
        self,
        latents: torch.Tensor,
        padding_mask: torch.Tensor | None = None,
        *,
        task: str | None = None,
        max_tokens: int | None = None,
    ) -> list[list[int]]:
        """What the language model says about sounds, the likeliest token each time.

        Args:
            latents: [b, t, latent_dim] of whole sounds.
            padding_mask: [b, t], True or 1 where valid, which comes first; None for all.
            task: what is asked, one of config.answers["tasks"]; default the one that was trained most.
            max_tokens: of an answer at most; default config.answers["max_tokens"].

        Returns:
            Of each row token ids, for batch_decode(ids, skip_special_tokens=True) of
            PreTrainedTokenizerFast.from_pretrained of the same folder.

        Raises:
            ValueError: for another task, or where the model has nothing that answers.
        """
        fields = self.config.answers
        if not fields:
            raise ValueError(
                "an answer needs what reads representations, got a model that was exported without: "
                "export its run again"
            )
        task = task or fields["task"]
        if task not in fields["tasks"]:
            raise ValueError(f"task must be one of {', '.join(fields['tasks'])}, got {task!r}")
        heard = self.represent(latents, padding_mask)
        return self._reader(fields).answer(
            heard.representations,
            heard.padding_mask,
            fields["tasks"][task],
            end_of_text=self.config.eos_token_id,
            max_tokens=max_tokens or fields["max_tokens"],
        )

    def _reader(self, fields: Mapping) -> Reader:
        projector, own, head = ANSWERS
        language_model = self.part(own if fields["has_own_language_model"] else GENERATOR[1])
        is_tied = fields["language_model"]["tie_word_embeddings"]
        says = language_model.get_input_embeddings() if is_tied else self.part(head)
        return Reader(
            projector=self.part(projector),
            language_model=language_model,
            head=says.weight,
            embedding_rms=fields["embedding_rms"],
        )

    def prepare_text(
        self, tokenizer, text: str | Sequence[str], task: str | None = None
    ) -> dict[str, torch.Tensor]:
        """`input_ids` and `attention_mask` [b, s] of texts, for `generate` and `forward`.

        Args:
            tokenizer: PreTrainedTokenizerFast.from_pretrained of the same folder.
            text: what is said, or the caption of a sound; "" where a prompt is continued.
            task: how it is meant, one of config.generation["tasks"]; default the one that was trained
                most.

        Raises:
            ValueError: for another task, or a text that is too long or has characters that the
                tokenizer drops.
        """
        texts = [text] if isinstance(text, str) else list(text)
        end = self.config.eos_token_id
        ids, mask = text_rows(tokenizer, texts, task, self._generation, end)
        return {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}

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
            ValueError: where all is longer than the language model reads, a row has neither text nor
                prompt, or something is none of what it must be.
        """
        fields, batch_size = self._generation, len(input_ids)
        text_mask = checked_mask(attention_mask, input_ids, "attention_mask")
        if latents is None:
            latents = torch.zeros(batch_size, 0, self.config.latent_dim, device=self.device)
        check_rows(batch_size, latents=latents, noise=noise)
        latents, mask = checked_latents(latents, self.config.latent_dim, padding_mask)
        latents, mask = whole_patches(latents, mask, fields["patch"])
        if not (text_mask.any(1) | mask.any(1)).all():
            raise ValueError("every row must have a text or a prompt, got one that has neither")
        most, least = self._patches(max_seconds), self._patches(min_seconds, least=0)
        self._check_room(input_ids.shape[1], latents.shape[1] // fields["patch"], most, noise)

        def drawn(index: int) -> torch.Tensor:
            if noise is not None:
                return noise[:, index]
            shape = batch_size, fields["patch"], self.config.latent_dim
            return torch.randn(shape, generator=generator, device=self.device)

        found, mask = self._generator().generate(
            input_ids,
            text_mask,
            latents,
            mask,
            max_patches=most,
            min_patches=least,
            sampling=Sampling.of(fields["sampling"], sampling, normalize=self.config.normalize),
            noise=drawn,
        )
        if "decoder" not in self.config.parts:
            return F3TokOutput(latents=found, padding_mask=mask)
        said = self.decode(found, mask)
        audio = said.audio.clamp(-1, 1)
        return F3TokOutput(latents=found, audio=audio, padding_mask=said.padding_mask)

    def _patches(self, seconds: float, least: int = 1) -> int:
        """Patches of so much sound, rounded up."""
        rate = self.config.sampling_rate / self.config.samples_per_latent
        if not 0 <= seconds < math.inf or (least and not seconds):
            raise ValueError(f"seconds of sound must be above 0 and finite, got {seconds}")
        return math.ceil(seconds * rate / self._generation["patch"])

    def _check_room(self, text: int, prompt: int, most: int, noise: torch.Tensor | None) -> None:
        """Raises ValueError where there are more positions than the language model reads."""
        window = self._generation["language_model"]["max_position_embeddings"]
        if (total := text + 1 + prompt + most) > window:
            raise ValueError(
                f"text, prompt and sound must be at most {window} positions of the language model, "
                f"got {total}: give less max_seconds, or a shorter prompt"
            )
        if noise is not None and noise.shape[1] < most:
            raise ValueError(
                f"noise must be of {most} patches, as max_seconds, got {noise.shape[1]}"
            )

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
                of the flow head, and nothing is decoded. It is the error of the velocity and of the
                end, with conditions dropped where the model trains; JAX, where a run is trained from
                the beginning, disturbs histories and what the encoder hears, too.
            attention_mask: [b, s]; None for all.
            return_loss: whether `loss` is wanted: the log-mel distance of the reconstruction. Where
                the model trains, noise is added to what the decoder hears, as it was in training.
        """
        encoded = self.encode(input_values, padding_mask)
        if input_ids is not None:
            fields = self._generation
            flow, stop = self._generator().losses(
                input_ids,
                checked_mask(attention_mask, input_ids, "attention_mask"),
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
            heard = noisy(heard, encoded.padding_mask, encoded.latent_deviations, self.config)
        said = self.decode(heard, encoded.padding_mask, audio_scales=encoded.audio_scales)
        audio = said.audio[..., : input_values.shape[-1]]
        if return_loss:
            target, mask = checked_sound(input_values, padding_mask)
            loss = self.mel_distance(target, audio[:, 0], mask)
        return F3TokOutput(
            loss=loss,
            audio=audio,
            latents=encoded.latents,
            padding_mask=encoded.padding_mask,
            latent_deviations=encoded.latent_deviations,
            audio_scales=encoded.audio_scales,
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
            latent_rms=self.config.representation["latent_rms"],
            **{name: self.part(name) for name in GENERATOR},
        )
