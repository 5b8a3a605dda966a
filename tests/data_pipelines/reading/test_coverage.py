# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The shares of a log are those of what was counted, worked out by hand."""

import pytest

from data_pipelines.reading import coverage
from data_pipelines.reading import tasks


def _text(num_wanted: int, lost: str = "") -> tasks.Row:
    return tasks.Row(num_wanted=num_wanted, lost=lost)


def _counted() -> coverage.Counts:
    """Eight records of 10 s, of which a crop hears 8 and rows leave out two."""
    counts = coverage.Counts({"positions": 100, "frames": 50}, num_rows=2)
    texts = [
        *(_text(4), _text(6), _text(5), _text(7, tasks.CUT), _text(8, tasks.TOO_LONG)),
        *(_text(0, tasks.NO_TASK), _text(0, tasks.NO_TASK), _text(10, tasks.CUT)),
    ]
    for index, text in enumerate(texts):
        is_left_out = index in (2, 3)
        counts.add(seconds=10.0, heard_seconds=8.0, text=text, is_left_out=is_left_out)
        if not is_left_out:
            counts.use({"positions": 15, "frames": 10})
    return counts


def test_shares_are_of_what_they_name():
    assert coverage.shares(_counted().sums) == pytest.approx(
        {
            "sound_cut": 16 / 80,
            "sound_left_out": 16 / 80,
            "text_none": 2 / 8,
            "text_cut": 2 / 6,  # of those that have a text
            "text_too_long": 1 / 6,
            "text_left_out": 1 / 6,  # the other one that was left out had lost its text before
            "answers_kept": 10 / 40,
            "padding/positions": 1 - 90 / 200,
            "padding/frames": 1 - 60 / 100,
        }
    )


def test_what_is_not_counted_has_no_share():
    counts = coverage.Counts()
    counts.add_alone(3, seconds=30.0, heard_seconds=None)
    assert coverage.shares(counts.sums) == {}
    counts.add_alone(1, seconds=10.0, heard_seconds=6.0)
    assert coverage.shares(counts.sums) == {"sound_cut": 0.1}


def test_a_log_counts_a_batch_once_and_forgets_what_lies_before():
    log = coverage.Log()
    for step in (3, 4, 4, 5, 6):
        counts = coverage.Counts()
        counts.add_alone(2, seconds=step, heard_seconds=None)
        log.add(step, counts)
    assert log.between(4, 6) == {"records": 4, "seconds": 9.0}
    assert log.between(0, 6) == {"records": 4, "seconds": 9.0}
    assert log.between(6, 9) == {"records": 2, "seconds": 6.0}
