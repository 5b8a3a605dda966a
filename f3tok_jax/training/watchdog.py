# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A watchdog that ends a run in which nothing moves, and says where it stood."""

from collections.abc import Callable, Iterator
import contextlib
import os
import pathlib
import sys
import threading
import traceback

EXIT_STALLED = 124
_WRITE_SECONDS = 10.0  # for a file or a console to take what is said


class Watchdog:
    """Dumps all stacks after `seconds` without a sign of life; ends the process after twice that.

    A stuck peer cannot be noticed from inside a collective, and no exception can leave one: only
    ending the process frees the slice. Armed by the first `beat`, so that a long first compilation
    is not mistaken for a stall.
    """

    def __init__(
        self,
        seconds: float,
        *,
        clock: Callable[[], float],
        stacks_path: str | None = None,
        exit_process: Callable[[int], None] = os._exit,
    ):
        """Starts the thread.

        Args:
            seconds: without a beat.
            clock: seconds that never go back.
            stacks_path: local file that also gets the stacks; the console always does.
            exit_process: called with 124; tests give another.
        """
        self._seconds = seconds
        self._clock = clock
        self._stacks_path = stacks_path
        self._exit_process = exit_process
        self._phase = "start"
        self._last_beat: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def beat(self, phase: str) -> None:
        """Reports life, and what is about to be done: the message names it."""
        self._phase = phase
        self._last_beat = self._clock()

    def rest(self) -> None:
        """Expects nothing until the next beat, as before the first."""
        self._last_beat = None

    def close(self) -> None:
        """Ends the thread."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        dumped_for = None
        while not self._stop.wait(min(1.0, self._seconds / 10)):
            beat = self._last_beat
            if beat is None:
                continue
            silent = self._clock() - beat
            if silent > self._seconds and dumped_for != beat:
                dumped_for = beat
                with contextlib.suppress(Exception):  # Whatever it is, the process is ended.
                    self._dump(silent)
            if silent > 2 * self._seconds:
                where = f"after {silent:.0f} s in phase {self._phase!r}"
                self._write(f"watchdog: still nothing {where}; exit {EXIT_STALLED}\n", None)
                self._exit_process(EXIT_STALLED)
                return

    def _dump(self, silent: float) -> None:
        found = f"nothing for {silent:.0f} s in phase {self._phase!r}"
        stacks = "".join(_stacks())
        self._write(f"watchdog: {found}; stacks of all threads follow\n{stacks}", None)
        if self._stacks_path:
            self._write(f"{found}\n{stacks}", pathlib.Path(self._stacks_path))

    def _write(self, text: str, path: pathlib.Path | None) -> None:
        """Appends to a file, or says on the console, what it takes within some seconds.

        By a thread of its own: a disk or a console that stands still may be why nothing moves.
        """

        def write() -> None:
            with contextlib.suppress(Exception):  # A full disk must not keep the process alive.
                if path is None:
                    print(text, end="", file=sys.stderr, flush=True)
                    return
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(text)

        writer = threading.Thread(target=write, daemon=True, name="watchdog says")
        with contextlib.suppress(RuntimeError):  # The system gives no more threads.
            writer.start()
            writer.join(min(_WRITE_SECONDS, self._seconds / 2))


def _stacks() -> Iterator[str]:
    """The stack of every thread, the innermost call first; asks no disk for lines of source."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        yield f"thread {names.get(ident, ident)}:\n"
        for call, line in traceback.walk_stack(frame):
            yield f"  {call.f_code.co_filename}:{line} in {call.f_code.co_name}\n"
