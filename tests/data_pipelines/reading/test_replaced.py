# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Counts and digests of replaced rows: what they depend on, and what they do not."""

import itertools

from data_pipelines.reading import replaced

_ROWS = [
    dict(step=step, row=row, source="f", wanted=row, found=row + 1)
    for step in range(3)
    for row in range(4)
]


def _log(rows) -> replaced.Log:
    log = replaced.Log()
    for row in rows:
        log.add(
            row["step"], row["row"], **{name: row[name] for name in ("source", "wanted", "found")}
        )
    return log


def test_order_and_repetition_do_not_matter():
    wanted = _log(_ROWS).between(0, 3)
    assert wanted.count == 12 and 0 < wanted.digest < 2**64
    assert _log(_ROWS[::-1]).between(0, 3) == wanted
    assert _log([*_ROWS, *_ROWS]).between(0, 3) == wanted
    assert replaced.Replaced.sum([_log([row]).between(0, 3) for row in _ROWS]) == wanted


def test_stretches_of_steps_add_up():
    log = _log(_ROWS)
    for start, stop in itertools.combinations(range(4), 2):
        assert log.between(start, stop).count == 4 * (stop - start)
    parts = [log.between(step, step + 1) for step in range(3)]
    assert replaced.Replaced.sum(parts) == log.between(0, 3)


def test_every_part_of_a_row_matters():
    (row, *_) = _ROWS
    changes = [{}, dict(step=1), dict(row=1), dict(source="g"), dict(wanted=2), dict(found=2)]
    digests = {_log([row | change]).between(0, 3).digest for change in changes}
    assert len(digests) == len(changes)


def test_a_record_in_its_own_place_is_none():
    assert _log([_ROWS[0] | dict(found=0)]).between(0, 3) == (0, 0)


def test_it_says_how_many():
    said = str(replaced.Replaced(3, 0xAB))
    assert said.startswith("3 records could not be read") and "00000000000000ab" in said
    assert str(replaced.Replaced(1, 0)).startswith("1 record could")
