# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or absent, whatever ends the process that writes them, on disks and buckets.

A path is a pathlib.Path or, for buckets, an epath.Path, which has the same methods.
"""

from collections.abc import Iterator
import contextlib
import os
import pathlib


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a path to write to, whose file takes the name of `path` when the context ends well.

    Makes the folder of `path`. An exception leaves what stood at `path` before, and nothing else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # One name for all attempts: the next one clears away what a killed one left.
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes `text` in UTF-8."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def sync(path: pathlib.Path) -> None:
    """Waits until the bytes of a local file are on the disk, before a name promises them."""
    if "://" in str(path):
        return  # A bucket keeps an object only once it has all of it.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
