# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or absent, whatever ends the process that writes them, on disks and buckets.

A path is a pathlib.Path or, for buckets, an epath.Path, which has the same methods.
"""

from collections.abc import Iterator
import contextlib
import errno
import os
import pathlib
import secrets
import shutil
import tempfile

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errno of a disk that has no room for a file

_partials: set[pathlib.Path] = set()  # that are being written


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a path to write to, whose file takes the name of `path` when the context ends well.

    Makes the folder of `path`. An exception leaves what stood at `path` before, and nothing else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)
    _partials.add(partial)
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        _name(error, path)
        raise
    finally:
        _partials.discard(partial)


def absent(folder: str | os.PathLike) -> pathlib.Path:
    """Returns the path of a folder that is to be made; raises ValueError where one cannot be."""
    if "://" in str(folder) or os.path.lexists(folder):
        raise ValueError(f"--output must be a local folder that is not there yet, got {folder}")
    return pathlib.Path(folder)


@contextlib.contextmanager
def making(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives an empty local folder to fill, which takes the name of `folder` when all ends well.

    Makes the folder above. After an exception there is nothing.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(folder)
    _remove(partial)  # of an attempt that was killed
    with passing(partial):
        try:
            partial.mkdir()
            yield partial
            partial.rename(folder)
        except BaseException as error:
            _remove(partial)
            _name(error, folder)
            raise


@contextlib.contextmanager
def passing(path: str | os.PathLike) -> Iterator[None]:
    """Has a file or folder of this process go with it, where it is told to end in the context."""
    path = pathlib.Path(path)
    _partials.add(path)
    try:
        yield
    finally:
        _partials.discard(path)


@contextlib.contextmanager
def temporary_folder() -> Iterator[pathlib.Path]:
    """A folder for the user alone, among the system's temporary ones, that goes with the context.

    Or with the process, where that is told to end: it is known before it is there.
    """
    path = pathlib.Path(tempfile.gettempdir(), f"f3tok_{secrets.token_hex(8)}")
    with passing(path):
        path.mkdir(mode=0o700)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def remove_partials() -> None:
    """Takes away what this process is writing: it is about to end."""
    for partial in list(_partials):
        _remove(partial)


def _name(error: BaseException, path: pathlib.Path) -> None:
    """Says of which file an error is: a full disk does not."""
    if isinstance(error, OSError) and error.errno and error.filename is None:
        error.filename = str(path)


def _remove(path: pathlib.Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)


def partial_of(path: pathlib.Path) -> pathlib.Path:
    """What `replacing` writes to: one name for all attempts, so that the next one clears it away."""
    return path.with_name(f".{path.name}.partial")


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes `text` in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Writes all of a file."""
    with replacing(path) as partial:
        partial.write_bytes(data)


@contextlib.contextmanager
def disk_errors(kind: type[Exception]) -> Iterator[None]:
    """Makes an OSError of what a library says of a disk in words, by errors of that kind."""
    try:
        yield
    except kind as error:
        for number in (*FULL, errno.EIO):
            if os.strerror(number) in str(error):
                raise OSError(number, f"{os.strerror(number)} ({error})") from error
        raise


def sync(path: pathlib.Path) -> None:
    """Waits until the bytes of a local file are on the disk, before a name promises them."""
    if "://" in str(path):
        return  # A bucket keeps an object only once it has all of it.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
