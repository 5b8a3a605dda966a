# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Trains a text tokenizer, byte-level BPE, on the texts and labels of shard sets.

    python -m data_pipelines.train_tokenizer --shards=DIR/train --output=tokenizer.json \
        --vocabulary_size=512

Exit codes: 0 finished, 1 wrong arguments or shards, 4 a full disk; stderr says which.
"""

import argparse
from collections.abc import Sequence
import sys

from data_pipelines import command
from data_pipelines.reading import text_tokenizer
from data_pipelines.records import atomic


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = command.make_parser("python -m data_pipelines.train_tokenizer", __doc__)
    add = parser.add_argument
    text = "shard folder, or DIR=weight,DIR=weight"
    add("--shards", required=True, type=command.path, help=text)
    add("--output", required=True, type=command.file, help="the tokenizer.json to write")
    add("--vocabulary_size", type=int, default=512, help="tokens")
    text = (
        f"whose instructions and answers are read; default {','.join(text_tokenizer.DEFAULT_TASKS)}"
    )
    add("--tasks", type=command.values(), default=text_tokenizer.DEFAULT_TASKS, help=text)
    return command.run(parser, _train, arguments)


def _train(given: argparse.Namespace) -> None:
    lines = list(text_tokenizer.texts(given.shards, given.tasks))
    tokenizer = text_tokenizer.train(lines, vocabulary_size=given.vocabulary_size)
    atomic.write_text(given.output, tokenizer.to_str(pretty=True) + "\n")
    num_tokens = sum(len(encoded.ids) for encoded in tokenizer.encode_batch(lines))
    print(
        f"{given.output}: {tokenizer.get_vocab_size()} tokens from {len(lines)} texts, "
        f"{sum(map(len, lines)) / num_tokens:.2f} characters per token"
    )


if __name__ == "__main__":
    sys.exit(main())
