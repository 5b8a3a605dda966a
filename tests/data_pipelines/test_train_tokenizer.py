# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The tokenizer program: nothing is unknown, the corpus's words are short, the file is readable."""

import subprocess
import sys

import pytest
import tokenizers

from data_pipelines import train_tokenizer
from data_pipelines.reading import tasks
from tests.support import sounds


def test_every_text_comes_back_and_those_of_the_corpus_are_short():
    tokenizer = train_tokenizer.train([" what is said: seven"] * 3, vocabulary_size=280)
    assert tokenizer.get_vocab_size() <= 280
    for text in (" what is said: seven", "Grüße, \n\t漢字 🎵", ""):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert len(tokenizer.encode(" what is said: seven").ids) < 10
    assert tokenizer.token_to_id(tasks.END_OF_TEXT) is not None


def test_too_few_tokens_are_refused():
    with pytest.raises(ValueError, match="vocabulary_size must be above 256, .* got 256"):
        train_tokenizer.train([], vocabulary_size=256)


def test_the_program_writes_what_the_tasks_read(tmp_path):
    shards = sounds.labelled_set(tmp_path)
    output = tmp_path / "out" / "tokenizer.json"
    command = [
        *(sys.executable, "-m", "data_pipelines.train_tokenizer"),
        *(f"--shards={shards}", f"--output={output}", "--vocabulary_size=300"),
        "--tasks=transcription,digit",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "characters per token" in done.stdout
    text = tasks.TextTasks(output, {"transcription": 1.0}, 60)
    assert text.vocabulary_size == tokenizers.Tokenizer.from_file(str(output)).get_vocab_size()
    ids, num_instruction = text.tokens("transcription", "tone 2", key="k")
    assert text.decode(ids[num_instruction:]) == " tone 2"
