# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Markdown of strings that anybody may have written: they stay text, on one line."""

from collections.abc import Iterable, Mapping, Sequence
import json
import pathlib
import re
from typing import Any

_MAX_TEXT = 200  # characters of one string
# What begins emphasis, code, links, HTML, tables, mathematics, mentions or addresses. None stands
# at the beginning of a line here, so that no heading or list begins.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|!~&$:@])")
_ADDRESS = re.compile(r"(?i)\b(www)\.")


def text(value: Any) -> str:
    """A string as what it says, wherever it stands in a line or in a table."""
    return _ADDRESS.sub(r"\1\\.", _SPECIAL.sub(r"\\\1", _on_one_line(value)))


def place(path: Any) -> str:
    """The end of a path: what stands before it is of a machine, and not for everybody."""
    return text(end_of(path))


def end_of(path: Any) -> str:
    """The same as it is, not as Markdown."""
    return "/".join(pathlib.PurePath(str(path)).parts[-2:])


def code(value: Any) -> str:
    """The same as code, for names and digits; not in a table."""
    return f"`{_on_one_line(value).replace('`', ' ').strip() or ' '}`"


def _on_one_line(value: Any) -> str:
    said = "".join(letter if letter.isprintable() else " " for letter in str(value))
    said = " ".join(said.split())
    return f"{said[:_MAX_TEXT]}…" if len(said) > _MAX_TEXT else said


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lines of a table whose cells are Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def items(lines: Iterable[str]) -> str:
    """A list of Markdown lines."""
    return "\n".join(f"- {line}" for line in lines)


def duration(seconds: float) -> str:
    """So many seconds in the unit that suits them."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def front_matter(fields: Mapping[str, Any]) -> str:
    """The YAML that begins a page; each value as JSON has it, which YAML reads, too."""
    lines = [f"{name}: {json.dumps(value)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "---"])
