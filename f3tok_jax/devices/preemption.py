# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Notice that the run must save and leave: SIGTERM, a terminal that hangs up, Ctrl-C, or a TPU's
announced maintenance."""

import os
import signal
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils

EXIT_PREEMPTED = 42


class Preemption:
    """Answers at every step, in every process alike, whether it is time to save and leave.

    Alone, this process's own signal handler decides. With jax.distributed the coordination service
    takes SIGTERM in any process and names one step at which all of them learn of it.
    """

    def __init__(self):
        self._noticed = False
        self._polls = 0
        self._is_distributed = jax.process_count() > 1
        self._previous: dict[int, Any] = {}
        handlers = {signal.SIGHUP: _terminate}
        if not self._is_distributed:
            handlers = dict.fromkeys((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), self._notice)
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
            del handlers[signal.SIGHUP]  # by nohup
        # Signal handlers belong to the main thread; elsewhere (a test's thread) there are none.
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                self._previous[number] = signal.signal(number, handler)

    def _notice(self, number: int, frame: Any) -> None:
        del frame
        self._noticed = True
        if number == signal.SIGINT:
            # A second Ctrl-C interrupts the save as well.
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def reached(self) -> bool:
        """Returns whether to save and leave; all processes must ask equally often."""
        if self._noticed:
            return True
        self._polls += 1
        if self._is_distributed:
            # Counts questions, not steps: evaluation asks as well.
            self._noticed = multihost_utils.reached_preemption_sync_point(self._polls)
        return self._noticed

    def close(self) -> None:
        """Puts the former handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}


def _terminate(number: int, frame: Any) -> None:
    """Turns a signal into the one that the coordination service knows."""
    del number, frame
    os.kill(os.getpid(), signal.SIGTERM)
