# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Lines of cells: what is CSV, what is a quote of the text, and where a row begins."""

import csv
import io
import random

import pytest

from data_pipelines.inputs import delimited


def test_csv_is_read_as_python_reads_it():
    rng = random.Random(0)
    for _ in range(200):
        width = rng.randint(2, 4)
        rows = [
            ["".join(rng.choices('ab,"\n\r ;|', k=rng.randint(1, 6))) for _ in range(width)]
            for _ in range(5)
        ]
        buffer = io.StringIO()
        csv.writer(buffer, quoting=rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])).writerows(rows)
        cells = delimited.parse(buffer.getvalue(), ",")
        assert [row for _, row in cells.rows] == rows and cells.problem is None


def test_rows_know_their_first_line():
    cells = delimited.parse('a,"b\nc"\n\nd,"e\n\nf"\ng,h', ",")
    assert cells.rows == [(1, ["a", "b\nc"]), (4, ["d", "e\n\nf"]), (7, ["g", "h"])]


@pytest.mark.parametrize(
    "text, rows",
    [
        ('a\t"b"\nc\td\ne\tf', [["a", '"b"'], ["c", "d"], ["e", "f"]]),
        ('a\t"b"\nc\t"d"\ne\t"f"', [["a", "b"], ["c", "d"], ["e", "f"]]),
        ('"a"\t"b"\nc\td', [["a", "b"], ["c", "d"]]),
        ('a\t"b ""c"""\nd\te', [["a", 'b "c"'], ["d", "e"]]),
        ('a\t"b\nc"\ne\tf', [["a", "b\nc"], ["e", "f"]]),
        ('a\t"b\nc\td"\ne\tf', [["a", '"b'], ["c", 'd"'], ["e", "f"]]),
        ('a\t"b\nc\td\ne\t5"', [["a", '"b'], ["c", "d"], ["e", '5"']]),
        ('a\t"So," he\nc\t"No."', [["a", '"So," he'], ["c", '"No."']]),
    ],
)
def test_quotes_between_tabs_are_of_the_text_unless_a_program_wrote_them(text, rows):
    cells = delimited.parse(text, "\t")
    assert [row for _, row in cells.rows] == rows and not cells.problem


def test_a_row_of_another_width_is_the_problem_if_it_comes_first():
    cells = delimited.of_width(delimited.parse('a,b\nc\nd,"e', ","), 2)
    assert cells.problem[0] == 2
    cells = delimited.of_width(delimited.parse('a,b\nd,"e\nc', ","), 2)
    assert cells.problem == (2, "opens a quote that is never closed")
    # The line that lacks a quote, not the one on which that shows.
    cells = delimited.parse('a,b\nc,"d\ne,",f ""g"""\nh,i', ",")
    assert cells.problem == (2, "opens a quote that takes in other lines")
    # Nothing said, what most rows have.
    assert delimited.of_width(delimited.parse("a,b,c\nd,e\nf,g", ","), 0).problem[0] == 1
