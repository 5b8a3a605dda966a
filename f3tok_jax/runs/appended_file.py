# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Files that grow by whole pieces, on disks and buckets."""

from collections.abc import Iterable
import os
import tempfile

from etils import epath

from data_pipelines.records import atomic


class AppendedFile:
    """A file to which pieces are appended: one that finds no room leaves nothing of itself.

    It is opened anew for each piece: a folder that has gone, or that is there again, is noticed.
    Buckets cannot append: pieces go to a temporary file, which `publish` copies whole.
    """

    def __init__(self, path: str | os.PathLike, *, end: bytes = b""):
        """Touches nothing yet.

        Args:
            path: of the file, local or in a bucket.
            end: of every piece; it is put behind what was cut short before, by a kill.
        """
        self._path, self._end = epath.Path(path), end
        self._is_remote = "://" in str(path)
        self._temporary = None  # of a bucket's file
        self._is_checked = False  # the end of what was there before
        self._torn_at: int | None = None  # where half a piece begins that could not be taken away
        self._num_published = 0  # bytes

    def replace(self, pieces: Iterable[bytes]) -> None:
        """Puts pieces in the place of what is there, or leaves that; makes the folder."""
        if self._is_remote:
            made = tempfile.NamedTemporaryFile(suffix=self._path.name)
            made.writelines(pieces)
            made.flush()
            self._temporary = made
        else:
            with atomic.replacing(self._path) as partial, open(partial, "wb") as file:
                file.writelines(pieces)
        self._is_checked = True

    def append(self, piece: bytes) -> None:
        """Appends all of a piece or, raising OSError, nothing."""
        with open(self._local(), "a+b", buffering=0) as file:
            if self._torn_at is not None:
                file.truncate(self._torn_at)
            start = self._torn_at = file.seek(0, os.SEEK_END)
            if not self._is_checked and start:
                file.seek(-1, os.SEEK_END)
                piece = piece if file.read(1) == self._end else self._end + piece
            left = memoryview(piece)
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError:
                file.truncate(start)
                self._torn_at = None
                raise
            self._is_checked, self._torn_at = True, None

    def publish(self) -> None:
        """Makes a bucket's file visible where something was appended since."""
        if self._temporary and os.path.getsize(self._temporary.name) != self._num_published:
            content = self._local().read_bytes()
            self._path.write_bytes(content)
            self._num_published = len(content)

    def _local(self) -> epath.Path:
        """The local file, which begins with what is in the bucket."""
        if not self._is_remote:
            return self._path
        if not self._temporary:
            self.replace([self._path.read_bytes()] if self._path.exists() else [])
        return epath.Path(self._temporary.name)
