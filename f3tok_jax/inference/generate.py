# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A trained generator at work: text, and perhaps a recording, to sound."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import itertools
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import soundfile

from data_pipelines.reading import tasks
from f3tok_jax.inference import codec
from f3tok_jax.inference import files
from f3tok_jax.models import flow_head
from f3tok_jax.models import sampler as sampler_lib
from f3tok_jax.pretrained import generation as pretrained_generation
from f3tok_jax.pretrained import language_model as pretrained_language_model
from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import lineage

_CHUNK_PATCHES = 8  # sampled per compiled call: 0.64 s at 12.5 Hz
_ROOM = 64  # caches have room for a power of two of so many patches or more


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """What the rows of a batch have become in one call.

    Attributes:
        latents: [b, k, latent_dim] float32.
        counts: [b] int, valid latents of each row, from the front.
        is_done: [b] bool, rows that have ended.
    """

    latents: np.ndarray
    counts: np.ndarray
    is_done: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be generated.

    Attributes:
        text: what is to be said, or the caption of a sound; "" continues the prompt.
        task: of data_pipelines.reading.tasks, how the text is meant; one that the run was trained on.
        prompt: [t, latent_dim] latents of a recording that is to be continued; None for none.
    """

    text: str
    task: str
    prompt: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written:
    """A sound file that was generated.

    Attributes:
        num_samples: of it.
        sample_rate: Hz.
        is_cut: whether it had to end before the model would have ended it.
    """

    num_samples: int
    sample_rate: int
    is_cut: bool

    @property
    def seconds(self) -> float:
        return self.num_samples / self.sample_rate

    @property
    def ending(self) -> str:
        """How it ended, for the console."""
        return "cut at its limit" if self.is_cut else "ended by itself"


class Speaker:
    """The generator of a run with the autoencoder that it was trained on."""

    def __init__(
        self,
        model: pretrained_generation.Model,
        weights: dict[str, Any],
        tokenizer: codec.Tokenizer,
        *,
        step: int,
    ):
        """Takes weights and what goes with them; use `load` for those of a run.

        Args:
            model: of the run.
            weights: of generator.Generator.
            tokenizer: of its autoencoder.
            step: after which the weights were saved.
        """
        self.config, self.tokenizer, self.step = model.config, tokenizer, step
        self.generator, self.sampler = model.generator, model.sampler
        text = model.config.text
        chosen = {name: weight for name, weight in text.tasks.items() if weight}
        folder = model.representation.config.language_model.folder
        self.text = tasks.TextTasks(folder, chosen, text.max_tokens)
        self.weights = weights
        self._begin = jax.jit(self.generator.begin, static_argnames="max_patches")
        self._follow = jax.jit(self._follow_all, static_argnames="sampler")
        self._advance = jax.jit(
            self.generator.advance, static_argnames=("sampler", "num_patches"), donate_argnums=1
        )

    @classmethod
    def load(
        cls, workdir: str, step: int | None = None, *, say: Callable[[str], None] = print
    ) -> "Speaker":
        """Loads the averaged weights of a run and the models that it was trained on.

        Args:
            workdir: run folder of the generation stage.
            step: of the checkpoint; the newest whole one if None.
            say: where messages to the user go.

        Raises:
            ValueError: where a folder is no such run, no checkpoint is whole, or the models are not
                those that the run was trained on.
        """
        try:
            run = lineage.Lineage.read(workdir, step, stage="generation")
            run.check(pretrained_language_model.fingerprint)
            model, weights, run = pretrained_generation.load(run, say=say)
            tokenizer = codec.Tokenizer.of_run(run.ancestor("autoencoder"), say=say)
        except checkpoint.CheckpointError as error:
            raise ValueError(str(error)) from error
        return cls(model, weights, tokenizer, step=run.step)

    @property
    def patches_per_second(self) -> float:
        return self.tokenizer.autoencoder.latent_rate / self.generator.patch

    @property
    def max_patches(self) -> int:
        """The window of the language model, less the text's part."""
        window = self.generator.language_model.max_length
        return window - self.config.text.max_tokens - 1

    def patches_of(self, seconds: float) -> int:
        """Patches of so much sound, rounded up.

        Raises:
            ValueError: for a time that is not above 0.
        """
        if not 0 < seconds < math.inf:
            raise ValueError(f"seconds of sound must be above 0, got {seconds}")
        return math.ceil(seconds * self.patches_per_second)

    def speak(
        self,
        requests: Sequence[Request],
        *,
        max_patches: int,
        min_patches: int = 0,
        seed: int = 0,
        sampler: sampler_lib.Sampler | None = None,
        chunk_patches: int = _CHUNK_PATCHES,
    ) -> Iterator[Piece]:
        """Generates a batch of latents, piece by piece; every row ends on its own.

        Args:
            requests: of the batch.
            max_patches: of every row, at most; see `patches_of`.
            min_patches: before which no row ends by itself.
            seed: of the noise.
            sampler: of the head; default the config's.
            chunk_patches: of a piece.

        Raises:
            ValueError: where a text has characters that the tokenizer lacks or does not fit, or
                text, prompt and sound are together longer than the language model's window.
        """
        text, text_mask = self._text_rows(requests)
        prompt, prompt_mask = self._prompt_rows(requests)
        total = prompt.shape[1] + max_patches
        if total > self.max_patches:
            raise ValueError(
                f"prompt and sound must be at most {self.max_patches} patches, "
                f"{self.max_patches / self.patches_per_second:g} s, for the language model's "
                f"window, got {prompt.shape[1]} and {max_patches}"
            )
        # Few programs for all lengths; how many patches there may be is no part of them.
        room = _ROOM * 2 ** max(0, math.ceil(math.log2(max_patches / _ROOM)))
        speech = self._begin(self.weights, text, text_mask, prompt, prompt_mask, max_patches=room)
        limit = jnp.full((len(requests),), max_patches, jnp.int32)
        key, is_done = jax.random.key(seed), np.zeros(len(requests), bool)
        while not is_done.all():
            speech, patches, mask = self._advance(
                self.weights,
                speech,
                key,
                limit,
                sampler=sampler or self.sampler,
                num_patches=chunk_patches,
                least=min_patches,
            )
            is_done = np.asarray(speech.is_done)
            yield Piece(
                latents=np.asarray(flow_head.latents_of(patches), np.float32),
                counts=np.asarray(mask).sum(axis=1) * self.generator.patch,
                is_done=is_done,
            )

    def speak_latents(
        self, requests: Sequence[Request], *, max_patches: int, **options: Any
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Latents [t, latent_dim] of each request, and [b] bool: which of them stopped by
        themselves; see `speak`."""
        parts: list[list[np.ndarray]] = [[] for _ in requests]
        for piece in self.speak(requests, max_patches=max_patches, **options):
            for row, (latents, count) in enumerate(zip(piece.latents, piece.counts)):
                parts[row].append(latents[:count])
        latents = [np.concatenate(row) for row in parts]
        stopped = np.array([len(row) < max_patches * self.generator.patch for row in latents])
        return latents, stopped

    def follow(
        self,
        requests: Sequence[Request],
        latents: np.ndarray,
        mask: np.ndarray,
        *,
        seed: int = 0,
        sampler: sampler_lib.Sampler | None = None,
    ) -> np.ndarray:
        """Makes each patch of recordings after the true ones before it.

        Args:
            requests: what is said in them.
            latents: [b, t, latent_dim], t a multiple of the patch.
            mask: [b, t] bool.
            seed: of the noise.
            sampler: of the head; default the config's.

        Returns:
            [b, t, latent_dim].
        """
        text, text_mask = self._text_rows(requests)
        return np.asarray(
            self._follow(
                self.weights,
                latents,
                mask,
                text,
                text_mask,
                jax.random.key(seed),
                sampler=sampler or self.sampler,
            )
        )

    def _follow_all(self, weights, latents, mask, text, text_mask, key, *, sampler):
        taught = self.generator.teach(
            weights, latents, mask, text, text_mask, jnp.zeros_like(text_mask)
        )
        shape = taught.targets.shape

        def flat(x):
            return jax.lax.collapse(x, 0, 2)

        made = self.generator.sample(
            weights,
            flat(taught.states[:, :-1]),
            flat(taught.tokens[:, :-1]),
            flat(taught.history),
            jax.random.normal(key, (shape[0] * shape[1], *shape[2:])),
            sampler=sampler,
        )
        return flow_head.latents_of(made.reshape(shape))

    def say(self, request: Request, *, max_patches: int, **options: Any) -> Iterator[np.ndarray]:
        """Sound of one request as it is made: blocks [k] float32 at the autoencoder's rate."""
        chunk = options.get("chunk_patches", _CHUNK_PATCHES) * self.generator.patch
        pieces = self.speak([request], max_patches=max_patches, **options)
        latents = (piece.latents[:, : piece.counts[0]] for piece in pieces)
        for block in self.tokenizer.decode_stream(latents, chunk=chunk):
            yield np.clip(block[0], -1.0, 1.0)

    def prompt_of(self, path: str | pathlib.Path) -> np.ndarray:
        """Latents [t, latent_dim] of a recording, for Request.prompt."""
        return self.tokenizer.encode_file(path).latents[0]

    def write_file(
        self,
        path: str | pathlib.Path,
        *,
        text: str = "",
        task: str | None = None,
        prompt: str | pathlib.Path | None = None,
        max_seconds: float,
        seed: int = 0,
        sampler: Mapping[str, Any] | None = None,
        stream: bool = False,
        say: Callable[[str], None] = print,
    ) -> Written:
        """Generates a sound file.

        Args:
            path: .wav, .flac or .ogg.
            text: see Request.
            task: see Request; default the run's task of the greatest weight.
            prompt: recording that is continued.
            max_seconds: of what follows; the language model's window may allow less, which is said.
            seed: of the noise.
            sampler: what differs from the config's sampler.
            stream: write each block as it is made; otherwise the file appears when it is whole.
            say: where messages to the user go.

        Raises:
            ValueError: for what cannot be generated, before anything is written.
        """
        path = pathlib.Path(path)
        form = files.format_of(path)
        changed = dataclasses.replace(self.sampler, **(sampler or {}))
        weights = self.text.weights
        request = Request(
            text=text,
            task=task or max(weights, key=weights.get),
            prompt=None if prompt is None else self.prompt_of(prompt),
        )
        wanted = self.patches_of(max_seconds)
        max_patches = min(wanted, self._free_patches(request))
        if max_patches < wanted:
            say(
                f"{max_seconds:g} s are more than the language model's window of "
                f"{self.generator.language_model.max_length} positions allows: at most "
                f"{max_patches / self.patches_per_second:g} s will be made"
            )
        blocks = self.say(request, max_patches=max_patches, seed=seed, sampler=changed)
        first = next(blocks)  # what is wrong with the request shows here
        rate = self.tokenizer.autoencoder.sample_rate
        target = path if stream else path.with_name(path.name + ".tmp")
        num_samples = 0
        with soundfile.SoundFile(target, "w", rate, 1, format=form) as file:
            for block in itertools.chain([first], blocks):
                file.write(block)
                num_samples += len(block)
                if stream:
                    file.flush()
        if not stream:
            target.replace(path)
        most = max_patches * self.generator.patch * self.tokenizer.autoencoder.samples_per_latent
        return Written(num_samples=num_samples, sample_rate=rate, is_cut=num_samples >= most)

    def _free_patches(self, request: Request) -> int:
        used = 0 if request.prompt is None else len(request.prompt) // self.generator.patch
        used = _ROOM * -(-used // _ROOM)
        if used >= self.max_patches:
            raise ValueError(
                f"the prompt must be shorter than {self.max_patches / self.patches_per_second:g} s,"
                f" which the language model's window allows, got "
                f"{used / self.patches_per_second:g} s"
            )
        return self.max_patches - used

    def _text_rows(self, requests: Sequence[Request]) -> tuple[np.ndarray, np.ndarray]:
        limit = self.config.text.max_tokens
        rows = np.zeros((len(requests), limit), np.int32)
        mask = np.zeros((len(requests), limit), bool)
        for row, request in enumerate(requests):
            if not request.text.strip() and request.prompt is None:
                raise ValueError("text must say something where there is no prompt, got ''")
            if not request.text.strip():
                continue
            self.text.instruction(request.task)
            ids, start = self.text.tokens(request.task, request.text.strip(), key="of the request")
            heard = self.text.decode(ids[start:]).strip()
            if heard != request.text.strip():
                raise ValueError(
                    f"text must be of characters that the tokenizer knows, got "
                    f"{request.text.strip()!r}, of which it keeps {heard!r}"
                )
            rows[row, : len(ids)], mask[row, : len(ids)] = ids, True
        return rows, mask

    def _prompt_rows(self, requests: Sequence[Request]) -> tuple[np.ndarray, np.ndarray]:
        """Patches [b, n, p, d] of the prompts and their mask, n a multiple of _ROOM or 0."""
        patch, latent_dim = self.generator.patch, self.tokenizer.autoencoder.latent_dim
        prompts = [request.prompt for request in requests]
        counts = [0 if prompt is None else len(prompt) // patch for prompt in prompts]
        num = _ROOM * -(-max(counts) // _ROOM)
        rows = np.zeros((len(requests), num, patch, latent_dim), np.float32)
        for row, (prompt, count) in enumerate(zip(prompts, counts)):
            if count:
                rows[row, :count] = prompt[: count * patch].reshape(count, patch, -1)
        return rows, np.arange(num)[None] < np.array(counts)[:, None]
