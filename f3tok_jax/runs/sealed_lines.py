# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Lines of JSON of which each says whether it is whole: metrics.jsonl, ledger.jsonl, logs/*.jsonl.

Behind all else an object has "sum", the first eight digits of `sealed.digest` of the rest. Lines of
earlier versions have none, and are taken as they are.
"""

from collections.abc import Iterator, Mapping
import json
from typing import Any, BinaryIO, NamedTuple

from data_pipelines.records import sealed

SUM = "sum"
_MAX_BYTES = 2**22  # of a line; no longer one is made


class Line(NamedTuple):
    """A line as it stands in the file, with its end, and what it says; None where it is damaged."""

    data: bytes
    content: dict[str, Any] | None


def make(content: Mapping[str, Any]) -> bytes:
    """The line that says `content`.

    Raises:
        ValueError: if a number is NaN or infinite.
    """
    text = json.dumps({**content, SUM: _sum(content)}, allow_nan=False)
    return f"{text}\n".encode()


def read(file: BinaryIO) -> Iterator[Line]:
    """The lines of a file; of one that is too long, the beginning."""
    while data := file.readline(_MAX_BYTES):
        is_long = len(data) == _MAX_BYTES
        end = data
        while end and end[-1:] != b"\n":
            end = file.readline(_MAX_BYTES)
        yield Line(data.rstrip(b"\n") + b"\n", None if is_long else _content(data))


def _content(data: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(data.decode())
        given = content.pop(SUM, None)
        return content if given in (None, _sum(content)) else None
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None  # No object of JSON.


def _sum(content: Mapping[str, Any]) -> str:
    return sealed.digest(content)[:8]
