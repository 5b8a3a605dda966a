# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Bytes of a file: by place for a walk, and as a file of pieces for a decoder."""

import bisect
from collections.abc import Iterator
import io
import itertools
import os
from typing import BinaryIO

from data_pipelines.containers import streams

_WINDOW = 2**17  # bytes that are looked at together


class Content:
    """Random access to a seekable stream; `size` in bytes."""

    def __init__(self, file: BinaryIO):
        """Measures the stream; its position is not kept."""
        self._file = file
        self.size = file.seek(0, os.SEEK_END)

    def at(self, offset: int, count: int) -> bytes:
        """The bytes at a place: fewer where the file ends, none before its start."""
        if offset < 0 or count <= 0:
            return b""
        self._file.seek(offset)
        return self._file.read(count)

    def windows(self, start: int, stop: int, overlap: int = 0) -> Iterator[tuple[int, bytes]]:
        """(place, bytes) of a range in order; each window also shows `overlap` of the next."""
        for offset in range(start, stop, _WINDOW):
            yield offset, self.at(offset, min(_WINDOW + overlap, stop - offset))

    def find(self, pattern: bytes, start: int, stop: int) -> Iterator[int]:
        """Places of a pattern in a range, in order."""
        for offset, window in self.windows(start, stop, len(pattern) - 1):
            place = window.find(pattern)
            while place >= 0:
                yield offset + place
                place = window.find(pattern, place + 1)

    def is_zero(self, start: int, stop: int) -> bool:
        """Whether a range holds nothing but zero bytes."""
        return not any(window.strip(b"\0") for _, window in self.windows(start, stop))


class Window(io.RawIOBase):
    """Bytes that lie elsewhere as a file to read: a subclass knows where, and has `readinto`."""

    def __init__(self, num_bytes: int):
        """Of so many bytes; its position is the first."""
        super().__init__()
        self._num_bytes, self._position = num_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._num_bytes}
        self._position = max(base[whence] + offset, 0)
        return self._position


class PiecesFile(Window):
    """Pieces of a file and bytes in memory, read as one file.

    `error` is what the operating system answered to a read, where it would not give the bytes: a
    decoder is told of an end.
    """

    def __init__(self, file: BinaryIO, pieces: streams.Pieces):
        """Reads from `file`, which must not be closed before."""
        self._file, self._pieces = file, pieces
        self._ends = list(itertools.accumulate(len(piece) for piece in pieces))
        super().__init__(self._ends[-1])
        self.error = None

    def readinto(self, buffer) -> int:
        view, num_read = memoryview(buffer).cast("B"), 0
        while num_read < len(view) and self._position < self._ends[-1]:
            index = bisect.bisect_right(self._ends, self._position)
            piece = self._pieces[index]
            offset = self._position - self._ends[index] + len(piece)
            part = piece[offset : offset + len(view) - num_read]
            if isinstance(part, range):
                count = self._read_file(part.start, view[num_read : num_read + len(part)])
            else:
                count = len(part)
                view[num_read : num_read + count] = part
            if not count:
                break
            self._position += count
            num_read += count
        return num_read

    def _read_file(self, offset: int, view: memoryview) -> int:
        # An exception would be lost in the decoder, which is no Python.
        try:
            self._file.seek(offset)
            return self._file.readinto(view)
        except OSError as error:
            self.error = error
            return 0
