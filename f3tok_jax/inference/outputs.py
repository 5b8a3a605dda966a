# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Which files a command may write: none that it reads, none that it wrote, none of another kind."""

from collections.abc import Callable, Iterable
import dataclasses
import os
import pathlib

from data_pipelines import command
from data_pipelines.records import atomic
from f3tok_jax.inference import npz
from f3tok_jax.inference import sound_formats


@dataclasses.dataclass(frozen=True)
class Kind:
    """What is written.

    Attributes:
        endings: of its files.
        holds: whether an existing file of one of the endings is of this kind.
    """

    endings: tuple[str, ...]
    holds: Callable[[pathlib.Path], bool]


KINDS = {
    "latents": Kind((".npz",), lambda path: npz.holds(path, ("latents", "fingerprint"))),
    "sound": Kind(tuple(sound_formats.FORMATS), sound_formats.is_of_kind),
}


class Outputs:
    """The files of one command, known by device and inode.

    A file is the same through links, hard links and relative paths, and by names that its file
    system does not tell apart.
    """

    def __init__(self, kind: str, inputs: Iterable[str], *, force: bool = False):
        """Takes what is written, of KINDS, what is read, and whether files of the kind may be replaced."""
        self._name, self._force = kind, force
        self._taken = {_identity(path): path for path in inputs}

    def check(self, path: str) -> None:
        """Raises ValueError where a file must not, or cannot, be written."""
        place, kind = pathlib.Path(path), KINDS[self._name]
        if place.suffix.lower() not in kind.endings:
            raise ValueError(f"{path} must end in {' or '.join(kind.endings)} to hold {self._name}")
        # What is written first must not be one either.
        for there in (place, atomic.partial_of(place)):
            if (found := _identity(there)) and found in self._taken:
                raise ValueError(
                    f"{path} must be none of the files that are read or were just written, got "
                    f"{self._taken[found]}: give another output"
                )
        if not command.is_writable(place):
            raise ValueError(
                f"{path} must be a file in a folder that is there or can be made, got one that "
                "cannot be written: give another output"
            )
        if not os.path.lexists(place):
            return
        if not self._force:
            raise ValueError(
                f"{path} must be a new file, got one that exists: give another output, or --force "
                "to replace it"
            )
        if not place.is_file() or not kind.holds(place):
            raise ValueError(
                f"--force must replace {self._name} alone, got {path}, which is something else: give "
                "another output"
            )

    def wrote(self, path: str) -> None:
        """Remembers a file that was written, which is not to be replaced by the next one."""
        self._taken[_identity(path)] = path


def _identity(path: str | os.PathLike) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
