# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Folders of sounds with their checksums beside them, as `sha256sum -c SHA256SUMS` reads them."""

import errno
import hashlib
import os
import pathlib
import re

from etils import epath

from data_pipelines.records import atomic

NAME = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
_MAX_BYTES = 2**24  # of the checksums


class SummedFolder:
    """Writes files of names without line ends to a folder and, once they are there, SHA256SUMS."""

    def __init__(self, folder: str | os.PathLike):
        """Touches nothing yet; `folder` is local or in a bucket."""
        self._folder = epath.Path(folder)
        self._sums: dict[str, str] = {}

    def write(self, name: str, data: bytes) -> None:
        """Writes one file; makes the folder."""
        atomic.write_bytes(self._folder / name, data)
        self._sums[name] = hashlib.sha256(data).hexdigest()

    def close(self) -> None:
        """Writes the checksums of the files that were written, if there are any."""
        if self._sums:
            lines = (f"{digest}  {name}\n" for name, digest in self._sums.items())
            atomic.write_text(self._folder / NAME, "".join(lines))


def check(path: pathlib.Path) -> None:
    """Compares a file with the checksum beside it; folders of earlier versions have none.

    Raises:
        ValueError: where it is not what was written, or one of the two cannot be read.
    """
    sums_path = path.with_name(NAME)
    if not path.is_file() or not os.path.lexists(sums_path):
        return
    try:
        if sums_path.exists() and not sums_path.is_file():
            raise OSError(errno.EINVAL, "it is not a file")
        with open(sums_path, "rb") as file:
            text = file.read(_MAX_BYTES).decode(errors="replace")
        matches = map(_LINE.fullmatch, text.split("\n"))
        sums = {match[2]: match[1] for match in matches if match}
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"{path.name} cannot be compared with {NAME}: {error.strerror}") from None
    if sums.get(path.name) != found:
        raise ValueError(f"{path.name} is not as {NAME} has it: it was changed or damaged since")
