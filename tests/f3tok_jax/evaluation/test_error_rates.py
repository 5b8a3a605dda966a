# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Error rates of transcripts."""

import functools

import numpy as np
import pytest

from f3tok_jax.evaluation import error_rates


@pytest.mark.parametrize(
    "reference, hypothesis, by_character, by_word",
    [
        ("one two", "one two", (0, 7), (0, 2)),
        ("one two", "one too", (1, 7), (1, 2)),
        ("one two", "  one   two ", (0, 7), (0, 2)),
        ("one two", "", (7, 7), (2, 2)),
        ("one two", "two", (4, 7), (1, 2)),
        ("zwei", "zwei drei", (5, 4), (1, 1)),  # a rate above 1
        ("", "one", (3, 0), (1, 0)),
        ("kitten", "sitting", (3, 6), (1, 1)),
        ("größe", "grösse", (2, 5), (1, 1)),
    ],
)
def test_edits_and_lengths(reference, hypothesis, by_character, by_word):
    assert error_rates.characters(reference, hypothesis) == by_character
    assert error_rates.words(reference, hypothesis) == by_word


def test_edits_are_the_least_by_exhaustion():
    @functools.cache
    def slow(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b[1:]) + (a[0] != b[0]), slow(a[1:], b) + 1, slow(a, b[1:]) + 1)

    draw = np.random.default_rng(0)
    for _ in range(100):
        first, second = ("".join(draw.choice(list("abc"), draw.integers(0, 8))) for _ in range(2))
        assert error_rates.edits(first, second) == slow(first, second)


def test_texts_are_compared_by_characters_of_all_together():
    pairs = [("one", "one"), ("thre four", "three")]
    # "three" from "thre four": four characters are missing and one is another.
    rate = error_rates.rate(error_rates.characters(*pair) for pair in pairs)
    assert rate == pytest.approx(5 / 12)
