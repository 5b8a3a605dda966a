# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A generator in use: text, and perhaps a recording, to sound."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import functools
import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.reading import tasks
from f3tok_jax.inference import batched
from f3tok_jax.inference import codec as codec_lib
from f3tok_jax.models import flow_head
from f3tok_jax.models import generator as generator_lib
from f3tok_jax.models import sampler as sampler_lib
from f3tok_jax.pretrained import exported_generation
from f3tok_jax.pretrained import generation as pretrained_generation
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import exported
from f3tok_jax.runs import lineage

_BATCH = 32  # requests at a time, at most
_ROOM = 64  # caches have room for a power of two of so many patches or more
# Patches that caches have room for at first: longer sounds double it when they get there, so that
# what is read for a patch grows with what has been said, and not with what might be.
_FIRST_ROOM = 256

_Asked = TypeVar("_Asked")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be generated.

    Attributes:
        text: what is to be said, or the caption of a sound; "" continues the prompt.
        task: of data_pipelines.reading.tasks, how the text is meant; one that was trained.
        prompt: [t, latent_dim] latents of a recording that is to be continued; None for none.
        prompt_text: what is said in it, where `text` is what its voice is to say next. Training has
            no such pairs: text and sound of both are one example there, as long as its rows are.
    """

    text: str
    task: str
    prompt: np.ndarray | None = None
    prompt_text: str = ""

    def __post_init__(self):
        if self.prompt_text.strip() and (self.prompt is None or not self.text.strip()):
            given = "no prompt" if self.prompt is None else "no text"
            raise ValueError(
                "prompt_text must be of a prompt, whose voice is to say a text, got "
                f"{self.prompt_text!r} and {given}"
            )

    @property
    def spoken(self) -> str:
        """All that is said, in the prompt and after it."""
        return joined(self.prompt_text, self.text)

    @property
    def num_latents(self) -> int:
        """Of the prompt."""
        return 0 if self.prompt is None else len(self.prompt)


def joined(first: str, second: str) -> str:
    """Two texts that are said one after the other."""
    return f"{first.strip()} {second.strip()}".strip()


class TextToSound:
    """The generator of a run with the autoencoder that it was trained on."""

    def __init__(
        self,
        model: pretrained_generation.Model | exported_generation.Generation,
        weights: dict[str, Any],
        codec: codec_lib.Codec,
        *,
        step: int,
    ):
        """Takes weights and what goes with them; use `load` for those of a run.

        Args:
            model: of the run.
            weights: of model.generator.
            codec: the autoencoder of the run.
            step: after which the weights were saved.
        """
        self.config, self.codec, self.step = model.config, codec, step
        self.generator, self.sampler = model.generator, model.sampler
        self.weights = self.generator.stored(weights)
        # The generator's own latents are of rms 1; those that are given and taken are the codec's.
        self._latent_rms = np.float32(model.run.latent_rms)
        self._renormalizes = model.run.normalizes_latents
        self.text = model.text_tasks()
        self._begin = jax.jit(self.generator.begin, static_argnames="max_patches")
        self._follow = jax.jit(self._follow_all, static_argnames="sampler")
        self._advance = jax.jit(
            self.generator.advance, static_argnames=("sampler", "num_patches"), donate_argnums=1
        )
        self._grown = jax.jit(self.generator.grown, static_argnames="more")

    @classmethod
    def load(
        cls, run: lineage.Lineage, codec: codec_lib.Codec, *, say: Callable[[str], None] = print
    ) -> "TextToSound":
        """Loads the averaged weights of a run and the models that it was trained on.

        Args:
            run: of the generation stage.
            codec: the autoencoder that the run was trained on.
            say: where messages to the user go: which steps are damaged.

        Raises:
            ValueError: where a run is of another version, or the models are not those that the run
                was trained on.
            checkpoint.CheckpointError: where no checkpoint that may be used is whole.
        """
        if isinstance(run, exported.Exported):
            return cls(*exported_generation.load(run), codec, step=run.step)
        run.check(language_model=True)
        model, weights, found = pretrained_generation.load(run, say=say)
        with config_lib.values_of(run.workdir):
            return cls(model, weights, codec, step=found.step)

    def request(
        self,
        text: str,
        task: str | None = None,
        prompt: np.ndarray | None = None,
        prompt_text: str = "",
    ) -> Request:
        """A request, by default of the run's task of the greatest weight."""
        task = task or self.text.by_weight[0]
        return Request(text=text, task=task, prompt=prompt, prompt_text=prompt_text)

    @property
    def trained_seconds(self) -> float:
        """Of sound in an example of training, at most: a prompt with what follows it was in none
        that is longer."""
        return self.config.data.crop_frames / self.codec.autoencoder.latent_rate

    @property
    def patches_per_second(self) -> float:
        return self.codec.autoencoder.latent_rate / self.generator.patch

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

    def pieces(
        self,
        requests: Sequence[Request],
        *,
        max_patches: int,
        min_patches: int = 0,
        seed: int = 0,
        sampler: Mapping[str, Any] | None = None,
        chunk_patches: int = generator_lib.CHUNK_PATCHES,
    ) -> Iterator[list[np.ndarray]]:
        """Generates latents [k, latent_dim] of each request, piece by piece; each ends on its own.

        Args:
            requests: of the batch.
            max_patches: of every row, at most; see `patches_of`.
            min_patches: before which no row ends by itself.
            seed: of the noise.
            sampler: what differs from the run's, such as dict(guidance=2.0).
            chunk_patches: of a piece.

        Raises:
            ValueError: where a text has characters that the tokenizer lacks or does not fit, or
                text, prompt and sound are together longer than the language model's window.
        """
        changed = changed_sampler(self.sampler, sampler or {}, normalizes=self._renormalizes)
        text, text_mask = text_rows(self.text, requests)
        prompt, prompt_mask = self._prompt_rows(requests)
        total = prompt.shape[1] + max_patches
        if total > self.max_patches:
            raise ValueError(
                f"prompt and sound must be at most {self.max_patches} patches, "
                f"{self.max_patches / self.patches_per_second:g} s, for the language model's "
                f"window, got {prompt.shape[1]} and {max_patches}"
            )
        # Few programs for all lengths; how many patches there may be is no part of them.
        most = _ROOM * 2 ** max(0, math.ceil(math.log2(max_patches / _ROOM)))
        room, made = min(most, max(_FIRST_ROOM, chunk_patches)), 0
        speech = self._begin(self.weights, text, text_mask, prompt, prompt_mask, max_patches=room)
        limit = jnp.full((len(requests),), max_patches, jnp.int32)
        key, is_done = jax.random.key(seed), np.zeros(len(requests), bool)
        while not is_done.all():
            if made + chunk_patches > room and room < most:
                speech, room = self._grown(speech, more=room), 2 * room
            made += chunk_patches
            speech, patches, mask = self._advance(
                self.weights,
                speech,
                key,
                limit,
                sampler=changed,
                num_patches=chunk_patches,
                least=min_patches,
            )
            is_done = np.asarray(speech.is_done)
            latents = np.asarray(flow_head.latents_of(patches), np.float32) * self._latent_rms
            counts = np.asarray(mask).sum(axis=1) * self.generator.patch
            yield [row[:count] for row, count in zip(latents, counts)]

    def generate(
        self,
        requests: Sequence[Request],
        *,
        max_patches: int,
        batch_size: int = _BATCH,
        seed: int = 0,
        **options: Any,
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Generates latents of whole lists, in batches of one size.

        Args:
            requests: at least one.
            max_patches: of each, at most.
            batch_size: requests at a time, at most.
            seed: of the noise of the first batch; those after it count on.
            **options: see `pieces`.

        Returns:
            Latents [t, latent_dim] of each request, and [n] bool: which stopped by themselves.
        """
        latents: list[np.ndarray] = []
        for start, batch in batches(requests, batch_size):
            number = start // len(batch)
            found = list(self.pieces(batch, max_patches=max_patches, seed=seed + number, **options))
            latents += [np.concatenate(parts) for parts in zip(*found)]
        del latents[len(requests) :]
        most = max_patches * self.generator.patch
        return latents, np.array([len(row) < most for row in latents])

    def follow(
        self,
        requests: Sequence[Request],
        latents: Sequence[np.ndarray],
        *,
        batch_size: int = _BATCH,
        seed: int = 0,
    ) -> list[np.ndarray]:
        """Makes each patch of recordings after the true ones before it.

        Args:
            requests: what is said in them.
            latents: [t, latent_dim] of each.
            batch_size: recordings at a time, at most.
            seed: of the noise of the first batch; those after it count on.

        Returns:
            Latents of each, as many as are in its whole patches.
        """
        patch = self.generator.patch
        length = patch * -(-max(len(row) for row in latents) // patch)
        made: list[np.ndarray] = []
        for start, batch in batches(requests, batch_size):
            true = [row / self._latent_rms for row in latents[start : start + len(batch)]]
            text, text_mask = text_rows(self.text, batch)
            rows = self._follow(
                self.weights,
                *batched.padded(true, len(batch), length),
                text,
                text_mask,
                jax.random.key(seed + start // len(batch)),
                sampler=self.sampler,
            )
            rows = np.asarray(rows) * self._latent_rms
            made += [row[: len(one) // patch * patch] for row, one in zip(rows, true)]
        return made

    def _follow_all(self, weights, latents, mask, text, text_mask, key, *, sampler):
        taught = self.generator.teach(
            weights, latents, mask, text, text_mask, jnp.zeros_like(text_mask)
        )
        shape = taught.targets.shape
        flat = functools.partial(jax.lax.collapse, start_dimension=0, stop_dimension=2)
        made = self.generator.sample(
            weights,
            flat(taught.states[:, :-1]),
            flat(taught.tokens[:, :-1]),
            flat(taught.history),
            jax.random.normal(key, (shape[0] * shape[1], *shape[2:])),
            sampler=sampler,
        )
        return flow_head.latents_of(made.reshape(shape))

    def stream(self, request: Request, *, max_patches: int, **options: Any) -> Iterator[np.ndarray]:
        """Sound of one request as it is made: blocks [k] float32 at the autoencoder's rate; one, behind
        the last patch, where the autoencoder cannot stream."""
        chunk = options.get("chunk_patches", generator_lib.CHUNK_PATCHES) * self.generator.patch
        pieces = self.pieces([request], max_patches=max_patches, **options)
        for block in self.codec.decode_blocks((piece[0][None] for piece in pieces), chunk=chunk):
            yield np.clip(block[0], -1.0, 1.0)

    def patches_for(
        self, request: Request, seconds: float, *, say: Callable[[str], None] = print
    ) -> int:
        """Patches of so much sound, or as many as the window allows, which is said.

        Raises:
            ValueError: for a time that is not above 0, or a prompt as long as the window.
        """
        wanted = self.patches_of(seconds)
        used = _ROOM * -(-(request.num_latents // self.generator.patch) // _ROOM)
        free = self.max_patches - used
        if free <= 0:
            raise ValueError(
                "the prompt must be at most "
                f"{(self.max_patches - 1) // _ROOM * _ROOM / self.patches_per_second:g} s, which "
                "the language model's window allows, got "
                f"{request.num_latents / self.codec.autoencoder.latent_rate:g} s"
            )
        self._check_prompt(request, seconds, say)
        if free < wanted:
            say(
                f"{seconds:g} s are more than the language model's window of "
                f"{self.generator.language_model.max_length} positions allows: at most "
                f"{free / self.patches_per_second:g} s will be made"
            )
        return min(wanted, free)

    def _check_prompt(self, request: Request, seconds: float, say: Callable[[str], None]) -> None:
        """Holds a prompt with its text to the length of what was trained, with which it is one."""
        if not request.prompt_text.strip():
            return
        heard = request.num_latents / self.codec.autoencoder.latent_rate
        if heard >= self.trained_seconds:
            raise ValueError(
                f"a prompt with its text must be shorter than {self.trained_seconds:g} s, as long "
                f"as training's examples were with all that is said in them, got {heard:g} s: cut "
                "the prompt and its text"
            )
        if heard + seconds > self.trained_seconds:
            say(
                f"note: after a prompt of {heard:.1f} s, what is said later than "
                f"{self.trained_seconds - heard:.1f} s is longer than any example of training"
            )

    def _prompt_rows(self, requests: Sequence[Request]) -> tuple[np.ndarray, np.ndarray]:
        """Patches [b, n, p, d] of the prompts and their mask, n a multiple of _ROOM or 0."""
        patch, latent_dim = self.generator.patch, self.codec.autoencoder.latent_dim
        counts = [request.num_latents // patch for request in requests]
        num = _ROOM * -(-max(counts) // _ROOM)
        rows = np.zeros((len(requests), num, patch, latent_dim), np.float32)
        for row, (request, count) in enumerate(zip(requests, counts)):
            if count:
                latents = request.prompt[: count * patch] / self._latent_rms
                rows[row, :count] = latents.reshape(count, patch, -1)
        return rows, np.arange(num)[None] < np.array(counts)[:, None]


def text_rows(text: tasks.TextTasks, requests: Sequence[Request]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids [b, s] int32 of requests, and their mask [b, s] bool.

    Raises:
        ValueError: where a text has characters that the tokenizer lacks, does not fit, or is empty
            without a prompt.
    """
    rows = np.zeros((len(requests), text.max_tokens), np.int32)
    mask = np.zeros((len(requests), text.max_tokens), bool)
    for row, request in enumerate(requests):
        said = request.spoken
        if not said and request.prompt is None:
            raise ValueError("text must say something where there is no prompt, got ''")
        if not said:
            continue
        text.instruction(request.task)
        ids, start = text.tokens(request.task, said, key="of the request")
        heard = text.decode(ids[start:]).strip()
        if heard != said:
            raise ValueError(
                f"text must be of characters that the tokenizer knows, got {said!r}, of which it "
                f"keeps {heard!r}"
            )
        rows[row, : len(ids)], mask[row, : len(ids)] = ids, True
    return rows, mask


def changed_sampler(
    sampler: sampler_lib.Sampler, changes: Mapping[str, Any], *, normalizes: bool
) -> sampler_lib.Sampler:
    """A run's sampler with what a call changes.

    Args:
        sampler: of the run.
        changes: name of a field -> its value.
        normalizes: whether the autoencoder brings every frame to mean 0 and rms 1.

    Raises:
        ValueError: for another name, or a norm of frames that have none.
    """
    if unknown := changes.keys() - vars(sampler).keys():
        known = ", ".join(vars(sampler))
        raise ValueError(f"sampler must give {known}, or some of them, got {min(unknown)!r}")
    found = dataclasses.replace(sampler, **changes)
    if found.renormalize and not normalizes:
        raise ValueError(
            "sampler must leave frames as they are for an autoencoder without the norm of "
            "config.bottleneck, whose frames are of any scale, got renormalize=True"
        )
    return found


def batches(requests: Sequence[_Asked], batch_size: int) -> Iterator[tuple[int, list[_Asked]]]:
    """Where batches of one size start, and their requests; the last is filled with its first."""
    size = min(batch_size, len(requests))
    for start in range(0, len(requests), size):
        batch = list(requests[start : start + size])
        yield start, batch + batch[:1] * (size - len(batch))
