# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the embedded voices say: digits, numbers, names and everyday sentences, composed here."""

import re

import numpy as np

from data_pipelines.embedded.speech import grammar
from data_pipelines.embedded.speech import numerals

KINDS = ("digits", "number", "name", "sentence")


def compose(kind: str, rng: np.random.Generator, *, language: str) -> str:
    """Returns something to say, with the punctuation that a voice reads as pauses and melody.

    Args:
        kind: one of KINDS; "digits" is one to six digits one by one, "number" a number up to 9999.
        rng: decides the words.
        language: one of grammar.LANGUAGES.
    """
    if kind == "digits":
        return _digits(rng, language)
    words = grammar.read(language)
    templates = {"number": words.numbers, "name": words.names, "sentence": words.sentences}[kind]
    first, friend = rng.choice(words.first_names, 2, replace=False)
    # As many short numbers as long ones.
    number = int(rng.integers(0, 10 ** int(rng.integers(1, 5))))
    return str(rng.choice(templates)).format(
        first=first,
        friend=friend,
        last=rng.choice(words.last_names),
        thing=rng.choice(words.things),
        place=rng.choice(words.places),
        time=rng.choice(words.times),
        number=numerals.words(number, language=language),
    )


def transcript(text: str) -> str:
    """Returns the words alone: lower case, apostrophes kept, no punctuation, single spaces."""
    return " ".join(re.sub(r"[^\w']+", " ", text.lower()).split())


def _digits(rng: np.random.Generator, language: str) -> str:
    count = int(rng.integers(1, 7))
    words = [numerals.digit(int(value), language=language) for value in rng.integers(0, 10, count)]
    # A pause in the middle of the long ones, as people say telephone numbers.
    return " ".join(words) if count < 4 else f"{' '.join(words[:3])}, {' '.join(words[3:])}"
