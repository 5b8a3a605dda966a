# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Signals reach the programs that tests start, however the tests themselves were started."""

import os
import signal

_DEFAULTS = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}


def heed_signals() -> None:
    """Ends the ignoring of SIGHUP by nohup, and of SIGINT by a shell's "&": programs inherit it."""
    for number, handler in _DEFAULTS.items():
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


def tell_self(number: int = signal.SIGTERM) -> None:
    """Sends this process a signal that something here handles: any other ends all of its tests."""
    handler = signal.getsignal(number)
    assert callable(handler) and handler is not signal.default_int_handler, f"no handler: {number}"
    os.kill(os.getpid(), number)
