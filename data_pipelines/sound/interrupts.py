# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C while a decoder or an encoder, which is no Python, calls for bytes or gives some.

What Python raises there is lost, and the decoder takes it for the end of the file.
"""

from collections.abc import Iterator
import contextlib
import signal
import threading


@contextlib.contextmanager
def held() -> Iterator[None]:
    """While it lasts, Ctrl-C waits; then it does what it would have done."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    heard = []
    signal.signal(signal.SIGINT, lambda *given: heard.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if heard:
            handler(*heard[0])
