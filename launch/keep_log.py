# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Passes on what a program prints, and keeps it in a folder or a bucket, so that it outlives its pod.

    PROGRAM 2>&1 | python launch/keep_log.py gs://BUCKET/RUN/logs/POD.log

Written anew every minute and at the end. What cannot be written is said once, and stops nothing.
"""

import sys
import threading

import fsspec

_SECONDS = 60.0
_MOST_BYTES = 2**25  # of the end of a log


class Keeper:
    """A log that grows, and its copy."""

    def __init__(self, place: str):
        self._place, self._log = place, bytearray()
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._said = False
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def add(self, data: bytes) -> None:
        """More of the log; of a very long one the beginning goes."""
        with self._lock:
            self._log += data
            del self._log[:-_MOST_BYTES]

    def close(self, seconds: float = 30.0) -> None:
        """Writes what is not written yet, within some seconds: a pod is soon gone."""
        self._ended.set()
        self._thread.join(seconds)

    def _keep(self) -> None:
        while not self._ended.wait(_SECONDS):
            self._write()
        self._write()

    def _write(self) -> None:
        with self._lock:
            data = bytes(self._log)
        try:
            with fsspec.open(self._place, "wb", auto_mkdir=True) as file:
                file.write(data)
        except Exception as error:  # Whatever a bucket says: the program goes on.
            if not self._said:
                self._said = True
                print(f"the log is not kept in {self._place}: {error}", file=sys.stderr, flush=True)


def main(place: str) -> None:
    """Reads until the program has closed its output."""
    keeper = Keeper(place)
    while data := sys.stdin.buffer.read1(2**16):
        keeper.add(data)
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    keeper.close()


if __name__ == "__main__":
    main(sys.argv[1])
