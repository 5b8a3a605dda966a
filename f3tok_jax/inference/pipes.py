# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Pipes in the place of files: what needs to seek works on a copy on the disk."""

from collections.abc import Iterator
import contextlib
import os
import shutil
import stat
import sys
import tempfile
from typing import BinaryIO

from data_pipelines.records import atomic

PIPE = "-"  # the name of standard input and of standard output
_STDOUT, _STDERR = 1, 2


def check_output() -> None:
    """Raises ValueError where standard output is a screen, which bytes would garble."""
    if sys.stdout.isatty():
        raise ValueError(
            "standard output must be a pipe or a file, got a terminal: give the name of a file, or "
            f"'> FILE' behind {PIPE}"
        )


@contextlib.contextmanager
def readable(source: str) -> Iterator[str]:
    """The path of a file with what `source` gives: itself, or a copy of a pipe for a while."""
    if source != PIPE and not stat.S_ISFIFO(os.stat(source).st_mode):
        yield source
        return
    if source == PIPE and sys.stdin is None:
        raise ValueError("standard input must be open, got a closed one: give the name of a file")
    with tempfile.NamedTemporaryFile(prefix="f3tok_") as copy, atomic.passing(copy.name):
        stream = contextlib.nullcontext(sys.stdin.buffer) if source == PIPE else open(source, "rb")
        with stream as file:
            _copy(file, copy, copy.name)
        yield copy.name


@contextlib.contextmanager
def writable(target: str, ending: str) -> Iterator[str]:
    """The path to write to: `target`, or for a pipe a file that goes there when it is whole.

    Until then what else is printed goes to standard error, whoever prints it.
    """
    if target != PIPE:
        yield target
        return
    sys.stdout.flush()
    kept = os.dup(_STDOUT)
    try:
        os.dup2(_STDERR, _STDOUT)
        with atomic.temporary_folder() as folder:
            place = os.path.join(folder, f"standard_output{ending}")
            yield place
            with open(place, "rb") as file, open(kept, "wb", closefd=False) as out:
                _copy(file, out, "standard output")
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os.dup2(kept, _STDOUT)
        os.close(kept)


def _copy(source: BinaryIO, to: BinaryIO, name: str) -> None:
    """Copies all; a full disk does not say of itself where."""
    try:
        shutil.copyfileobj(source, to, 2**20)
        to.flush()
    except OSError as error:
        error.filename = error.filename or name
        raise
