# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Debian packages, fetched once by apt's own client and kept unpacked; nothing is installed.

    CACHE/NAME/package.json   version, number and bytes of files, under a seal
    CACHE/NAME/files/...      what the package holds

Such a folder is whole or absent. It is used as long as it is there, without network and without
apt; one that was changed is fetched again. apt compares what it fetches with its signed sums.
"""

from collections.abc import Callable, Sequence
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess

from absl import logging

from data_pipelines.records import atomic
from data_pipelines.records import lock
from data_pipelines.records import sealed

_FETCH, _UNPACK = "apt-get", "dpkg-deb"
_CONTENT, _FILES = "package.json", "files"
_KINDS = {"package": str, "version": str, "num_files": int, "num_bytes": int}


@dataclasses.dataclass(frozen=True)
class Unpacked:
    """A package in the cache: its name, its version, and the folder of its files."""

    name: str
    version: str
    root: str


def unpacked(
    names: Sequence[str], cache: pathlib.Path, say: Callable[[str], None]
) -> dict[str, Unpacked]:
    """Returns the files of packages, name -> package; those that are not there are fetched first.

    Args:
        names: of packages.
        cache: folder in which they are kept.
        say: told what is fetched.

    Raises:
        ValueError: in apt's own words, where one is unknown, cannot be fetched or is damaged, or
            where there is no apt.
        OSError: of a full disk.
    """
    found = {name: _kept(cache / name) for name in names}
    if all(found.values()):
        return found
    with _alone(cache):
        for name in names:
            found[name] = _kept(cache / name)  # Another process may just have fetched it.
            if not found[name]:
                say(f"fetching the package {name} into {cache}")
                _make(name, cache / name)
                found[name] = _kept(cache / name)
    return found


def _alone(cache: pathlib.Path):
    """The lock of a cache."""
    path = cache / "lock"
    try:
        return lock.take(path)
    except BlockingIOError:
        logging.warning("waiting for another process that fetches into %s", cache)
        return lock.take(path, wait=True)


def _kept(folder: pathlib.Path) -> Unpacked | None:
    """A package of the cache; None where it is absent or not as it was unpacked."""
    try:
        content = sealed.read((folder / _CONTENT).read_bytes(), str(folder / _CONTENT), _KINDS)
    except (OSError, ValueError):
        return None
    root = folder / _FILES
    if (content["num_files"], content["num_bytes"]) != _size(root):
        return None
    return Unpacked(content["package"], content["version"], str(root))


def _size(root: pathlib.Path) -> tuple[int, int]:
    """How many files lie in a folder, and their bytes."""
    paths = [os.path.join(place, name) for place, _, names in os.walk(root) for name in names]
    sizes = [os.stat(path).st_size for path in paths if not os.path.islink(path)]
    return len(sizes), sum(sizes)


def _make(name: str, folder: pathlib.Path) -> None:
    """Fetches and unpacks a package, in place of one that is damaged."""
    _check_tools(folder.parent)
    if folder.exists():
        if not (folder / _CONTENT).is_file():
            raise ValueError(
                f"{folder} must be a package that was unpacked there, got something else: choose "
                "another --data_dir"
            )
        shutil.rmtree(folder)
    with atomic.making(folder) as partial:
        _run(name, [_FETCH, "-q", "download", name], partial)
        fetched = sorted(partial.glob("*.deb"))
        if len(fetched) != 1:
            raise ValueError(
                f"apt-get download {name} must leave one package, got {len(fetched)}: try it by hand"
            )
        version = _run(name, [_UNPACK, "--field", str(fetched[0]), "Version"], partial).strip()
        root = partial / _FILES
        root.mkdir()
        _run(name, [_UNPACK, "--extract", str(fetched[0]), str(root)], partial)
        fetched[0].unlink()
        num_files, num_bytes = _size(root)
        content = dict(package=name, version=version, num_files=num_files, num_bytes=num_bytes)
        (partial / _CONTENT).write_text(json.dumps(sealed.seal(content)), encoding="utf-8")


def _check_tools(cache: pathlib.Path) -> None:
    missing = [tool for tool in (_FETCH, _UNPACK) if not shutil.which(tool)]
    if missing:
        raise ValueError(
            f"--source=debian must find {_FETCH} and {_UNPACK}, as Debian and Ubuntu have them, got "
            f"no {' and no '.join(missing)}: build the shards on such a machine and copy them, or "
            f"copy its packages to {cache}"
        )


def _run(name: str, command: Sequence[str], folder: pathlib.Path) -> str:
    """Runs a tool in a folder and returns what it prints; ValueError with what it complains of."""
    environment = os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    # It says in words, and not by its exit code, that a disk is full.
    with atomic.disk_errors(ValueError):
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
        if done.returncode == 0:
            return done.stdout
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        words = "; ".join(line for line in lines if not line.startswith("W:")) or (
            f"exit code {done.returncode}"
        )
        raise ValueError(
            f"the package {name} must come whole from apt, got: {words}: {_remedy(words)}"
        )


def _remedy(words: str) -> str:
    if "Unable to locate" in words or "no installation candidate" in words:
        return "refresh what apt knows by sudo apt-get update, or name the other packages"
    if words.startswith("dpkg-deb"):
        return "what was fetched is damaged and was removed; run the same command again"
    return "see to the network or to apt's sources, and run the same command again"
