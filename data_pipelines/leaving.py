# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""How a process leaves that is told to: by SIGTERM, by the SIGHUP of its terminal, by Ctrl-C.

Python runs the handler of a signal in the main thread, once that is back in Python: a compiler may
keep it for minutes. So a thread of its own hears of signals and acts, whatever the main thread does.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import ctypes
import os
import signal
import socket
import threading
from typing import Any

from data_pipelines.records import atomic

EXIT_RESUMABLE = 42  # the same command goes on
_HANDED_OVER = 5.0  # seconds after which the main thread does not wait for the other any more

_listener: int | None = None  # process whose thread hears of signals; a fork has no such thread


class AtOnce:
    """A handler that acts while the main thread is busy, once for each signal that is heard.

    The main thread waits until it is done: what it reads next is what the signal has changed.
    """

    def __init__(self, act: Callable[[int], None]):
        """`act` gets the signal's number; it may be called in any thread."""
        self._act, self._owner = act, os.getpid()
        self._done = threading.Event()

    def __call__(self, number: int, frame: Any) -> None:
        """The handler, as Python calls it in the main thread."""
        del frame
        if os.getpid() != self._owner:
            die(number)  # A worker that was forked has nothing to save.
        elif _listener == self._owner:
            self._done.wait(_HANDED_OVER)
            self._done.clear()
        else:
            self._act(number)

    def act(self, number: int) -> None:
        """The handler, as the listening thread calls it."""
        self._act(number)
        self._done.set()


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """While it lasts, a thread hears of signals and calls those of their handlers that are AtOnce.

    Elsewhere than in the main thread, which alone has handlers, and inside another one: nothing.
    """
    global _listener
    if threading.current_thread() is not threading.main_thread() or _listener == os.getpid():
        yield
        return
    hears, told = socket.socketpair()
    told.setblocking(False)
    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=_listen, args=(hears,), name="signals", daemon=True)
    thread.start()
    _listener = os.getpid()
    try:
        yield
    finally:
        _listener = None
        signal.set_wakeup_fd(before)
        told.close()  # which ends the thread
        thread.join()
        hears.close()


def _listen(hears: socket.socket) -> None:
    while numbers := hears.recv(64):
        for number in numbers:
            handler = signal.getsignal(number)
            if isinstance(handler, AtOnce):
                handler.act(number)


def _forget_listener() -> None:
    """In a fork, signals are not for the thread of the process that forked."""
    if _listener is not None:
        signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget_listener)


@contextlib.contextmanager
def handling(handlers: Mapping[int, AtOnce]) -> Iterator[None]:
    """While it lasts, signals by their numbers have these handlers; those ignored, as nohup does it
    for SIGHUP, stay ignored."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is handlers[number]:  # `settle` may have come before
                signal.signal(number, handler)


def settle(code: int) -> None:
    """From here on a signal ends the process with this code: its work has come to an end.

    Libraries may take seconds to take themselves apart.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, frame: os._exit(code))


def ignore() -> None:
    """From here on signals change nothing. For the last of what atexit calls.

    Python gives back the signals that it handles, not those it ignores, before libraries are gone.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def leave(sentence: str, code: int) -> None:
    """Ends the process from any thread, without what it has not finished writing, in a sentence."""
    atomic.remove_partials()
    with contextlib.suppress(OSError):
        os.write(2, f"{sentence}\n".encode(errors="backslashreplace"))
    os._exit(code)


def die(number: int) -> None:
    """Ends the process by the signal, from any thread, as if it had no handler."""
    ctypes.pythonapi.PyOS_setsig(number, None)
    os.kill(os.getpid(), number)
