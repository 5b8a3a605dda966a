# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Files that strangers wrote, and what is read of them: how one kind of both is written down."""

from collections.abc import Callable, Mapping
import dataclasses
import pathlib
import random
from typing import Any

from tests.fuzz import mutations

Change = Callable[[bytes, random.Random], bytes]


@dataclasses.dataclass(frozen=True)
class Target:
    """Files that are changed, and who reads them.

    Attributes:
        write: writes the case of a generator over the files of the one before.
        read: does what a program does with them; whatever it raises is judged.
        kept: the files of a case.
    """

    write: Callable[[random.Random], None]
    read: Callable[[], Any]
    kept: tuple[pathlib.Path, ...]


def of_files(folder: pathlib.Path, changes: Mapping[str, Change], read: Callable) -> Target:
    """A target that changes one of a folder's files, sometimes two, and leaves the others whole.

    Args:
        folder: of whole files.
        changes: name of a file in it -> how it is changed.
        read: as in Target.
    """
    whole = {folder / name: (folder / name).read_bytes() for name in changes}
    now = dict(whole)

    def write(rng: random.Random) -> None:
        wanted = dict(whole)
        for name in rng.sample(sorted(changes), k=min(len(changes), rng.choice((1, 1, 1, 2)))):
            wanted[folder / name] = changes[name](whole[folder / name], rng)
        for path, content in wanted.items():
            if content != now[path] or not path.is_file():
                path.write_bytes(content)
        now.update(wanted)

    return Target(write, read, tuple(whole))


def with_others(others: list[bytes]) -> Change:
    """Bytes that are changed at random, sometimes by parts of others."""
    return lambda data, rng: mutations.of_bytes(data, rng, others)


def silent(text: str) -> None:
    """Where what is said goes."""
