# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Notice that the run must save and leave: SIGTERM, a terminal that hangs up, Ctrl-C, or a TPU's
announced maintenance."""

import contextlib
import os
import signal
import threading
import time

import jax
from jax.experimental import multihost_utils

from data_pipelines import leaving
from f3tok_jax.devices import multihost

EXIT_PREEMPTED = leaving.EXIT_RESUMABLE
_POLL_SECONDS = 0.25  # of a process that starts, whether another one was told to leave
_MEETING_SECONDS = 3.0  # in which all pass the barrier of `begin`, once all are there


class Preemption:
    """Answers at every step, in every process alike, whether it is time to save and leave.

    Alone, this process's own signal handlers decide. With jax.distributed the coordination service
    takes SIGTERM in any process and names one question at which all of them learn of it.

    Until `begin` nothing can be lost: all processes leave at once, whatever their main threads do.
    """

    def __init__(self):
        """Handles the signals from here to `close`."""
        self._noticed = self._was_interrupted = False
        self._polls = 0
        self._with_others = jax.distributed.is_initialized()
        self._stack = contextlib.ExitStack()
        if self._with_others:
            # SIGTERM is the coordination service's own; it has no Python handler.
            relay = leaving.AtOnce(self._relay)
            handlers = dict.fromkeys((signal.SIGINT, signal.SIGHUP), relay)
            self._stack.enter_context(leaving.handling(handlers))
            self._lock = threading.Lock()  # Whoever leaves does not come to the barrier any more.
            self._is_at_barrier = False
            self._together = threading.Event()
            self._begun = threading.Event()
            self._starting = threading.Thread(target=self._watch_start, daemon=True)
            self._starting.start()
            self._stack.callback(self._give_up)

    def begin(self) -> None:
        """From here on there is something to save; all processes must call it."""
        if self._with_others:
            with self._lock:
                self._is_at_barrier = True
            multihost.barrier("begin")
            self._together.set()
            last = max(polls for (polls,) in multihost.gathered_numbers([self._end_watch()]))
            # One of these may be the question at which all of them learn of it.
            while self._polls < last:
                self._noticed |= self._poll()
            return
        handlers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        handler = leaving.AtOnce(self._notice)
        self._stack.enter_context(leaving.handling(dict.fromkeys(handlers, handler)))

    def reached(self) -> bool:
        """Returns whether to save and leave; all processes must ask equally often."""
        if not self._noticed and self._with_others:
            self._noticed = self._poll()
        return self._noticed

    def close(self) -> None:
        """Puts the former handlers back."""
        self._stack.close()

    def _poll(self) -> bool:
        # Counts questions, not steps: evaluation asks as well.
        self._polls += 1
        return multihost_utils.reached_preemption_sync_point(self._polls)

    def _watch_start(self) -> None:
        """Asks in a thread: a main thread that compiles or restores cannot."""
        while not self._begun.wait(_POLL_SECONDS):
            if self._poll():
                # All hear of it at this question, some of them before the barrier, some at it, some
                # behind it: either all leave, or all go on to the first step and leave there.
                with self._lock:
                    if not self._is_at_barrier:
                        _leave_start()
                if not self._together.wait(_MEETING_SECONDS):
                    _leave_start()
                self._noticed = True
                return

    def _end_watch(self) -> int:
        """Ends the thread; returns how often it has asked."""
        self._begun.set()
        self._starting.join()
        return self._polls

    def _give_up(self) -> None:
        """Ends the thread; where a start failed, not before it has heard why another one is gone."""
        if not self._begun.is_set():
            self._starting.join(4 * _POLL_SECONDS)
        self._end_watch()

    def _notice(self, number: int) -> None:
        self._leave_if_impatient(number)
        self._noticed = True

    def _relay(self, number: int) -> None:
        """Turns a signal into the one that the coordination service knows."""
        self._leave_if_impatient(number)
        os.kill(os.getpid(), signal.SIGTERM)

    def _leave_if_impatient(self, number: int) -> None:
        """A second Ctrl-C does not wait for the save."""
        if number == signal.SIGINT and self._was_interrupted:
            _leave("stopped by a second Ctrl-C")
        self._was_interrupted |= number == signal.SIGINT


def _leave_start() -> None:
    if jax.process_index() == 0:
        # The others abort when its coordination service ends: they leave first.
        time.sleep(_MEETING_SECONDS + 4 * _POLL_SECONDS)
    _leave("told to leave before the first step")


def _leave(why: str) -> None:
    leaving.leave(f"{why}: run the same command again", EXIT_PREEMPTED)
