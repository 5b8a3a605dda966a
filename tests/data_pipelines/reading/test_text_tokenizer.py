# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The text tokenizer: nothing is unknown, the corpus's words are short."""

import pytest

from data_pipelines.reading import end_of_text
from data_pipelines.reading import tasks
from data_pipelines.reading import text_tokenizer
from tests.support import sounds


def test_every_text_comes_back_and_those_of_the_corpus_are_short():
    tokenizer = text_tokenizer.train([" what is said: seven"] * 3, vocabulary_size=280)
    assert tokenizer.get_vocab_size() <= 280
    for text in (" what is said: seven", "Grüße, \n\t漢字 🎵", ""):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert len(tokenizer.encode(" what is said: seven").ids) < 10
    assert tokenizer.token_to_id(end_of_text.USUAL) is not None


def test_too_few_tokens_are_refused():
    with pytest.raises(ValueError, match="vocabulary_size must be above 256, .* got 256"):
        text_tokenizer.train([], vocabulary_size=256)


def test_the_end_of_text_in_a_transcript_is_learnt_and_written_as_text(tmp_path):
    said = "press <|endoftext|> to stop"
    tokenizer = text_tokenizer.train([f" {said}"] * 50, vocabulary_size=300)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    text = tasks.TextTasks(tmp_path, {"transcription": 1.0}, 100)
    ids, _ = text.tokens("transcription", said, key="k")
    assert text.decode(ids).endswith(said) and ids.count(text.end_of_text) == 1


def test_every_caption_is_learnt_from(tmp_path):
    shards = sounds.captioned_set(tmp_path, "a dog", "it barks")
    lines = set(text_tokenizer.texts(str(shards), ["caption"]))
    assert lines == {"what is heard:", " a dog", " it barks"}
