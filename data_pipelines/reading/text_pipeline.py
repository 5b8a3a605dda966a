# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Batches of packed text documents, by their step, from what shard sets say about their sound.

A document is what a language model will be asked about sound, in one of two forms:

    instruction | answer | end of text
    context | instruction | answer | end of text

The context is everything that is known of the record, in any order, each token said several times
over: it stands where the sound will stand, so that the model learns to answer from it. Only then
can it, frozen, tell an encoder what is worth hearing. Of several captions of a sound a document
takes one, context and answer the same.
"""

from collections.abc import Sequence
import dataclasses
import functools

import numpy as np

from data_pipelines.reading import batches
from data_pipelines.reading import mixture_pipeline
from data_pipelines.reading import tasks

# What "scored" says of a token.
NOT_SCORED, SCORED, SCORED_IN_CONTEXT = 0, 1, 2

_MAX_REMEMBERED = 2**20  # records' texts; reading one reads its sound too


@dataclasses.dataclass(frozen=True)
class Forms:
    """How documents are made.

    Attributes:
        context: share of the documents that have one.
        max_repeats: how often, at most, each token of a context is said.
    """

    context: float
    max_repeats: int


class TextPipeline(mixture_pipeline.MixturePipeline):
    """Rows of whole documents, one after another; those that do not fit their row are left out."""

    def __init__(
        self,
        mixture: str | Sequence[tuple[str, float]],
        options: mixture_pipeline.Options,
        *,
        text: tasks.TextTasks,
        forms: Forms,
        length: int,
        documents_per_row: int,
    ):
        """Opens the sets and checks that they have something to say.

        Args:
            mixture: as in MixturePipeline; of sound or latents.
            options: of the batches.
            text: the tasks and their text tokenizer.
            forms: of the documents.
            length: tokens of a row.
            documents_per_row: that are tried, in their order.

        Raises:
            ValueError: if a set is not whole or no record answers any task, or the numbers do not
                fit together.
        """
        if not 0.0 <= forms.context <= 1.0 or forms.max_repeats < 1 or documents_per_row < 1:
            raise ValueError(
                "documents need a share of contexts in [0, 1], max_repeats and documents_per_row "
                f"of at least 1, got {forms.context}, {forms.max_repeats} and {documents_per_row}"
            )
        super().__init__(mixture, options, sample_rate=None)
        if options.train:  # what is held out may lack a task
            text.check([source.manifest for source in self._sources])
        self._text, self._forms = text, forms
        self._length, self._documents = length, documents_per_row
        self._answers = functools.lru_cache(maxsize=_MAX_REMEMBERED)(self._read_answers)
        self.fingerprint = self._digest(
            self._weights,
            text.fingerprint,
            dataclasses.astuple(forms),
            length,
            documents_per_row,
            options.batch_size,
            options.seed,
            options.train,
        )

    @property
    def batch_spec(self) -> batches.Spec:
        """Name -> (shape, dtype) of the global batch.

        "text" are token ids; "segments" number a row's documents from 1, 0 is padding; "scored" is
        NOT_SCORED, SCORED, or SCORED_IN_CONTEXT for an answer after its context.
        """
        shape = (self.options.batch_size, self._length)
        return {name: (shape, np.dtype(np.int32)) for name in ("text", "segments", "scored")}

    def local_batch(self, step: int) -> dict[str, np.ndarray]:
        """Returns this host's rows of the batch of `step`, by `batch_spec`."""
        shape = (len(self.options.rows), self._length)
        batch = {name: np.zeros(shape, np.int32) for name in self.batch_spec}
        for local_row, row in enumerate(self.options.rows):
            filled, segment = 0, 0
            key = [self.options.seed, step * 2**20 + row]
            generator = np.random.Generator(np.random.Philox(key=key))
            for number, (source, index) in enumerate(self._places(step, row)):
                key, answers, found = self._answers(source, index, True)
                place = dict(source=self._sources[source].fingerprint, wanted=index, found=found)
                self._replaced.add(step, row * self._documents + number, **place)
                ids, scored = self._document(key, answers, generator)
                end = filled + len(ids)
                if not ids or end > self._length:
                    continue
                segment += 1
                batch["text"][local_row, filled:end] = ids
                batch["scored"][local_row, filled:end] = scored
                batch["segments"][local_row, filled:end] = segment
                filled = end
        return batch

    def example_keys(self, step: int) -> list[str]:
        """Returns the keys of the records that the global batch of `step` tries, in its order."""
        rows = range(self.options.batch_size)
        # Other hosts' damage is for them to count.
        return [
            self._answers(*place, False)[0] for row in rows for place in self._places(step, row)
        ]

    def _places(self, step: int, row: int) -> list[tuple[int, int]]:
        """The sources and records of the documents that a row tries."""
        start = (step * self.options.batch_size + row) * self._documents
        positions = np.arange(start, start + self._documents, dtype=np.int64)
        return list(zip(*(part.tolist() for part in self._mixture.locate(positions))))

    def _read_answers(
        self, source_index: int, index: int, count: bool
    ) -> tuple[str, dict[str, tuple], int]:
        """A record's key, its answers by task, in the order of the tasks' names, and its index."""
        source = self._sources[source_index]
        record, found = self._substitute.read(source.__getitem__, index, len(source), count=count)
        # Also of a part of a sound, because here nothing is heard.
        answers = self._text.answers(record, is_whole=True)
        return f"{source.name}:{record.key}", dict(sorted(answers.items())), found

    def _document(
        self, key: str, answers: dict[str, tuple], generator: np.random.Generator
    ) -> tuple[list[int], list[int]]:
        """Token ids of one document, and for each how it is scored; empty if there is none."""
        # Always as many draws: a document does not move those after it.
        draws = generator.random(4)
        if not answers:
            return [], []
        name, chosen = self._text.choose(answers, draws[0])
        try:
            ids, num_instruction = self._text.tokens(name, chosen[name], key=key)
            if draws[1] >= self._forms.context:
                return ids, [SCORED] * len(ids)
            context = self._context(chosen, key, draws[2:])
        except tasks.TextTooLong:
            return [], []
        scored = [NOT_SCORED] * (len(context) + num_instruction)
        return context + ids, scored + [SCORED_IN_CONTEXT] * (len(ids) - num_instruction)

    def _context(self, answers: dict[str, str], key: str, draws: np.ndarray) -> list[int]:
        """One answer of each task in an order, each token said equally often."""
        names = list(answers)
        repeats = 1 + int(draws[0] * self._forms.max_repeats)
        order = np.random.Generator(np.random.Philox(int(draws[1] * 2**32))).permutation(len(names))
        context = []
        for place in order:
            ids, num_instruction = self._text.tokens(names[place], answers[names[place]], key=key)
            context += ids[num_instruction:-1]
        return [token for token in context for _ in range(repeats)]
