# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What libmpg123 reports on the console while it decodes, heard instead of printed.

Its lines are its only word about a frame that it could not decode, and name no file.
"""

from collections.abc import Iterator
import contextlib
import os
import re
import tempfile
import threading

_STDERR = 2
_LINES = re.compile(r"\[src/libmpg123/|Note: |Warning: Xing|\s*$")
_DAMAGE = re.compile(
    r"error: (?P<error>.*)|missing \d+ bytes in bit reservoir for frame (?P<frame>\d+)"
)
# Sound that was cut out of a longer stream lacks what its first frames refer back to.
_FIRST_FRAMES = 10
_lock = threading.Lock()  # the console belongs to the process


class Reports:
    """Hears libmpg123; lines of others that fall between its own are passed on."""

    def __init__(self):
        """Prepares a place for the lines; without a console there is nothing to hear."""
        self.damage = None  # the first report of it
        self._file = tempfile.TemporaryFile()

    def close(self) -> None:
        """Gives the place up."""
        self._file.close()

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """While it lasts, what the process writes to its console is heard."""
        with _lock:
            try:
                console = os.dup(_STDERR)
            except OSError:  # closed
                yield
                return
            try:
                os.dup2(self._file.fileno(), _STDERR)
                try:
                    yield
                finally:
                    os.dup2(console, _STDERR)
                if self._file.seek(0, os.SEEK_CUR):
                    self._sort(console)
            finally:
                os.close(console)

    def _sort(self, console: int) -> None:
        self._file.seek(0)
        lines = self._file.read().decode("utf-8", "replace").splitlines(keepends=True)
        self._file.seek(0)
        self._file.truncate()
        for line in lines:
            if not _LINES.match(line):
                os.write(console, line.encode())
                continue
            found = _DAMAGE.search(line)
            if found and not (found["frame"] and int(found["frame"]) < _FIRST_FRAMES):
                self.damage = self.damage or (found["error"] or found[0]).strip()
