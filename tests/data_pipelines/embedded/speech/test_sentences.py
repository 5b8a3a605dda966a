# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the embedded voices say: every template fills, and a transcript is words only."""

import hashlib

import numpy as np
import pytest

from data_pipelines.embedded.speech import grammar
from data_pipelines.embedded.speech import numerals
from data_pipelines.embedded.speech import sentences


@pytest.mark.parametrize("language", grammar.LANGUAGES)
@pytest.mark.parametrize("kind", sentences.KINDS)
def test_sentences_are_complete_and_varied(kind, language):
    texts = [
        sentences.compose(kind, np.random.default_rng(seed), language=language)
        for seed in range(100)
    ]
    assert not any("{" in text or "}" in text for text in texts)
    assert len(set(texts)) > 30
    for text in texts:
        transcript = sentences.transcript(text)
        assert transcript == transcript.lower() and transcript
        assert all(letter.isalpha() or letter in " '" for letter in transcript)


def test_digit_strings_are_digits_of_many_lengths():
    words = {numerals.digit(value, language="en") for value in range(10)}
    lengths = set()
    for seed in range(60):
        spoken = sentences.transcript(
            sentences.compose("digits", np.random.default_rng(seed), language="en")
        ).split()
        assert set(spoken) <= words
        lengths.add(len(spoken))
    assert lengths == {1, 2, 3, 4, 5, 6}


def test_transcript():
    assert sentences.transcript("¿Dónde está l'Été, Anna-Marie?") == "dónde está l'été anna marie"


def test_what_is_said_does_not_change_between_versions():
    """Corpora are rebuilt from their seed: other words there would be other data under one name."""
    said = [
        sentences.compose(kind, np.random.default_rng(seed), language=language)
        for language in grammar.LANGUAGES
        for kind in sentences.KINDS
        for seed in range(20)
    ]
    digest = hashlib.sha256("\n".join(said).encode("utf-8")).hexdigest()
    assert digest.startswith("05c57c64b1c69657")
