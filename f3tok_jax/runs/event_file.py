# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""TensorBoard's event file, written by a thread of its own: what befalls it spares the run."""

from collections.abc import Callable
import importlib
import queue
import threading
import time
from typing import Any

_MAX_WAITING = 1000  # events; those that find no room are left out
_FLUSH_SECONDS = 120.0
_CLOSE_SECONDS = 10.0  # for what is waiting when a run ends


class EventFile:
    """An event file of TensorBoard: what is added is written later, or left out and said once.

    tensorboardX has such a thread too, whose queue needs /dev/shm and blocks for ever once the disk
    is full.
    """

    def __init__(self, workdir: str, *, resume_step: int, say: Callable[[str], None]):
        """Starts the thread.

        Args:
            workdir: folder of the file, local or a bucket.
            resume_step: the restored step, 0 for a fresh run; later points of before are hidden.
            say: where it is said, once, that events are lost.

        Raises:
            ImportError: where tensorboardX is not installed.
        """
        self._files = importlib.import_module("tensorboardX.event_file_writer")
        self._events = importlib.import_module("tensorboardX.proto.event_pb2")
        self._summary = importlib.import_module("tensorboardX.summary")
        self._prefix, self._resume_step, self._say = f"{workdir}/events", resume_step, say
        self._waiting = queue.Queue(_MAX_WAITING)
        self._is_lost = False
        self._thread = threading.Thread(target=self._write_all, daemon=True, name="tensorboard")
        self._thread.start()

    def add(self, kind: str, tag: str, *arguments: Any, step: int, **options: Any) -> None:
        """Adds what tensorboardX.summary has under the name `kind`, of `arguments`, at a step."""
        make = getattr(self._summary, kind)
        self._put(lambda: make(tag, *arguments, **options), step, time.time())

    def flush(self) -> None:
        """Makes what was added visible, soon."""
        self._put(None, 0, 0.0)

    def close(self) -> None:
        """Waits for what was added, not for ever."""
        self._put(None, -1, 0.0)
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            self._lose("their disk stands still")

    def _put(self, *item: Any) -> None:
        if self._is_lost:
            return
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            self._lose(f"{_MAX_WAITING} wait for their disk")

    def _lose(self, reason: str) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._say(f"TensorBoard events are not written any more: {reason}; the run goes on")

    def _write_all(self) -> None:
        try:
            self._write(self._files.EventsWriter(self._prefix))
        except Exception as error:  # Optional: whatever it is, the run goes on.
            self._lose(str(error) or type(error).__name__)

    def _write(self, file: Any) -> None:
        if self._resume_step:
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            file.write_event(
                self._events.Event(step=self._resume_step + 1, file_version="brain.Event:2")
            )
            file.write_event(self._events.Event(step=self._resume_step + 1, session_log=start))
        flushed = time.monotonic()
        while True:
            make, step, when = self._waiting.get()
            if make:
                event = self._events.Event(step=step, wall_time=when, summary=make())
                file.write_event(event)
            if step < 0:
                return file.close()
            if not make or time.monotonic() - flushed > _FLUSH_SECONDS:
                file.flush()
                flushed = time.monotonic()
