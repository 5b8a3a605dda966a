# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Which text of a held-out record a generator is asked for."""

import types

from data_pipelines.reading import tasks
from f3tok_jax.evaluation import asked
from tests.support import sounds


def test_of_several_captions_the_first_is_asked_for(tmp_path):
    shards = sounds.captioned_set(tmp_path, "a dog", "it barks")
    text = tasks.TextTasks(sounds.tokenizer(tmp_path / "text"), {"caption": 1.0}, 60)
    generator = types.SimpleNamespace(text=text, codec=types.SimpleNamespace(sample_rate=16_000))
    examples = asked.read_examples(str(shards), generator, num_examples=3, label="")
    assert [(example.task, example.text) for example in examples] == [("caption", "a dog")] * 3
