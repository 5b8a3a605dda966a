# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What these programs write of what happened, DIR/<run>/log.jsonl, a line each, and tell of it."""

import argparse
from collections.abc import Callable, Iterator, Mapping
import contextlib
import json
import pathlib
from typing import Any

from f3tok_jax.runs import appended_file

_NAME = "log.jsonl"


class Diary:
    """What happened so far in one folder; a program that was killed goes on with it."""

    def __init__(self, folder: pathlib.Path):
        self._path = folder / _NAME
        self._file = appended_file.AppendedFile(self._path, end=b"\n")

    def entries(self) -> list[dict[str, Any]]:
        """All that is whole; a kill of the program itself cuts a line short."""
        entries = []
        for line in self._path.read_text().splitlines() if self._path.exists() else ():
            with contextlib.suppress(ValueError):
                entries.append(json.loads(line))
        return entries

    def add(self, entry: Mapping[str, Any]) -> None:
        """Writes one entry; the folder must be there."""
        self._file.append(f"{json.dumps(entry)}\n".encode())


def read_all(folder: pathlib.Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Name and entries of each run below a folder."""
    for path in sorted(folder.glob(f"*/{_NAME}")):
        yield path.parent.name, Diary(path.parent).entries()


def make_parser(doc: str) -> argparse.ArgumentParser:
    """The flags that all these programs have; `doc` is the help of one."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="of all that is kept")
    text = "only tell what happened so far"
    parser.add_argument("--summary", action="store_true", help=text)
    return parser


def tell(summary: Callable[[pathlib.Path], tuple[str, bool]], folder: pathlib.Path) -> int:
    """Prints what `summary` says of a folder; the exit code, 1 where something was lost."""
    text, is_good = summary(folder)
    print(text)
    return 0 if is_good else 1
