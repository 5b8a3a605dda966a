# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Text tasks: what a record's sound can be asked about, as instruction and answer in token ids.

    instruction | answer | end of text

A task is named in a mixture with its weight; a record takes part in those that its text and labels
can answer. Only the answer and the end of the text are to be predicted.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import hashlib
import json
import os
import pathlib
from typing import NamedTuple

import numpy as np
import tokenizers

from data_pipelines.embedded.speech import numerals
from data_pipelines.reading import end_of_text
from data_pipelines.records import git_lfs
from data_pipelines.records import manifest
from data_pipelines.records import sound as sound_records

LABEL_PREFIX = "label:"  # of tasks on labels that have no name of their own
TOKENIZER_NAME = "tokenizer.json"

_MAX_TOKENIZER_BYTES = 2**28  # those of large models take about a tenth

_LANGUAGE_NAMES = dict(
    de="german", en="english", es="spanish", fr="french", it="italian", ja="japanese", ko="korean",
    pt="portuguese", ru="russian", zh="chinese",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Task:
    """What is asked, and where the answer stands.

    Attributes:
        instruction: text before the answer.
        labels: names of the label that is the answer; the first that a record has. Empty: the
            answer is the record's text.
        kind: of the texts that answer, one of sound_records.TEXT_KINDS; of tasks without labels.
        spell: label's value -> words.
        needs_whole: whether a part of the sound cannot be answered, as where all that is said is to
            be written down.
    """

    instruction: str
    labels: tuple[str, ...] = ()
    kind: str = ""
    spell: Callable[[str], str] = str
    needs_whole: bool = False

    def answers(self, record: sound_records.Record, *, is_whole: bool) -> tuple[str, ...]:
        """The answers for a record, in the order of its texts, each of them right; or none."""
        if self.needs_whole and not is_whole:
            return ()
        if not self.labels:
            return tuple(text.content for text in record.texts if text.kind == self.kind)
        values = (record.labels[name] for name in self.labels if name in record.labels)
        answer = self.spell(next(values, ""))
        return (answer,) if answer else ()


def _digit_words(value: str) -> str:
    return numerals.digit(int(value), language="en") if value in tuple("0123456789") else value


TASKS: Mapping[str, Task] = {
    "transcription": Task("what is said:", kind=sound_records.TRANSCRIPT, needs_whole=True),
    "caption": Task("what is heard:", kind=sound_records.CAPTION),
    "language": Task(
        "language:", labels=("language",), spell=lambda value: _LANGUAGE_NAMES.get(value, value)
    ),
    "voice": Task("voice:", labels=("voice", "speaker")),
    "gender": Task("gender of the voice:", labels=("gender",)),
    "instrument": Task("instrument:", labels=("instrument",)),
    "event": Task("kind of sound:", labels=("class", "event")),
    "digit": Task("digit:", labels=("digit",), spell=_digit_words),
}


def find(name: str) -> Task:
    """Returns the task of a name: one of TASKS, or "label:NAME" for the values of any label.

    Raises:
        ValueError: for another name.
    """
    if name in TASKS:
        return TASKS[name]
    label = name.removeprefix(LABEL_PREFIX)
    if label and label != name:
        return Task(f"{label}:", labels=(label,))
    raise ValueError(
        f"text task must be one of {', '.join(TASKS)} or {LABEL_PREFIX}NAME, got {name!r}"
    )


# Why a row has no text: nothing fits its record; its sound is cut, here or when shards were built, and
# the transcript would say more than is heard; the text has no room.
NO_TASK, CUT, TOO_LONG = "no task", "cut", "too long"


class TextTooLong(ValueError):
    """Instruction, answer and end of text have more tokens than a batch has room for.

    Attributes:
        num_tokens: of all three.
        num_answer: of them, to be predicted.
    """

    def __init__(self, message: str, *, num_tokens: int, num_answer: int):
        super().__init__(message)
        self.num_tokens, self.num_answer = num_tokens, num_answer


class Row(NamedTuple):
    """The text of a row.

    Attributes:
        ids: tokens of instruction, answer and end of text; none where there is no text.
        num_instruction: of them, that are not to be predicted.
        lost: why there is none: NO_TASK, CUT or TOO_LONG; "" where there is one.
        num_tokens: of the text, of a lost one too, as far as it is known.
        num_wanted: of them, to be predicted.
    """

    ids: Sequence[int] = ()
    num_instruction: int = 0
    lost: str = ""
    num_tokens: int = 0
    num_wanted: int = 0

    def write(self, batch: Mapping[str, np.ndarray], row: int) -> None:
        """Writes one row of "text", "answer" and "text_mask", all zero before."""
        batch["text"][row, : len(self.ids)] = self.ids
        batch["answer"][row, self.num_instruction : len(self.ids)] = True
        batch["text_mask"][row, : len(self.ids)] = True


class TextTasks:
    """A weighted mixture of tasks, and the text tokenizer that writes them."""

    def __init__(
        self,
        tokenizer_path: str | os.PathLike,
        weights: Mapping[str, float],
        max_tokens: int,
    ):
        """Reads the text tokenizer.

        Args:
            tokenizer_path: a tokenizer.json, or the folder of a model that has one.
            weights: name of a task -> its weight, above 0.
            max_tokens: of instruction, answer and end of text together.

        Raises:
            ValueError: for an unknown task, a weight that is none, or a file that is no text tokenizer
                or of which nothing says which token ends a text.
        """
        if not weights or not all(0.0 < weight < float("inf") for weight in weights.values()):
            raise ValueError(
                f"text tasks need names with weights above 0, got {dict(weights)}; leave out what "
                "is not wanted"
            )
        if max_tokens < 2:
            raise ValueError(f"max_tokens of the text must be at least 2, got {max_tokens}")
        self.weights, self.max_tokens = dict(weights), max_tokens
        self._tasks = {name: find(name) for name in weights}
        self._tokenizer, self._digest = read_tokenizer(pathlib.Path(tokenizer_path))
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = {token: word.content for token, word in added.items() if word.special}
        self._end = end_of_text.find(tokenizer_path, self._tokenizer)
        if self._end is None:
            raise ValueError(
                f"the tokenizer {tokenizer_path} has no token {end_of_text.USUAL!r}, and none of "
                f"{', '.join(end_of_text.KEYS)} beside it names another that it has: write the "
                "number of the token that ends a text as eos_token_id into config.json there"
            )
        # Llama's normaliser begins every text with a space: with another, words are other tokens.
        normalizer = self._tokenizer.normalizer
        begun = normalizer.normalize_str("a") if normalizer else "a"
        self._gap = "" if begun.startswith(("\u2581", " ")) else " "
        instructions = {name: task.instruction for name, task in self._tasks.items()}
        self._instructions = {name: self._ids(text) for name, text in instructions.items()}

    @property
    def fingerprint(self) -> list:
        """What decides which text comes when, ready for JSON."""
        return [self._digest, self._end, self.max_tokens, sorted(self.weights.items())]

    @property
    def vocabulary_size(self) -> int:
        """Tokens, added ones too; the embedding table must have at least as many rows."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    @property
    def end_of_text(self) -> int:
        """The token that ends an answer."""
        return self._end

    @property
    def by_weight(self) -> list[str]:
        """Names of the tasks, those of the greatest weight first."""
        return sorted(self.weights, key=self.weights.get, reverse=True)

    @property
    def gap(self) -> str:
        """What stands before an answer, so that its first word is one as others are."""
        return self._gap

    @property
    def needs_whole(self) -> bool:
        """Whether some task is about all of a sound."""
        return any(task.needs_whole for task in self._tasks.values())

    def instruction(self, name: str) -> list[int]:
        """Token ids of what a task asks.

        Raises:
            ValueError: for a task that is not in the mixture.
        """
        if name not in self._instructions:
            raise ValueError(
                f"task must be one of {', '.join(self._instructions)}, got {name!r}: the others "
                "were not trained"
            )
        return list(self._instructions[name])

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids, without the tokens that are not text."""
        return self._tokenizer.decode([int(token) for token in ids], skip_special_tokens=True)

    def answers(self, record: sound_records.Record, *, is_whole: bool) -> dict[str, tuple]:
        """Name -> answers, one or more, of the tasks that `record` can answer.

        Args:
            record: with its text and labels.
            is_whole: whether all of its source is in the batch; a part has no transcript.
        """
        each = self._tasks.items()
        answers = {name: task.answers(record, is_whole=is_whole) for name, task in each}
        return {name: found for name, found in answers.items() if found}

    def choose(
        self, answers: Mapping[str, Sequence[str]], draw: float
    ) -> tuple[str, dict[str, str]]:
        """The task that a draw in [0, 1) falls on, and of every task the answer that it falls on.

        Args:
            answers: of a record that has some; their order decides which draws are whose.
            draw: where it lies in the chosen task's share decides among several answers.
        """
        names = list(answers)
        edges = np.cumsum([self.weights[name] for name in names])
        position = draw * edges[-1]
        place = min(int(np.searchsorted(edges, position, side="right")), len(names) - 1)
        weight = self.weights[names[place]]
        share = min(max((position - edges[place] + weight) / weight, 0.0), 1.0)
        one_each = {
            name: found[min(int(share * len(found)), len(found) - 1)]
            for name, found in answers.items()
        }
        return names[place], one_each

    def tokens(self, name: str, answer: str, *, key: str) -> tuple[list[int], int]:
        """Token ids of a task, the last one the end of text, and how many are instruction.

        Raises:
            TextTooLong: naming the record `key`; nothing is ever cut.
        """
        instruction = self._instructions[name]
        # By themselves: whether a token belongs to the answer must not depend on how they join.
        ids = [*instruction, *self._ids(self._gap + answer), self._end]
        if len(ids) > self.max_tokens:
            raise TextTooLong(
                f"the text of record {key!r} has {len(ids)} tokens for the task {name!r}, more "
                f"than max_tokens={self.max_tokens}: raise it, or leave the record out",
                num_tokens=len(ids),
                num_answer=len(ids) - len(instruction),
            )
        return ids, len(instruction)

    def row(
        self,
        record: sound_records.Record,
        draw: float,
        *,
        is_whole: bool,
        lost_text: bool = False,
    ) -> Row:
        """The text that goes with a record, of one task.

        Args:
            record: of the row.
            draw: in [0, 1), which of the record's tasks, and of several answers which.
            is_whole: as in `answers`.
            lost_text: whether its transcript may have been left out, when its sound was cut.
        """
        answers = self.answers(record, is_whole=is_whole)
        if answers:
            return self._row(answers, draw, record.key)
        # Of a sound that is cut here its text is known: how much is lost can be said.
        cut = {} if is_whole else self.answers(record, is_whole=True)
        if cut:
            return self._row(cut, draw, record.key)._replace(ids=(), num_instruction=0, lost=CUT)
        return Row(lost=CUT if lost_text and self.needs_whole else NO_TASK)

    def _row(self, answers: Mapping[str, Sequence[str]], draw: float, key: str) -> Row:
        name, chosen = self.choose(answers, draw)
        try:
            ids, num_instruction = self.tokens(name, chosen[name], key=key)
        except TextTooLong as error:
            return Row((), 0, TOO_LONG, error.num_tokens, error.num_answer)
        return Row(ids, num_instruction, "", len(ids), len(ids) - num_instruction)

    def check(self, manifests: Sequence[manifest.Manifest]) -> None:
        """Refuses a task that no record of the sets can answer, as far as manifests tell.

        Raises:
            ValueError: naming the task and what its records would need.
        """
        for name, task in self._tasks.items():
            if task.labels and not any(
                label in found.labels for found in manifests for label in task.labels
            ):
                raise ValueError(
                    f"the text task {name!r} needs records with the label "
                    f"{' or '.join(task.labels)}, and the shards have none: build them with "
                    "--label_pattern or --metadata, or leave the task out"
                )
            if not task.labels and not any(found.records_with(task.kind) for found in manifests):
                lost = max((found.lost_seconds for found in manifests), default=0.0)
                remedy = "--metadata"
                if lost and task.kind == sound_records.TRANSCRIPT:
                    remedy = f"records of up to {lost:.1f} s (--segment_seconds), they were cut"
                raise ValueError(
                    f"the text task {name!r} needs records with a {task.kind}, and the shards have "
                    f"none: build them with {remedy}, or leave the task out"
                )

    def _ids(self, text: str) -> list[int]:
        """Token ids of a text, in which what is spelt like a special token is text."""
        text = text.encode(errors="replace").decode()  # JSON may hold half a character
        found = self._tokenizer.encode(text, add_special_tokens=False)
        # A special token may also be a word of the model's own vocabulary.
        for token in () if self._special.keys().isdisjoint(found.ids) else range(len(found.ids)):
            start, end = found.offsets[token]
            if end - start > 1 and self._spells(text[start:end], found.ids[token]):
                return self._ids(text[: start + 1]) + self._ids(text[start + 1 :])
        return found.ids

    def _spells(self, text: str, token: int) -> bool:
        """Whether a text is how a special token is written, and no unknown word."""
        normalizer = self._tokenizer.normalizer
        written = (text, normalizer.normalize_str(text) if normalizer else text)
        return token in self._special and any(self._special[token] in form for form in written)


def read_tokenizer(path: str | os.PathLike) -> tuple[tokenizers.Tokenizer, str]:
    """Reads a text tokenizer and the SHA-256 of its file.

    It never finds a special token in a text: "<|endoftext|>" that somebody wrote is text.

    Args:
        path: a tokenizer.json, or the folder of a model that has one.

    Raises:
        ValueError: where it is none.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        path = path / TOKENIZER_NAME
    if not path.is_file() or path.stat().st_size > _MAX_TOKENIZER_BYTES:
        raise ValueError(
            f"{path} must be a {TOKENIZER_NAME} of the tokenizers library, got "
            f"{'a file that is too large' if path.is_file() else 'no such file'}"
        )
    git_lfs.refuse(path)
    content = path.read_bytes()
    try:
        json.loads(content)
        tokenizer = tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises nothing narrower
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} must be a {TOKENIZER_NAME} of the tokenizers library, got: {reason}"
        ) from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True  # of a text they are characters, as all others are
    return tokenizer, hashlib.sha256(content).hexdigest()
