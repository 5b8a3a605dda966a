# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Files behind URLs, such as gs://BUCKET/FOLDER, and the folder of their copies on this host.

That is $F3TOK_CACHE, or ~/.cache/f3tok_jax/staged. All of it may be deleted at any time and is copied
again.
"""

from collections.abc import Callable, Collection, Sequence
import concurrent.futures
import dataclasses
import errno
import fnmatch
import hashlib
import json
import os
import pathlib
import re
import shutil
from typing import Any

from absl import logging
import fsspec

from data_pipelines.records import atomic
from data_pipelines.records import lock

VARIABLE = "F3TOK_CACHE"
_STREAMS = 8  # files copied at a time: one stream from a bucket fills no network card
# What file systems say of a file that is another once it was written again.
_STATE = ("size", "generation", "etag", "ETag", "mtime", "LastModified", "created", "blob_id")


def is_remote(name: str | os.PathLike) -> bool:
    """Whether a name is a URL, such as gs://BUCKET/SHARDS/train."""
    return bool(re.match(r"[a-z][a-z0-9+.-]*://", str(name)))


def cache() -> pathlib.Path:
    """The folder of copies."""
    return pathlib.Path(os.environ.get(VARIABLE) or "~/.cache/f3tok_jax/staged").expanduser()


def alone() -> Any:
    """The lock of the cache: the processes of a host copy one after another, hence nothing twice."""
    path = cache() / "lock"
    try:
        return lock.take(path)
    except BlockingIOError:
        logging.warning("waiting for another process that copies into %s", path.parent)
        return lock.take(path, wait=True)


@dataclasses.dataclass(frozen=True)
class File:
    """A file below a URL, its bytes, and where its copy belongs."""

    name: str
    num_bytes: int
    copy: pathlib.Path

    def is_copied(self) -> bool:
        """Whether a copy is there, by its size; `copy` has compared what it can."""
        return self.copy.is_file() and self.copy.stat().st_size == self.num_bytes


def copy(
    url: str,
    files: Sequence[File],
    *,
    kind: str,
    check: Callable[[File, pathlib.Path], None] = lambda file, path: None,
) -> None:
    """Copies the files that are not there; each gets its name when it is whole.

    To be called by who is `alone`.

    Args:
        url: of the folder that they lie in.
        files: to copy.
        kind: what they are, for the message.
        check: raises ValueError where what was copied to a path is not the file.

    Raises:
        ValueError: where a copy is not what it must be.
        OSError: where one cannot be read, or they do not fit on the disk.
    """
    missing = [file for file in files if not file.is_copied()]
    if not missing:
        return
    num_bytes = sum(file.num_bytes for file in missing)
    _check_space(url, num_bytes)
    logging.warning(
        "copying %d of the %d %s of %s, %.1f MB, to %s ($%s names another folder)",
        *(len(missing), len(files), kind, url, num_bytes / 1e6, cache(), VARIABLE),
    )

    def copy_one(file: File) -> None:
        system, place = opened(url)
        with atomic.replacing(file.copy) as partial:
            path = f"{place}/{file.name}"
            ask(f"{url}/{file.name}", system.get_file, path, str(partial))
            if (size := partial.stat().st_size) != file.num_bytes:
                where = f"{url}/{file.name} must have {file.num_bytes} bytes"
                raise ValueError(f"{where}, got {size}: copy it there again")
            check(file, partial)

    with concurrent.futures.ThreadPoolExecutor(_STREAMS) as streams:
        for _ in streams.map(copy_one, missing):
            pass


def folder(url: str, patterns: Collection[str]) -> pathlib.Path:
    """The copy of a folder without a manifest, as far as its files are asked for.

    Args:
        url: of the folder, in which no file may change while a run is at it.
        patterns: of the names of files that are needed, such as "*.json".

    Raises:
        ValueError: where there is no such folder.
        OSError: where it cannot be read, or the copy does not fit on the disk.
        ImportError: naming the package that reads such URLs.
    """
    url = url.rstrip("/")
    system, place = opened(url)
    if not ask(url, system.isdir, place):
        raise ValueError(f"{url} must be a folder, got none there")
    found = [one for one in ask(url, system.ls, place) if one["type"] == "file"]
    found = {one["name"].rsplit("/", 1)[-1]: one for one in found}
    # A file that is another once it was copied is another folder.
    states = [[name, *(str(found[name].get(key)) for key in _STATE)] for name in sorted(found)]
    key = hashlib.sha256(json.dumps([url, states]).encode()).hexdigest()[:32]
    here = cache() / "folders" / key / url.rsplit("/", 1)[-1]
    files = [
        File(name, one["size"], here / name)
        for name, one in found.items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    ]
    if not all(file.is_copied() for file in files):
        with alone():
            copy(url, files, kind="files")
    return here


def _check_space(url: str, num_bytes: int) -> None:
    cache().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache()).free
    if free < num_bytes:
        raise OSError(
            errno.ENOSPC,
            f"the copy of {url} needs {num_bytes / 1e6:.1f} MB, {free / 1e6:.1f} MB are free; free "
            f"some, or name another folder in ${VARIABLE}",
            str(cache()),
        )


def opened(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    return ask(url, fsspec.url_to_fs, url)


def ask(url: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a file system, with its errors put into one sentence that names the URL."""
    try:
        return function(*arguments)
    except ImportError as error:
        sentence = f"{url} cannot be read without a package that is not installed: {error}"
        raise ImportError(sentence) from error
    except Exception as error:  # Every file system has errors of its own.
        if isinstance(error, OSError) and error.errno in atomic.FULL:
            raise
        kind = ValueError if isinstance(error, ValueError) else OSError
        raise kind(f"{url} cannot be read: {type(error).__name__}: {error}") from error
