# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A thread for what a run reports: whatever befalls a disk or a bucket, training goes on."""

import collections
from collections.abc import Callable
import threading
from typing import Any, NamedTuple

from data_pipelines import command

_MAX_WAITING = 10_000  # jobs; those that find no room are not done
_MAX_BYTES = 2**27  # that waiting jobs hold


class _Job(NamedTuple):
    what: str
    do: Callable[[], Any]
    num_bytes: int


class Background:
    """Does small jobs one after another on a thread of its own; what is lost of them is counted.

    Nothing here raises into whoever hands over jobs, or holds it up for longer than it allows. A
    kind of thing that begins to be lost is said once, and how much of it was lost at the end; the
    jobs after a failed one are done. Sentences are said where jobs are handed over, not by the
    thread: the console may stand still as well.
    """

    def __init__(self, say: Callable[[str], None], *, taker: str = "their disk"):
        """Has no thread before the first job.

        Args:
            say: where it is said what is lost.
            taker: who takes what jobs write, for those sentences.
        """
        self._say, self._taker = say, taker
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()  # guards all that follows
        self._waiting: collections.deque[_Job] = collections.deque()  # the first is at work
        self._num_bytes = 0  # that they hold
        self._num_added = self._num_ended = 0
        self._is_behind = False  # since a wait that was in vain
        self._is_closed = False
        self._lost: dict[str, tuple[int, str]] = {}  # by kind: how many, and why the last
        self._unsaid: list[str] = []

    def add(self, what: str, do: Callable[[], Any], *, num_bytes: int = 0) -> None:
        """Hands over a job.

        Args:
            what: is lost where it is not done, in the plural: "lines of metrics.jsonl".
            do: the job.
            num_bytes: that it holds, where they are many.
        """
        with self._changed:
            room = len(self._waiting) < _MAX_WAITING and self._num_bytes + num_bytes <= _MAX_BYTES
            if not room:
                self._lose(what, f"{self._taker} does not keep up")
            elif self._is_closed or not self._has_thread():
                self._lose(what, "there is no thread that writes them")
            else:
                self._waiting.append(_Job(what, do, num_bytes))
                self._num_bytes += num_bytes
                self._num_added += 1
                self._changed.notify_all()
        self._tell()

    def note(self, sentence: str) -> None:
        """Has something said; for jobs."""
        with self._changed:
            self._unsaid.append(sentence)

    def drain(self, seconds: float) -> bool:
        """Waits until all jobs are done that were handed over, not longer than `seconds`.

        After a wait in vain it returns at once until the thread has caught up.

        Returns:
            Whether they are done.
        """
        with self._changed:
            is_done = not self._is_behind and self._wait(seconds)
            self._is_behind = not is_done
        self._tell()
        return is_done

    def close(self, seconds: float) -> None:
        """Waits once more, ends the thread, and says what was lost in all."""
        with self._changed:
            self._wait(seconds)
            self._is_closed = True
            for job in self._waiting:
                self._lose(job.what, f"{self._taker} stands still")
            self._waiting.clear()
            self._changed.notify_all()
            lost, self._lost = self._lost, {}
            said = [f"{count} {what} were lost: {reason}" for what, (count, reason) in lost.items()]
            self._unsaid += said
        self._tell()

    def _wait(self, seconds: float) -> bool:
        wanted = self._num_added
        return self._changed.wait_for(lambda: self._num_ended >= wanted, seconds)

    def _has_thread(self) -> bool:
        """Whether there is a thread, which is made where there is none."""
        if not (self._thread and self._thread.is_alive()):
            self._thread = threading.Thread(target=self._work, daemon=True, name="reports")
            try:
                self._thread.start()
            except RuntimeError:  # The system gives no more threads.
                self._thread = None
        return self._thread is not None

    def _lose(self, what: str, reason: str) -> None:
        if what not in self._lost and not self._is_closed:
            self._unsaid.append(f"{what} are being lost: {reason}; the run goes on")
        self._lost[what] = (self._lost.get(what, (0, ""))[0] + 1, reason)

    def _tell(self) -> None:
        with self._changed:
            sentences, self._unsaid = self._unsaid, []
        for sentence in sentences:
            self._say(sentence)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if not self._waiting:
                    return
                job = self._waiting[0]
            reason = None
            try:
                job.do()
            except BaseException as error:  # Whatever it is, the next job is done.
                reason = command.explain(error)
            with self._changed:
                if self._is_closed and not self._waiting:
                    return  # It was given up meanwhile.
                if reason is not None:
                    self._lose(job.what, reason)
                self._waiting.popleft()
                self._num_bytes -= job.num_bytes
                self._num_ended += 1
                self._is_behind = self._is_behind and bool(self._waiting)
                self._changed.notify_all()
