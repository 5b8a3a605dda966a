# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A byte-level BPE tokenizer of what shard sets say about their sound."""

from collections.abc import Iterable, Iterator

import tokenizers

from data_pipelines.reading import end_of_text
from data_pipelines.reading import mixture as mixtures
from data_pipelines.reading import sources
from data_pipelines.reading import tasks

# Names of voices are no words: they would take tokens from the texts.
DEFAULT_TASKS = ("transcription", "caption", "language", "instrument", "event", "digit")

_NUM_BYTES = 256


def texts(mixture: str, task_names: Iterable[str]) -> Iterator[str]:
    """Yields every instruction and answer of the records in shard sets.

    Args:
        mixture: as mixtures.parse reads it; weights play no part.
        task_names: of tasks.TASKS.
    """
    asked = [tasks.find(name) for name in task_names]
    yield from (task.instruction for task in asked)
    for name, _ in mixtures.parse(mixture):
        source = sources.open_source(name, sample_rate=None)
        for index in range(len(source)):
            record = source[index]
            for task in asked:
                for answer in task.answers(record, is_whole=True):
                    yield " " + answer  # as tasks.TextTasks writes it


def train(lines: Iterable[str], *, vocabulary_size: int) -> tokenizers.Tokenizer:
    """Returns a text tokenizer in which no text is unknown: its first tokens are the 256 bytes.

    Args:
        lines: texts to learn from.
        vocabulary_size: tokens, end of text included; fewer if the texts do not give so many.
    """
    if vocabulary_size <= _NUM_BYTES:
        raise ValueError(
            f"vocabulary_size must be above {_NUM_BYTES}, the bytes and the end of text, got "
            f"{vocabulary_size}"
        )
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[end_of_text.USUAL],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer
