# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Shard sets on buckets: copied once to this host, as ArrayRecord reads local files only.

The copies lie in $F3TOK_CACHE, or ~/.cache/f3tok_jax/shards: `shards/`, each under its SHA-256, so
that sets with equal shards share them; `sets/`, a manifest and links into `shards/`. All of it may
be deleted at any time and is copied again.
"""

from collections.abc import Callable
import concurrent.futures
import errno
import functools
import hashlib
import os
import pathlib
import re
import shutil
from typing import Any

from absl import logging
import fsspec

from data_pipelines.records import atomic
from data_pipelines.records import lock
from data_pipelines.records import manifest

VARIABLE = "F3TOK_CACHE"
_STREAMS = 8  # shards copied at a time: one stream from a bucket fills no network card


def is_remote(name: str | os.PathLike) -> bool:
    """Whether a name is a URL, such as gs://BUCKET/SHARDS/train."""
    return bool(re.match(r"[a-z][a-z0-9+.-]*://", str(name)))


def is_set(name: str | os.PathLike) -> bool:
    """Whether a local folder or a URL holds a shard set."""
    path = f"{name}/{manifest.FILE_NAME}"
    if not is_remote(name):
        return os.path.isfile(path)
    files, place = _open(path)
    return _ask(path, files.exists, place)


def sets(name: str | os.PathLike) -> dict[str, str]:
    """Name -> place of the sets `train` and `test` below a folder or URL.

    "" -> itself where it is a set, or has none below it.
    """
    parts = {part: f"{str(name).rstrip('/')}/{part}" for part in ("train", "test")}
    found = {part: place for part, place in parts.items() if is_set(place)}
    return found if found and not is_set(name) else {"": str(name)}


def local(name: str | os.PathLike) -> pathlib.Path:
    """The folder in which a shard set can be read: of a URL that of its copy, made if need be.

    Raises:
        ValueError: if the URL holds no shard set, or a shard is not what its manifest says.
        OSError: if it cannot be read, or the copy does not fit on the disk.
        ImportError: naming the package that reads such URLs.
    """
    return _copy_of(str(name).rstrip("/")) if is_remote(name) else pathlib.Path(name)


@functools.cache  # Asked for several times by one process: what it opened stays what it reads.
def _copy_of(url: str) -> pathlib.Path:
    data, content = _read_manifest(url)
    cache = pathlib.Path(os.environ.get(VARIABLE) or "~/.cache/f3tok_jax/shards").expanduser()
    folder = cache / "sets" / hashlib.sha256(data).hexdigest()[:32]
    if _is_whole(folder):
        return folder
    with _alone_in(cache):
        if not _is_whole(folder):  # Another process may just have made it.
            _copy_shards(url, content, cache)
            folder.mkdir(parents=True, exist_ok=True)
            for shard in content.shards:
                link = folder / shard.name
                link.unlink(missing_ok=True)
                link.symlink_to(os.path.join("..", "..", "shards", shard.sha256))
            with atomic.replacing(folder / manifest.FILE_NAME) as partial:
                partial.write_bytes(data)
    return folder


def _read_manifest(url: str) -> tuple[bytes, manifest.Manifest]:
    files, place = _open(url)
    path = f"{place}/{manifest.FILE_NAME}"
    if not _ask(url, files.exists, path):
        below = _ask(url, files.glob, f"{place}/*/{manifest.FILE_NAME}")
        raise manifest.absent(url, sorted(found.split("/")[-2] for found in below))
    manifest.check_size(f"{url}/{manifest.FILE_NAME}", _ask(url, files.size, path))
    data = _ask(url, files.cat_file, path)
    return data, manifest.parse(data, f"{url}/{manifest.FILE_NAME}")


def _is_whole(folder: pathlib.Path) -> bool:
    """Whether a copy has all of its shards, by their sizes; their bytes were compared once."""
    try:
        manifest.verify(manifest.read(folder), folder)
    except ValueError:
        return False
    return True


def _alone_in(cache: pathlib.Path) -> Any:
    """The lock of a cache: the processes of a host copy one after another, hence nothing twice."""
    try:
        return lock.take(cache / "lock")
    except BlockingIOError:
        logging.warning("waiting for another process that copies shards into %s", cache)
        return lock.take(cache / "lock", wait=True)


def _copy_shards(url: str, content: manifest.Manifest, cache: pathlib.Path) -> None:
    """Copies the shards that are not there; each gets its name when its SHA-256 is right."""
    folder = cache / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    missing = {
        shard.sha256: shard
        for shard in content.shards
        if not _has_size(folder / shard.sha256, shard.num_bytes)
    }
    num_bytes = sum(shard.num_bytes for shard in missing.values())
    _check_space(url, folder, num_bytes)
    logging.warning(
        "copying %d of the %d shards of %s, %.1f MB, to %s ($%s names another folder)",
        *(len(missing), len(content.shards), url, num_bytes / 1e6, cache, VARIABLE),
    )
    copy = functools.partial(_copy_shard, url, folder)
    with concurrent.futures.ThreadPoolExecutor(_STREAMS) as streams:
        for _ in streams.map(copy, missing.values()):
            pass


def _has_size(path: pathlib.Path, num_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == num_bytes


def _check_space(url: str, folder: pathlib.Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise OSError(
            errno.ENOSPC,
            f"the copy of {url} needs {num_bytes / 1e6:.1f} MB, {free / 1e6:.1f} MB are free; free "
            f"some, or name another folder in ${VARIABLE}",
            str(folder),
        )


def _copy_shard(url: str, folder: pathlib.Path, shard: manifest.Shard) -> None:
    files, place = _open(url)
    with atomic.replacing(folder / shard.sha256) as partial:
        _ask(f"{url}/{shard.name}", files.get_file, f"{place}/{shard.name}", str(partial))
        if manifest.sha256(partial) != shard.sha256:
            raise ValueError(
                f"shard {url}/{shard.name} differs from its SHA-256 in {manifest.FILE_NAME}: copy "
                "it there again or rebuild the set"
            )


def _open(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    return _ask(url, fsspec.url_to_fs, url)


def _ask(url: str, function: Callable[..., Any], *arguments: Any) -> Any:
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
