# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A watchdog that ends a run in which nothing moves, and says where it stood."""

from collections.abc import Callable
import faulthandler
import os
import pathlib
import sys
import threading

EXIT_STALLED = 124


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

    def disarm(self) -> None:
        """Waits for the next beat before it counts again."""
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
                self._dump(silent)
            if silent > 2 * self._seconds:
                where = f"after {silent:.0f} s in phase {self._phase!r}"
                _say(f"watchdog: still nothing {where}; exit {EXIT_STALLED}")
                self._exit_process(EXIT_STALLED)
                return

    def _dump(self, silent: float) -> None:
        found = f"nothing for {silent:.0f} s in phase {self._phase!r}"
        _say(f"watchdog: {found}; stacks of all threads follow")
        faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
        if self._stacks_path:
            path = pathlib.Path(self._stacks_path)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "a", encoding="utf-8") as file:
                file.write(f"{found}\n")
                file.flush()
                faulthandler.dump_traceback(file=file, all_threads=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
