# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A trained run, or its export, in use: sound to latents, representations and text, and back.

    tokenizer = F3Tokenizer.from_pretrained("runs/generation")
    latents = tokenizer.encode(waveform, sample_rate=44_100, resample=True)
    waveform = tokenizer.decode(latents)  # as long as it was, at 44.1 kHz

Arrays, streams and files alike.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools
import math
import pathlib
from typing import Any

import numpy as np

from data_pipelines.sound import audio_files
from f3tok_jax.inference import codec as codec_lib
from f3tok_jax.inference import files
from f3tok_jax.inference import frames
from f3tok_jax.inference import generate as generate_lib
from f3tok_jax.inference import model_folder
from f3tok_jax.inference import rates
from f3tok_jax.inference import represent as represent_lib
from f3tok_jax.inference import sound_formats
from f3tok_jax.inference import transcribe as transcribe_lib
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import lineage

Array = Any  # NumPy's or JAX's


class F3Tokenizer:
    """A run of the autoencoder, the representation or the generation stage.

    A part is loaded when the first call needs it: encoding with a generation run reads its
    autoencoder alone. Arrays are NumPy's or JAX's, and so are the results.

    Waveforms are float in [-1, 1], one [n] or a batch [b, n] with `lengths` [b] or a `mask` [b, n]
    (True where valid), or a list of them. A row's result does not depend on the others, nor on what
    is behind its end. They are at `sample_rate` Hz, by default the model's; another rate is refused
    unless `resample` is set.
    """

    def __init__(
        self,
        run: lineage.Lineage,
        *,
        decoder: lineage.Lineage | None = None,
        say: Callable[[str], None] = print,
    ):
        """Takes a run that was read and checked, and perhaps another one's decoder; see
        `from_pretrained`."""
        self.run, self._say = run, say
        self._autoencoder = decoder or self._run_of("autoencoder")

    @classmethod
    def from_pretrained(
        cls,
        run: str,
        step: int | None = None,
        *,
        decoder: str = "",
        moved: Mapping[str, str] | None = None,
        say: Callable[[str], None] = print,
    ) -> "F3Tokenizer":
        """Opens a run with its averaged weights; they are loaded when they are needed.

        Args:
            run: folder of the run, local or a bucket; a bundle, of which it is the last; a local folder
                that it was exported to; or the name of a model that comes with the package, such as
                "small", where no folder is called so.
            step: of the checkpoint; the newest whole one if None.
            decoder: run, or exported folder, whose decoder is used, which was trained with
                config.train_only=decoder on the latents of the run's autoencoder; "" for its own.
            moved: a run or model that the run names, or a folder above it -> where it lies now;
                what moved with the run is found without it. $F3TOK_PATH is searched too.
            say: where messages to the user go: which checkpoints are damaged, what is cut short.

        Raises:
            ValueError: where the folder is no such run, or the runs that it was trained on are not
                what they were.
            checkpoint.CheckpointError: where no checkpoint asked for is whole.
        """
        found = model_folder.read(run, step, moved=moved)
        if not decoder:
            return cls(found, say=say)
        other = model_folder.read(decoder)
        if other.stage != "autoencoder":
            got = f"got stage {other.stage!r}"
            raise ValueError(f"{decoder} must be a run of the autoencoder stage, {got}")
        if other.latents_fingerprint != found.latents_fingerprint:
            raise ValueError(
                f"the decoder of {decoder} must be of the latents {found.latents_fingerprint} of "
                f"{found.workdir}, got of {other.latents_fingerprint}: give a run that was trained with "
                "config.train_only=decoder from that autoencoder"
            )
        return cls(found, decoder=other, say=say)

    @property
    def sample_rate(self) -> int:
        """Of the model, Hz."""
        return self.run.sound.sample_rate

    @property
    def fingerprint(self) -> str:
        """What latents carry that are made and decoded here; see Lineage.latents_fingerprint."""
        return self._autoencoder.latents_fingerprint

    @functools.cached_property
    def codec(self) -> codec_lib.Codec:
        """The autoencoder."""
        return codec_lib.Codec.load(self._autoencoder, say=self._say)

    @functools.cached_property
    def representer(self) -> represent_lib.Representer:
        """The representation encoder, of the representation run: its projector and the frozen
        language model, and so `transcribe`, know it. One that a generation run trained further is
        that run's own, and makes its sound alone."""
        return represent_lib.Representer.load(self._run_of("representation"), say=self._say)

    @functools.cached_property
    def transcriber(self) -> transcribe_lib.Transcriber:
        """The frozen language model that the run was supervised by, to answer in text."""
        run = self._run_of("representation").at(self.representer.step)
        with config_lib.values_of(run.workdir):
            return transcribe_lib.Transcriber.load(run, say=self._say)

    @functools.cached_property
    def text_to_sound(self) -> generate_lib.TextToSound:
        """The language model and the flow head."""
        run = self._run_of("generation")
        return generate_lib.TextToSound.load(run, self.codec, say=self._say)

    def encode(
        self,
        waveform: Array,
        *,
        lengths: Array = None,
        mask: Array = None,
        sample_rate: int | None = None,
        resample: bool = False,
    ) -> frames.Frames:
        """Latents of sound; see the class for what is given."""
        rate = self._rate(sample_rate, resample)
        rows, form = frames.split(waveform, rank=1, lengths=lengths, mask=mask)
        heard = [next(rates.resampled([row[None]], rate, self.sample_rate))[0] for row in rows]
        counts = [len(row) for row in rows]
        found, gains = self.codec.encode_with_gains(heard)
        return self.codec.frames_of(found, counts, sample_rate=rate, gains=gains, form=form)

    def decode(self, latents: frames.Frames | Array, **padding: Array) -> Array:
        """Sound of latents.

        Args:
            latents: what `encode` gave; or [t, d], [b, t, d], or a list.
            **padding: lengths [b] or a mask [b, t], of an array.

        Returns:
            [n], or [b, n] with zeros behind the end of each row, float32; of exactly the lengths
            and the rate that were encoded, and at their levels; or all that mere latents are, at the
            rate and the level of the model.
        """
        if isinstance(latents, frames.Frames):
            given = self._latents(latents, **padding)
            rows, form, counts, rate = given.rows, given.form, given.num_samples, given.sample_rate
            gains = given.gains
        else:
            rows, form = frames.split(latents, rank=2, what=frames.LATENTS, **padding)
            rate, hop = self.sample_rate, self.run.sound.samples_per_latent
            counts, gains = [len(row) * hop for row in rows], None
            width = self.run.sound.latent_dim
            if any(row.shape[1] != width for row in rows):
                raise ValueError(
                    f"latents must have {width} channels, got {[row.shape[1] for row in rows]}"
                )
        sounds = []
        for waveform, count in zip(self.codec.decode(rows, gains=gains), counts):
            blocks = rates.resampled([waveform[None]], self.sample_rate, rate)
            sounds.append(next(rates.exactly(blocks, count))[0])
        return form.join(sounds)[0]

    def represent(self, sound: frames.Frames | Array, **options: Any) -> frames.Frames:
        """Representations of sound, or of what `encode` gave; see `encode`."""
        self._run_of("representation")
        latents = self._latents(sound, **options)
        found = self.representer.represent(latents.rows)
        return dataclasses.replace(latents, rows=found, kind=frames.REPRESENTATIONS)

    def transcribe(
        self, sound: frames.Frames | Array, *, task: str = "transcription", **options: Any
    ) -> str | list[str]:
        """What the language model answers about sound, or about what `encode` gave.

        Args:
            sound: one, or a batch or a list, for a list of answers; see `encode`.
            task: of data_pipelines.reading.tasks, one that the run was trained on.
            **options: see `encode`.
        """
        given = self.represent(sound, **options)
        answers = [self.transcriber.answer(row, task=task) for row in given.rows]
        return answers if given.form.is_batch else answers[0]

    def generate(
        self,
        text: str | Sequence[str],
        *,
        prompt: frames.Frames | None = None,
        prompt_text: str | Sequence[str] = "",
        task: str | None = None,
        max_seconds: float = 10.0,
        **options: Any,
    ) -> np.ndarray | list[np.ndarray]:
        """Sound of a text, or of each of several: [n] float32 in [-1, 1] at `sample_rate`.

        Args:
            text: what is said, or the caption of a sound; "" continues the prompt.
            prompt: what `encode` gave of recordings that are continued, one for each text.
            prompt_text: what is said in the prompt, or in each of several: its voice then says
                `text`, of which alone the sound is given. Both together must not be longer than the
                examples of training: config.text.max_tokens and config.data.crop_frames.
            task: how the text is meant; default the run's task of the greatest weight.
            max_seconds: of what follows; the language model's window may allow less, which is said.
            **options: seed, of the noise; sampler, what differs from the run's, such as
                dict(guidance=2.0).
        """
        texts = [text] if isinstance(text, str) else text
        said = [prompt_text] * len(texts) if isinstance(prompt_text, str) else prompt_text
        requests, max_patches = self._requests(texts, prompt, said, task, max_seconds)
        latents, _ = self.text_to_sound.generate(requests, max_patches=max_patches, **options)
        sounds = [np.clip(sound, -1.0, 1.0) for sound in self.codec.decode(latents)]
        return sounds[0] if isinstance(text, str) else sounds

    def encode_stream(
        self,
        blocks: Iterable[Array],
        *,
        gain: float = 1.0,
        sample_rate: int | None = None,
        resample: bool = False,
    ) -> Iterator[np.ndarray]:
        """Latents [c, k, d] of blocks of sound [c, any number of samples], as they come.

        The level of a stream is not known before it ends. So it is heard as it comes, or multiplied by
        `gain`: best by one that brings it to about the level of the model, run.level_db. An autoencoder
        that hears through a semantic encoder cannot stream, which is refused.
        """
        self.codec.check_stream()
        rate = self._rate(sample_rate, resample)
        heard = rates.resampled(frames.blocks(blocks), rate, self.sample_rate)
        return self.codec.encode_stream(heard, gain=_checked(gain))

    def decode_stream(self, parts: Iterable[Array], *, gain: float = 1.0) -> Iterator[np.ndarray]:
        """Sound [c, k] at `sample_rate` of latents [c, any number, d], as they come; divided by the
        gain with which they were encoded; refused likewise."""
        self.codec.check_stream()
        given = frames.blocks(parts, width=self.run.sound.latent_dim)
        return self.codec.decode_stream(given, gain=_checked(gain))

    def generate_stream(
        self,
        text: str,
        *,
        prompt: frames.Frames | None = None,
        prompt_text: str = "",
        task: str | None = None,
        max_seconds: float = 10.0,
        **options: Any,
    ) -> Iterator[np.ndarray]:
        """Sound of a text while it is made: blocks [k] at `sample_rate`; see `generate`."""
        (request,), max_patches = self._requests([text], prompt, [prompt_text], task, max_seconds)
        return self.text_to_sound.stream(request, max_patches=max_patches, **options)

    def encode_file(self, path: str | pathlib.Path, **options: Any) -> frames.Frames:
        """Latents of a sound file of any rate, a row for each channel; see files.encode_file."""
        return files.encode_file(self.codec, path, say=self._say, **options)

    def decode_file(self, latents: frames.Frames, path: str | pathlib.Path) -> None:
        """Writes the sound of what `encode_file` gave; see files.decode_file."""
        files.decode_file(self.codec, latents, path)

    def represent_file(self, path: str | pathlib.Path, **options: Any) -> frames.Frames:
        """Representations of a sound file of any rate; see files.encode_file."""
        self._run_of("representation")
        return self.represent(self.encode_file(path, **options))

    def transcribe_file(
        self, path: str | pathlib.Path, *, task: str = "transcription", name: str = ""
    ) -> str:
        """What the language model answers about a sound file, its channels mixed."""
        self._run_of("representation")
        return self.transcribe(self.encode_file(path, name=name), task=task)[0]

    def generate_file(
        self,
        text: str,
        path: str | pathlib.Path,
        *,
        prompt: str | pathlib.Path | None = None,
        prompt_text: str = "",
        task: str | None = None,
        **options: Any,
    ) -> files.Written:
        """Writes the sound of a text; `prompt` is a file too; see `generate` and files.generate_file."""
        sound_formats.check(path, self.sample_rate, channels=1)
        self._run_of("generation")
        recording = None if prompt is None else self.encode_file(prompt).rows[0]
        request = self.text_to_sound.request(text, task, recording, prompt_text)
        return files.generate_file(self.text_to_sound, request, path, say=self._say, **options)

    def _run_of(self, stage: str) -> lineage.Lineage:
        """The run of a stage that this run is, or was trained on."""
        found = self.run if self.run.stage == stage else self.run.ancestor(stage)
        if found is None:
            model_folder.refuse(self.run.workdir, stage, self.run.stage)
        return found

    def _rate(self, sample_rate: int | None, resample: bool) -> int:
        """Hz of sound that is given, if it may be."""
        if sample_rate is not None and not audio_files.is_rate(sample_rate):
            raise ValueError(
                f"sample_rate must be whole Hz, {audio_files.MIN_RATE} to {audio_files.MAX_RATE}, "
                f"got {sample_rate!r}"
            )
        if sample_rate not in (None, self.sample_rate) and not resample:
            raise ValueError(
                f"sound must be at {self.sample_rate} Hz, as {self.run.workdir} was trained, got "
                f"sample_rate={sample_rate}: give resample=True"
            )
        return int(sample_rate or self.sample_rate)

    def _latents(self, sound: frames.Frames | Array, **options: Any) -> frames.Frames:
        """The latents of sound, or those that were given."""
        if not isinstance(sound, frames.Frames):
            for one in sound if isinstance(sound, (list, tuple)) else [sound]:
                if getattr(one, "shape", ())[1:][-1:] == (self.run.sound.latent_dim,):
                    raise ValueError(
                        f"sound or what encode gave is understood here, got {list(one.shape)}, "
                        "which is of mere latents: give what encode gave as it is"
                    )
            return self.encode(sound, **options)
        if options:
            raise ValueError(
                f"what encode gave has its own lengths and rate: leave out {', '.join(options)}"
            )
        if sound.kind != frames.LATENTS or sound.fingerprint != self.fingerprint:
            self.codec.check(sound)
        return sound

    def _requests(
        self,
        texts: Sequence[str],
        prompt: frames.Frames | None,
        said: Sequence[str],
        task: str | None,
        max_seconds: float,
    ) -> tuple[list[generate_lib.Request], int]:
        """A request for each text, and the patches that each may have."""
        self._run_of("generation")
        prompts = self._latents(prompt).rows if prompt is not None else [None] * len(texts)
        if not len(prompts) == len(texts) == len(said) or not texts:
            raise ValueError(
                "at least one text is needed, and as many prompts and texts of them as texts where "
                f"there are any, got {len(texts)} texts, {len(prompts)} prompts and {len(said)} "
                "texts of them"
            )
        generator = self.text_to_sound
        given = zip(texts, prompts, said)
        requests = [generator.request(text, task, *one) for text, *one in given]
        longest = max(requests, key=lambda request: request.num_latents)
        return requests, generator.patches_for(longest, max_seconds, say=self._say)


def _checked(gain: float) -> float:
    """The gain of a stream, if it is one."""
    if not 0 < gain < math.inf:
        raise ValueError(f"gain must be a factor above 0, for all of a stream, got {gain}")
    return float(gain)
