# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Shard sets on buckets: copied once to this host, as ArrayRecord reads local files only.

In the folder of copies are `shards/`, each under its SHA-256, so that sets with equal shards share
them, and `sets/`, a manifest and links into `shards/`.
"""

import functools
import hashlib
import os
import pathlib

from data_pipelines.reading import remote
from data_pipelines.records import atomic
from data_pipelines.records import manifest


def is_set(name: str | os.PathLike) -> bool:
    """Whether a local folder or a URL holds a shard set."""
    path = f"{name}/{manifest.FILE_NAME}"
    if not remote.is_remote(name):
        return os.path.isfile(path)
    files, place = remote.opened(path)
    return remote.ask(path, files.exists, place)


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
    return _copy_of(str(name).rstrip("/")) if remote.is_remote(name) else pathlib.Path(name)


@functools.cache  # Asked for several times by one process: what it opened stays what it reads.
def _copy_of(url: str) -> pathlib.Path:
    data, content = _read_manifest(url)
    folder = remote.cache() / "sets" / hashlib.sha256(data).hexdigest()[:32]
    if _is_whole(folder):
        return folder
    with remote.alone():
        if not _is_whole(folder):  # Another process may just have made it.
            _copy_shards(url, content)
            folder.mkdir(parents=True, exist_ok=True)
            for shard in content.shards:
                link = folder / shard.name
                link.unlink(missing_ok=True)
                link.symlink_to(os.path.join("..", "..", "shards", shard.sha256))
            with atomic.replacing(folder / manifest.FILE_NAME) as partial:
                partial.write_bytes(data)
    return folder


def _read_manifest(url: str) -> tuple[bytes, manifest.Manifest]:
    files, place = remote.opened(url)
    path = f"{place}/{manifest.FILE_NAME}"
    if not remote.ask(url, files.exists, path):
        below = remote.ask(url, files.glob, f"{place}/*/{manifest.FILE_NAME}")
        raise manifest.absent(url, sorted(found.split("/")[-2] for found in below))
    manifest.check_size(f"{url}/{manifest.FILE_NAME}", remote.ask(url, files.size, path))
    data = remote.ask(url, files.cat_file, path)
    return data, manifest.parse(data, f"{url}/{manifest.FILE_NAME}")


def _is_whole(folder: pathlib.Path) -> bool:
    """Whether a copy has all of its shards, by their sizes; their bytes were compared once."""
    try:
        manifest.verify(manifest.read(folder), folder)
    except ValueError:
        return False
    return True


def _copy_shards(url: str, content: manifest.Manifest) -> None:
    """Copies the shards that are not there; each gets its name when its SHA-256 is right."""
    folder = remote.cache() / "shards"
    files = {
        shard.sha256: remote.File(shard.name, shard.num_bytes, folder / shard.sha256)
        for shard in content.shards
    }

    def check(file: remote.File, path: pathlib.Path) -> None:
        if manifest.sha256(path) != file.copy.name:
            raise ValueError(
                f"shard {url}/{file.name} differs from its SHA-256 in {manifest.FILE_NAME}: copy "
                "it there again or rebuild the set"
            )

    remote.copy(url, list(files.values()), kind="shards", check=check)
