# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Program: a byte-level BPE tokenizer from the texts and labels of shard sets.

    python -m data_pipelines.train_tokenizer --shards=DIR/train --output=tokenizer.json \
        --vocabulary_size=512
"""

from collections.abc import Iterable, Iterator, Sequence
import pathlib

from absl import app
from absl import flags
import tokenizers

from data_pipelines.reading import mixture as mixtures
from data_pipelines.reading import sources
from data_pipelines.reading import tasks
from data_pipelines.records import atomic

END_OF_TEXT = "<|endoftext|>"

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
                answer = task.answer(record, is_whole=True)
                if answer:
                    yield " " + answer  # as tasks.TextTasks writes it


def train(lines: Iterable[str], *, vocabulary_size: int) -> tokenizers.Tokenizer:
    """Returns a tokenizer in which no text is unknown: its first tokens are the 256 bytes.

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
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def _define_flags() -> None:
    """Defines the flags of this program; on import they would collide with those of others."""
    flags.DEFINE_string("shards", None, "Shard folder, or DIR=weight,DIR=weight.", required=True)
    flags.DEFINE_string("output", None, "The tokenizer.json to write.", required=True)
    flags.DEFINE_integer("vocabulary_size", 512, "Tokens.")
    flags.DEFINE_list("tasks", list(DEFAULT_TASKS), "Whose instructions and answers are read.")


def main(argv: Sequence[str]) -> None:
    """Trains, writes and says how long texts become."""
    del argv
    values = flags.FLAGS
    try:
        lines = list(texts(values.shards, values.tasks))
        tokenizer = train(lines, vocabulary_size=values.vocabulary_size)
    except ValueError as error:
        raise SystemExit(f"train_tokenizer: {error}") from None
    path = pathlib.Path(values.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, tokenizer.to_str(pretty=True) + "\n")
    num_tokens = sum(len(encoded.ids) for encoded in tokenizer.encode_batch(lines))
    print(
        f"{path}: {tokenizer.get_vocab_size()} tokens from {len(lines)} texts, "
        f"{sum(map(len, lines)) / num_tokens:.2f} characters per token"
    )


if __name__ == "__main__":
    _define_flags()
    app.run(main)
