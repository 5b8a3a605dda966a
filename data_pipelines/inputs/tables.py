# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Tables of texts and labels as people keep them: rows that name a sound, or a line that is wrong.

CSV, tabs or bars with or without names of columns (LJSpeech, Common Voice, Clotho, AudioFolder),
lines of words behind a name (LibriSpeech, Kaldi), and JSON, one object a line or an array.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import os
import re
from typing import Any

from data_pipelines.inputs import columns
from data_pipelines.inputs import delimited
from data_pipelines.inputs import json_objects
from data_pipelines.inputs import text_files
from data_pipelines.records import sound as sound_records

_JSON_ENDINGS = (".json", ".jsonl", ".ndjson")
_WORDS_ENDINGS = (".trans.txt", ".trans")

_MAX_CHARACTERS = 2**16  # of texts in a row; what is said in an hour has about 60,000

_NUM_ASKED = 500  # rows of a table that tell what its columns and marks are
_HAS_FIGURE = re.compile(r"\d").search

# Whether a name, as a table has it, is that of a sound.
Knows = Callable[[str], bool]


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """What one row says of one sound; `line` is where it begins in the file at `path`."""

    path: str
    line: int
    file: str
    texts: tuple[sound_records.Text, ...]
    labels: dict[str, str]

    @property
    def where(self) -> str:
        return f"{self.path}, line {self.line}"


@dataclasses.dataclass(frozen=True)
class Options:
    """What a user says of tables that do not say it.

    Attributes:
        columns: names of the columns, empty if the first line has them or the layout is known; of
            JSON, those that are read.
        delimiter: one of delimited.MARKS, "" to find it.
        text_kind: of texts whose column does not tell it, "" for transcripts.
    """

    columns: tuple[str, ...] = ()
    delimiter: str = ""
    text_kind: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows of one file, and how many more hold nothing but marks between empty cells."""

    rows: tuple[Row, ...]
    num_blank: int = 0


def read(path: str | os.PathLike, options: Options, knows: Knows) -> Table:
    """Reads a table in any of the layouts.

    Args:
        path: of a file of text.
        options: what it does not say itself.
        knows: tells columns of files from others, and marks between cells from those in texts.

    Raises:
        ValueError: naming the line that is wrong, or what a user is to say.
    """
    path = os.fspath(path)
    text = text_files.read(path)
    start, num_blank = text.lstrip()[:1], 0
    if path.lower().endswith(_JSON_ENDINGS) or start == "{":
        found = _chosen(path, list(json_objects.parse(path, text)), options.columns)
        if not any(columns.files(tuple(fields)) for _, fields in found[:1]):
            names = ", ".join(found[0][1]) if found else "nothing"
            raise ValueError(
                f"{path} must name a sound in each object, as audio_filepath, got {names}"
            )
    elif os.path.basename(path) == "text" or path.lower().endswith(_WORDS_ENDINGS):
        found = _named(path, _words(path, text, knows), ("file", "text"))
    else:
        cells, names = _cells(path, text, options, knows)
        _refuse_wrong(path, cells, knows)
        full = [(line, row) for line, row in cells.rows if any(cell.strip() for cell in row)]
        num_blank = len(cells.rows) - len(full)
        found = _named(path, dataclasses.replace(cells, rows=full), names)
    if not found:
        raise ValueError(f"{path} must be a table with a row for each sound, got no row")
    return Table(tuple(_rows(path, found, options, knows)), num_blank)


def _chosen(
    path: str, found: list[tuple[int, dict[str, Any]]], names: Sequence[str]
) -> list[tuple[int, dict[str, Any]]]:
    """Objects with those of their names that a user wants, if they are said."""
    chosen = [
        (line, {name: value for name, value in fields.items() if name in names or not names})
        for line, fields in found
    ]
    if found and not columns.files(tuple(chosen[0][1])) and columns.files(tuple(found[0][1])):
        raise ValueError(
            f"--metadata_columns={','.join(names)} must name the columns of {path} that are to be "
            f"read, that of the sound among them, which has {', '.join(found[0][1])}"
        )
    return chosen


def _rows(
    path: str, found: Sequence[tuple[int, dict[str, Any]]], options: Options, knows: Knows
) -> Iterator[Row]:
    names = dict.fromkeys(name for _, fields in found for name in fields)
    named = columns.files(tuple(names))
    file_column = next((name for name in names if name not in ("", "_")), "")
    if named:
        file_column = named[0]
    if len(named) > 1:  # The one that names most sounds; the surest of equal ones.
        files = {name: [_file(fields.get(name)) for _, fields in found] for name in named}
        counts = _num_known(files, knows)
        file_column = max(named, key=counts.get)
    offsets = [name for name in names if name.strip().casefold() == "offset"]
    for line, fields in found:
        where = f"{path}, line {line},"
        file = _file(fields.pop(file_column, None))
        if not file:
            raise ValueError(f"{where} must name its sound in {file_column!r}, got nothing there")
        if any(_is_number_but_0(fields.get(name)) for name in offsets):
            raise ValueError(
                f"{where} is of a part of a sound, by its offset, and texts are of whole sounds: "
                "cut the sounds, and name the parts"
            )
        texts, labels = columns.texts_and_labels(fields, text_kind=options.text_kind, where=where)
        num_characters = sum(len(text.content) for text in texts)
        if num_characters > _MAX_CHARACTERS:
            raise ValueError(
                f"{where} must be the texts of one sound, at most {_MAX_CHARACTERS} characters, got "
                f"{num_characters}"
            )
        yield Row(path, line, file, texts, labels)


def _num_known(names: Mapping[str, Sequence[str]], knows: Knows) -> dict[str, int]:
    """How many names of each list are those of sounds, of some of them or, if none is, of all."""
    steps = {key: max(len(listed) // _NUM_ASKED, 1) for key, listed in names.items()}
    counts = {key: sum(map(knows, listed[:: steps[key]])) for key, listed in names.items()}
    if any(counts.values()) or not any(step > 1 for step in steps.values()):
        return counts
    return {key: sum(map(knows, listed)) for key, listed in names.items()}


def _file(value: Any) -> str:
    """The name of a sound out of a cell: words, a number, or Hugging Face's {"path": ...}."""
    value = value.get("path") if isinstance(value, dict) else value
    return str(value).strip() if type(value) in (str, int) else ""


def _is_number_but_0(value: Any) -> bool:
    try:
        return float(value) != 0.0
    except (TypeError, ValueError):
        return False  # None, or a label of that name


def _words(path: str, text: str, knows: Knows) -> delimited.Cells:
    """Lines of a name and what is said; one that holds the name of another sound is two."""
    cells = delimited.parse(text, " ")
    for line, (_, words) in cells.rows:
        for word in words.split():
            # Two lines run together, with or without a space; a name of figures is a number, too.
            ends = (word[place:] for place in range(len(word) - 2))
            names = (end for end in ends if _HAS_FIGURE(end) and not end.isdigit())
            if _HAS_FIGURE(word) and any(map(knows, names)):
                raise ValueError(f"{path}, line {line}, names another sound in its text: {word!r}")
    return cells


def _named(
    path: str, cells: delimited.Cells, names: Sequence[str]
) -> list[tuple[int, dict[str, str]]]:
    kept = [name for name in names if name not in ("", "_")]
    for name in kept:
        if kept.count(name) > 1:
            raise ValueError(f"{path} must have different columns, got two of the name {name!r}")
    return [(line, dict(zip(names, row))) for line, row in cells.rows]


def _refuse_wrong(path: str, cells: delimited.Cells, knows: Knows) -> None:
    """Raises ValueError for the first line that is wrong."""
    for line, row in cells.rows:
        # A text may have several lines, but not lines that begin as rows do.
        inside = [part for cell in row if "\n" in cell for part in cell.split("\n")[1:]]
        for part in inside:
            if cells.mark in part and knows(part.split(cells.mark)[0]):
                raise ValueError(
                    f"{path}, line {line}, opens a quote that takes in other rows, such as "
                    f"{part[:40]!r}: a quote is missing or too many"
                )
    if cells.problem:
        line, why = cells.problem
        raise ValueError(f"{path}, line {line}, {why}")


def _cells(
    path: str, text: str, options: Options, knows: Knows
) -> tuple[delimited.Cells, Sequence[str]]:
    """The table as the right mark divides it, and the names of its columns."""
    marks = [mark for mark in delimited.FOUND if mark in text]
    if options.delimiter:
        marks = [delimited.MARKS[options.delimiter]]
    first_line = next((line for line in text.split("\n") if line.strip()), "")
    headers = {mark: _header(first_line, mark, knows) for mark in marks if mark != " "}
    headed = [mark for mark, names in headers.items() if names]
    found = {mark: _under(text, mark, headers[mark]) for mark in headed}
    if len(found) > 1:
        found = {mark: cells for mark, cells in found.items() if not cells.problem} or found
    if len(found) == 1:
        ((mark, cells),) = found.items()
        return cells, _renamed(path, headers[mark], options.columns)
    if not found:
        cells = _without_header(path, text, marks, options, knows)
        return cells, options.columns or _layout(path, cells)
    raise ValueError(_tie(path, list(found)))


def _header(line: str, mark: str, knows: Knows) -> list[str]:
    """Names of columns, if a table's first line has them."""
    rows = delimited.parse(line, mark).rows
    names = [name.strip().strip('"') for name in rows[0][1]] if rows else []
    # A sound may be called "audio".
    is_named = columns.files([name for name in names if name][:1]) and not any(map(knows, names))
    return names if len(names) > 1 and (columns.is_header(names) or is_named) else []


def _under(text: str, mark: str, names: Sequence[str]) -> delimited.Cells:
    """The rows under a header."""
    # Its quotes are those of the texts by definition.
    is_common_voice = {"client_id", "path", "sentence"} <= set(names)
    cells = (delimited.literal if is_common_voice else delimited.parse)(text, mark)
    cells = delimited.of_width(cells, len(names))
    return dataclasses.replace(cells, rows=cells.rows[1:])


def _renamed(path: str, header: Sequence[str], given: Sequence[str]) -> Sequence[str]:
    if given and len(given) != len(header):
        raise ValueError(
            f"--metadata_columns must name the {len(header)} columns of {path}, got {len(given)}: "
            f"its first line has {','.join(header)}"
        )
    return given or header


def _without_header(
    path: str, text: str, marks: Sequence[str], options: Options, knows: Knows
) -> delimited.Cells:
    """The table by the mark under which its rows name the most sounds."""
    width = len(options.columns)
    parsed = {mark: delimited.of_width(delimited.parse(text, mark), width) for mark in marks}
    parsed = {
        mark: cells for mark, cells in parsed.items() if width or delimited.width_of(cells) != 1
    }
    place = 0
    if width:
        name = next(iter(columns.files(options.columns)), options.columns[0])
        place = options.columns.index(name)
    firsts = {
        mark: [row[place].strip() for _, row in cells.rows if place < len(row)]
        for mark, cells in parsed.items()
    }
    scores = _num_known(firsts, knows)
    best = max(scores.values(), default=0)
    # Any text can be divided by spaces: only sounds of such names tell that it is to be.
    tops = [mark for mark, score in scores.items() if score == best and (score or mark != " ")]
    whole = [mark for mark in tops if not parsed[mark].problem]
    if whole == ["\t", " "]:
        whole = ["\t"]  # What a tab divides, any white space does.
    if not tops:
        raise ValueError(
            f"{path} must have a name and a text or labels in each line, with one of "
            f"{', '.join(delimited.MARKS)} between them, the last if --metadata_delimiter says it, got {text.strip()[:40]!r}"
        )
    if len(whole) > 1:
        raise ValueError(_tie(path, whole))
    cells = parsed[whole[0] if whole else max(tops, key=text.count)]
    _refuse_wrong(path, cells, knows)
    return _words(path, text, knows) if cells.mark == " " and not place else cells


def _tie(path: str, marks: Sequence[str]) -> str:
    names = [name for name, mark in delimited.MARKS.items() if mark in marks]
    return f"{path} can be divided by {' and by '.join(names)}: say --metadata_delimiter"


def _layout(path: str, cells: delimited.Cells) -> Sequence[str]:
    """Names of columns where the first line has none."""
    width = delimited.width_of(cells)
    if width == 2:
        return ("file", "text")
    if width == 3 and cells.mark == "|" and not _has_labels(cells):
        return ("file", "text", "normalized_text")  # LJSpeech
    line = cells.rows[0][1] if cells.rows else []
    raise ValueError(
        f"{path} has {width} columns and its first line no names for them, got {line}: give "
        "--metadata_columns, such as file,text,speaker, with _ for what is to be left out"
    )


def _has_labels(cells: delimited.Cells) -> bool:
    """Whether of two columns that should be the same words one has single, other words alone."""
    pairs = [[cell.casefold().split() for cell in row[1:]] for _, row in cells.rows if row[2]]
    single = [all(len(words) < 2 for words in column) for column in zip(*pairs)]
    shared = any(set(raw) & set(normalized) for raw, normalized in pairs)
    return len(pairs) > 1 and single[0] != single[1] and not shared
