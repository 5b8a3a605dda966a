# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""JSON objects, one a line or all in an array, each with the line on which it begins."""

from collections.abc import Iterator
import json
import re
from typing import Any

from data_pipelines.records import json_object

_DECODER = json.JSONDecoder(object_pairs_hook=json_object.once)
_SPACE = re.compile(r"\s*")


def parse(path: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line, object) of a text.

    Args:
        path: of its file, for messages.
        text: an array of objects, or lines with an object each; empty lines are passed over.

    Raises:
        ValueError: naming the line, where it is neither, or an object has a name twice.
    """
    return (_array if text.lstrip().startswith("[") else _lines)(path, text)


def _lines(path: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, row in enumerate(text.split("\n"), start=1):
        if row.strip():
            value, end = _object(path, line, row, len(row) - len(row.lstrip()))
            if row[end:].strip():
                raise ValueError(
                    f"{path}, line {line}, must be one JSON object, got more behind it"
                )
            yield line, value


def _array(path: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    line, counted, place, mark = 1, 0, text.index("[") + 1, ","
    while mark == ",":
        place = _SPACE.match(text, place).end()
        line, counted = line + text.count("\n", counted, place), place
        value, place = _object(path, line, text, place)
        yield line, value
        line, counted = line + text.count("\n", counted, place), place
        place = _SPACE.match(text, place).end()
        mark, place = text[place : place + 1], place + 1
    if mark != "]" or text[place:].strip():
        got = "more behind it" if mark == "]" else mark or "the end of the file"
        line += 0 if mark else text.count("\n", counted)
        raise ValueError(
            f"{path}, line {line}, must end an object with , or the array with ], got {got}"
        )


def _object(path: str, line: int, text: str, place: int) -> tuple[dict[str, Any], int]:
    try:
        value, end = _DECODER.raw_decode(text, place)
    except (ValueError, RecursionError) as error:
        got = getattr(error, "msg", error)
        line += text.count("\n", place, getattr(error, "pos", place))
        raise ValueError(f"{path}, line {line}, must be one JSON object, got: {got}") from None
    if not isinstance(value, dict):
        raise ValueError(
            f"{path}, line {line}, must be one JSON object, got {type(value).__name__}"
        )
    return value, end
