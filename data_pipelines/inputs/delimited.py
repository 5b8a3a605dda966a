# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Lines of cells with a mark between them, read strictly: all cells are right or a line is wrong.

Commas and semicolons are as in RFC 4180: a cell with the mark, a quote or a line break in it stands
in quotes, which are doubled inside. Tables with tabs or bars carry quotes of the text itself, unless
all of them can be read as CSV and some must be.
"""

import collections
from collections.abc import Sequence
import dataclasses
import re

MARKS = {"comma": ",", "tab": "\t", "bar": "|", "semicolon": ";", "space": " ", "colon": ":"}
FOUND = tuple(mark for mark in MARKS.values() if mark != ":")  # without being named
_NAMES = {mark: name for name, mark in MARKS.items()}
_QUOTED = re.compile(r'"([^"]*(?:""[^"]*)*)"')


@dataclasses.dataclass(frozen=True)
class Cells:
    """A table as one mark divides it.

    Attributes:
        mark: between the cells.
        rows: (number of its first line, cells), up to what is wrong; without empty lines.
        problem: the first line that is wrong and a clause that says why, None if all is well.
    """

    mark: str
    rows: Sequence[tuple[int, list[str]]]
    problem: tuple[int, str] | None = None


def parse(text: str, mark: str) -> Cells:
    """Divides a text into rows of cells; see the top of this file for its quotes."""
    if mark == " ":
        rows = [(line, cells[0].split(None, 1)) for line, cells in literal(text, "\n").rows]
        return Cells(mark, [(line, (cells + [""])[:2]) for line, cells in rows])
    if '"' not in text:
        return literal(text, mark)
    strict = _strict(text, mark)
    if mark in ",;":
        return strict
    plain = literal(text, mark)
    return strict if _is_csv(strict, plain) else plain


def width_of(cells: Cells) -> int:
    """How many cells most rows have, 0 where there is no row."""
    widths = collections.Counter(len(row) for _, row in cells.rows)
    return widths.most_common(1)[0][0] if widths else 0


def of_width(cells: Cells, width: int) -> Cells:
    """The same table, with a problem where a row has another number of cells than `width`.

    Args:
        cells: of the table.
        width: 0 for what most rows have.
    """
    width = width or width_of(cells)
    for line, row in cells.rows:
        if len(row) != width and (cells.problem is None or line < cells.problem[0]):
            mark = _NAMES[cells.mark]
            why = f"has {len(row)} columns with a {mark} between them where there must be {width}"
            if len(row) > width:
                inside = (
                    "must stand in quotes" if cells.mark in ",;" else "needs JSON lines instead"
                )
                why += f": a text with a {mark} in it {inside}"
            return dataclasses.replace(cells, problem=(line, why))
    return cells


def literal(text: str, mark: str) -> Cells:
    """Divides a text whose quotes are part of its cells."""
    rows = []
    for line, row in enumerate(text.split("\n"), start=1):
        row = row.removesuffix("\r")
        if "\r" in row:
            return Cells(mark, rows, (line, "has a carriage return inside"))
        if row.strip(" \t" if mark != "\t" else " "):
            rows.append((line, row.split(mark)))
    return Cells(mark, rows)


def _strict(text: str, mark: str) -> Cells:
    rows, start, line = [], 0, 1
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        row = text[start:end].removesuffix("\r")
        if '"' not in row:
            if "\r" in row:
                return Cells(mark, rows, (line, "has a carriage return inside"))
            if row.strip(" \t" if mark != "\t" else " "):
                rows.append((line, row.split(mark)))
            start, line = end + 1, line + 1
            continue
        cells, end, problem = _strict_row(text, start, mark)
        if problem:
            at, why = problem
            return Cells(mark, rows, (line + text.count("\n", start, at), why))
        rows.append((line, cells))
        line += text.count("\n", start, end)
        start = end
    return Cells(mark, rows)


def _strict_row(text: str, start: int, mark: str) -> tuple[list[str], int, tuple | None]:
    """Cells of the row at `start`, where the next one starts, (where, why) of what is wrong."""
    cells, plain, opened = [], re.compile(f"[^{re.escape(mark)}\n]*"), -1
    while True:
        if text.startswith('"', start):
            found = _QUOTED.match(text, start)
            if not found:
                return cells, start, (start, "opens a quote that is never closed")
            cells.append(found[1].replace('""', '"'))
            opened = start if opened < 0 and "\n" in found[0] else opened
        else:
            found = plain.match(text, start)
            cells.append(found[0] if text.startswith(mark, found.end()) else found[0].rstrip("\r"))
            if '"' in found[0] and opened >= 0:
                return cells, start, (opened, "opens a quote that takes in other lines")
            if '"' in found[0]:
                why = "has a quote in a cell that does not begin with one: put all of the cell in "
                return cells, start, (start, why + "quotes and double those inside")
        end = found.end()
        if text.startswith(mark, end):
            start = end + 1
        elif end == len(text) or text.startswith(("\n", "\r\n"), end):
            return cells, end + (2 if text.startswith("\r", end) else 1), None
        else:
            return cells, start, (start, "opens a quote with text behind the one that closes it")


def _is_csv(strict: Cells, plain: Cells) -> bool:
    """Whether quotes of a table with tabs or bars are those of CSV, wrong ones or right ones."""
    cells = [cell for _, row in plain.rows for cell in row if cell]
    quoted = [cell[0] == cell[-1] == '"' and len(cell) > 1 for cell in cells]
    if plain.rows and all(quoted[: len(plain.rows[0][1])]):
        return True  # The names of columns are.
    if strict.problem:
        # A text may well begin with a quote and have no other; doubled ones are by a program.
        return any('""' in cell for cell in cells) or 2 * sum(quoted) > len(cells)
    read = [cell for _, row in strict.rows for cell in row]
    is_even = len({len(row) for _, row in plain.rows}) == 1
    # A quote that one text opens and a later one closes takes in rows that are whole without it.
    marks = ('"',) if is_even else ('"', "\n", strict.mark)
    if any(mark in cell for cell in read for mark in marks):
        return True
    # Nothing needs its quotes: a program has put them round all cells of a column, or people speak.
    rows = [row for _, row in plain.rows[1:]]
    return len(rows) > 1 and any(all(cell[:1] == '"' for cell in column) for column in zip(*rows))
