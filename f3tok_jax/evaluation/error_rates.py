# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Character and word error rates of transcripts, as sums to divide once after all were added."""

from collections.abc import Iterable, Sequence


def characters(reference: str, hypothesis: str) -> tuple[int, int]:
    """Edits between two transcripts in characters, and the length of the reference.

    Runs of blanks count as one, and not at all at either end.

    Returns:
        (edits, length); the sum of the former over that of the latter is the rate.
    """
    reference, hypothesis = (" ".join(text.split()) for text in (reference, hypothesis))
    return edits(reference, hypothesis), len(reference)


def words(reference: str, hypothesis: str) -> tuple[int, int]:
    """Edits between two transcripts in words, and the words of the reference."""
    reference, hypothesis = reference.split(), hypothesis.split()
    return edits(reference, hypothesis), len(reference)


def rate(counts: Iterable[tuple[int, int]]) -> float:
    """Edits over the length of all references together, from pairs of them; may be above 1."""
    all_edits, lengths = zip(*counts)
    return sum(all_edits) / sum(lengths)


def edits(reference: Sequence, hypothesis: Sequence) -> int:
    """Least number of substitutions, deletions and insertions that make one into the other.

    Source: Levenshtein, 1966, by rows of the usual table.
    """
    row = list(range(len(hypothesis) + 1))
    for i, wanted in enumerate(reference, 1):
        above_left, row[0] = row[0], i
        for j, found in enumerate(hypothesis, 1):
            above = row[j]
            row[j] = min(above_left + (wanted != found), above + 1, row[j - 1] + 1)
            above_left = above
    return row[-1]
