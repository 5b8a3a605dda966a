# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A trained representation encoder at work: sound to representations, and on to text."""

from collections.abc import Callable
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from data_pipelines.reading import tasks
from f3tok_jax.inference import codec
from f3tok_jax.inference import latent_file
from f3tok_jax.models import representation_encoder as encoder_lib
from f3tok_jax.pretrained import frozen
from f3tok_jax.pretrained import language_model as pretrained_language_model
from f3tok_jax.pretrained import representation as pretrained_representation
from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import lineage

_CHUNK = 50  # latents per compiled step: 2 s at 25 Hz


class Listener:
    """The representation encoder of a run, on the latents of the autoencoder it was trained on."""

    def __init__(
        self,
        run: lineage.Lineage,
        encoder: encoder_lib.RepresentationEncoder,
        params: dict[str, Any],
        tokenizer: codec.Tokenizer,
    ):
        """Takes weights and what goes with them; use `load` for those of a run.

        Args:
            run: at the step of the weights.
            encoder: module.
            params: of the encoder and, where the run was supervised, of the projector.
            tokenizer: of the run's autoencoder.
        """
        self.config, self.tokenizer, self.step = run.config, tokenizer, run.step
        self.encoder, self._params = encoder, params
        self._step = jax.jit(functools.partial(self.encoder.apply, method="step"))

    @classmethod
    def load(
        cls, workdir: str, step: int | None = None, *, say: Callable[[str], None] = print
    ) -> "Listener":
        """Loads the averaged weights of a run and of its autoencoder.

        Args:
            workdir: run folder of the representation stage.
            step: of the checkpoint; the newest whole one if None.
            say: where messages to the user go.

        Raises:
            ValueError: where a folder is no such run, no checkpoint is whole, or the autoencoder is
                not the one that the run was trained on.
        """
        try:
            run = lineage.Lineage.read(workdir, step, stage="representation")
            return cls.of_run(run, say=say)
        except checkpoint.CheckpointError as error:
            raise ValueError(str(error)) from error

    @classmethod
    def of_run(cls, run: lineage.Lineage, *, say: Callable[[str], None] = print) -> "Listener":
        """Loads the averaged weights of a run that was read; see `load`."""
        run.check()
        encoder, projector = pretrained_representation.make_encoder(run), None
        section = run.config.language_model
        if run.config.supervision.weight:
            width = pretrained_language_model.read(
                section.folder, compute_dtype=section.compute_dtype, remat=section.remat
            ).width
            projector = pretrained_representation.make_projector(run.config, width)
        abstract = pretrained_representation.abstract_params(encoder, projector)
        params, run = pretrained_representation.load(run, abstract, say=say)
        tokenizer = codec.Tokenizer.of_run(run.parents["autoencoder"], say=say)
        return cls(run, encoder, params, tokenizer)

    @functools.cached_property
    def transcriber(self) -> "Transcriber":
        """The frozen language model that the run was supervised by, to answer in text.

        Raises:
            ValueError: where the run was not supervised, or the model is not there any more.
        """
        if "projector" not in self._params:
            raise ValueError(
                "transcribing needs a run with supervision, got one with "
                "config.supervision.weight=0"
            )
        return Transcriber(self.config, self._params["projector"])

    def represent(self, latents: np.ndarray) -> np.ndarray:
        """Representations [c, t, width] float32 of latents [c, t, d], as a stream."""
        channels, total, _ = latents.shape
        # Room in powers of two: few programs for all lengths.
        room = _CHUNK * 2 ** max(0, int(np.ceil(np.log2(max(1.0, total / _CHUNK)))))
        cache = self.encoder.initial_cache(channels, room)
        parts = []
        for start in range(0, total, _CHUNK):
            chunk = latents[:, start : start + _CHUNK]
            count = chunk.shape[1]
            mask = np.broadcast_to(np.arange(_CHUNK) < count, (channels, _CHUNK))
            chunk = np.pad(chunk, ((0, 0), (0, _CHUNK - count), (0, 0)))
            states, cache = self._step({"params": self._params["encoder"]}, chunk, cache, mask=mask)
            parts.append(np.asarray(states, np.float32)[:, :count])
        return np.concatenate(parts, axis=1)

    def represent_file(
        self, path: str | pathlib.Path, *, channels: str = "mix"
    ) -> latent_file.LatentFile:
        """Representations of a sound file with its rates and lengths; see Tokenizer.encode_file."""
        encoded = self.tokenizer.encode_file(path, channels=channels)
        return latent_file.LatentFile(
            latents=self.represent(encoded.latents),
            latent_rate=encoded.latent_rate,
            sample_rate=encoded.sample_rate,
            num_samples=encoded.num_samples,
            fingerprint=encoded.fingerprint,
            kind=latent_file.REPRESENTATIONS,
        )

    def answer_file(self, path: str | pathlib.Path, *, task: str = "transcription") -> str:
        """What the language model answers about a sound file, by greedy decoding.

        Args:
            path: of the sound; channels are mixed.
            task: of data_pipelines.reading.tasks, one that the run was trained on.
        """
        encoded = self.tokenizer.encode_file(path)
        return self.transcriber.answer(self.represent(encoded.latents), task=task)


class Transcriber:
    """A frozen language model that reads representations and writes text."""

    def __init__(self, config: ml_collections.ConfigDict, projector_params: Any):
        """Loads the language model.

        Args:
            config: of a supervised run.
            projector_params: of it.

        Raises:
            ValueError: where the folder is no model.
        """
        self._section = config.supervision
        section = config.language_model
        self._model = pretrained_language_model.read(
            section.folder, compute_dtype=section.compute_dtype, remat="none"
        )
        dtype = jnp.dtype(section.compute_dtype)
        params = pretrained_language_model.load_params(section.folder, self._model, dtype=dtype)
        self._variables = {"params": params}
        self._projector = pretrained_representation.make_projector(config, self._model.width)
        self._projector_variables = {"params": projector_params}
        self._rms = float(frozen.embedding_rms(self._model.table(params)))
        weights = {name: weight for name, weight in self._section.tasks.items() if weight}
        self._text = tasks.TextTasks(section.folder, weights, self._section.max_tokens)
        self._extend = jax.jit(self._model.apply, static_argnames="method")
        self._next = jax.jit(self._next_token)

    def answer(
        self, representations: np.ndarray, *, task: str, max_tokens: int | None = None
    ) -> str:
        """Greedy answer about representations [1, t, width].

        Args:
            representations: of one sound.
            task: name; its instruction is what the model is asked.
            max_tokens: of the answer at most; default as many as in training.
        """
        limit = max_tokens or self._section.max_tokens
        prefix = self._prefix(representations, task)
        length = prefix.shape[1]
        # Few programs for all lengths: the prefix is padded, its padding not remembered.
        room = 64 * -(-length // 64)
        mask = np.arange(room)[None] < length
        prefix = jnp.pad(prefix, ((0, 0), (0, room - length), (0, 0)))
        cache = self._model.initial_cache(1, room + 64 * -(-limit // 64))
        hidden, cache = self._extend(self._variables, prefix, cache, mask=mask, method="step")
        token, ids = self._next(self._variables, hidden[:, length - 1 : length]), []
        while len(ids) < limit and int(token[0, 0]) != self._text.end_of_text:
            ids.append(int(token[0, 0]))
            embedded = self._extend(self._variables, token, method="embed")
            hidden, cache = self._extend(self._variables, embedded, cache, method="step")
            token = self._next(self._variables, hidden)
        return self._text.decode(ids).strip()

    def _prefix(self, representations: np.ndarray, task: str) -> jax.Array:
        """[1, n, width]: audio between its boundaries, then the instruction."""
        audio = self._projector.apply(self._projector_variables, representations)
        start, end = self._projector.apply(self._projector_variables, method="start_and_end")
        instruction = jnp.asarray([self._text.instruction(task)], jnp.int32)
        embedded = self._extend(self._variables, instruction, method="embed")
        parts = [start[None, None], audio, end[None, None]]
        scaled = [self._rms * part for part in parts]
        return jnp.concatenate([*scaled, embedded.astype(jnp.float32)], axis=1)

    def _next_token(self, variables: Any, hidden: jax.Array) -> jax.Array:
        logits = self._model.apply(variables, hidden, method="logits")
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
