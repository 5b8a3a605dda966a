# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The tokenizer program: the file is readable."""

import subprocess
import sys

import tokenizers

from data_pipelines.reading import tasks
from tests.support import sounds


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
