# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Signals of one process; those of several are in test_multiprocess."""

import os
import signal

import pytest

from f3tok_jax.devices import preemption

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.mark.parametrize("number", _SIGNALS)
def test_a_signal_is_noticed_and_the_handlers_are_put_back(number):
    before = {name: signal.getsignal(name) for name in _SIGNALS}
    notice = preemption.Preemption()
    try:
        assert not notice.reached()
        os.kill(os.getpid(), number)
        assert notice.reached() and notice.reached()
    finally:
        notice.close()
    assert {name: signal.getsignal(name) for name in before} == before


def test_under_nohup_a_terminal_may_hang_up():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    notice = preemption.Preemption()
    try:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not notice.reached() and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        notice.close()
        signal.signal(signal.SIGHUP, before)


def test_a_second_sigterm_does_not_interrupt_the_save_but_a_second_ctrl_c_does():
    notice = preemption.Preemption()
    try:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert notice.reached()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        notice.close()
