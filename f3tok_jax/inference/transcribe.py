# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A frozen language model in use: representations to text."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.pretrained import exported_reader
from f3tok_jax.pretrained import reader as reader_lib
from f3tok_jax.runs import exported
from f3tok_jax.runs import lineage


class Transcriber:
    """A frozen language model that reads representations and writes text."""

    def __init__(self, reader: reader_lib.Reader, weights: Mapping[str, Any]):
        """Takes modules and their weights; use `load` for those of a run."""
        self._model, self._projector = reader.language_model, reader.projector
        self._text, self._rms = reader.text, reader.embedding_rms
        self._variables = {"params": weights["language_model"]}
        self._projector_variables = {"params": weights["projector"]}
        self._extend = jax.jit(self._model.apply, static_argnames="method")
        self._next = jax.jit(self._next_token)

    @classmethod
    def load(cls, run: lineage.Lineage, *, say: Callable[[str], None] = print) -> "Transcriber":
        """Loads the language model, and the projector of a run to it.

        Args:
            run: of the representation stage.
            say: where messages to the user go: which steps are damaged.

        Raises:
            ValueError: where the run was not supervised, its language model is not the one that it
                was trained on, or an exported folder holds none.
            checkpoint.CheckpointError: where no checkpoint that may be used is whole.
        """
        if isinstance(run, exported.Exported):
            return cls(*exported_reader.load(run))
        return cls(*reader_lib.load(run, say=say))

    def answer(
        self, representations: np.ndarray, *, task: str, max_tokens: int | None = None
    ) -> str:
        """Greedy answer about representations [t, width]; see `tokens`."""
        return self._text.decode(
            self.tokens(representations, task=task, max_tokens=max_tokens)
        ).strip()

    def tokens(
        self, representations: np.ndarray, *, task: str, max_tokens: int | None = None
    ) -> list[int]:
        """Token ids of the answer about representations [t, width], without the one that ends it.

        Args:
            representations: of one sound.
            task: name; its instruction is what the model is asked.
            max_tokens: of the answer at most; default as many as in training.
        """
        limit = max_tokens or self._text.max_tokens
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
        return ids

    def check(self, task: str) -> None:
        """Raises ValueError for a task that nothing is asked in."""
        self._text.instruction(task)

    def _prefix(self, representations: np.ndarray, task: str) -> jax.Array:
        """[1, n, width]: audio between its boundaries, then the instruction."""
        audio = self._projector.apply(self._projector_variables, representations[None])
        start, end = self._projector.apply(self._projector_variables, method="start_and_end")
        instruction = jnp.asarray([self._text.instruction(task)], jnp.int32)
        embedded = self._extend(self._variables, instruction, method="embed")
        parts = [start[None, None], audio, end[None, None]]
        scaled = [self._rms * part for part in parts]
        return jnp.concatenate([*scaled, embedded.astype(jnp.float32)], axis=1)

    def _next_token(self, variables: Any, hidden: jax.Array) -> jax.Array:
        logits = self._model.apply(variables, hidden, method="logits")
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
