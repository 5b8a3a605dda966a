# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Signals of one process; those of several are in test_multiprocess."""

import os
import signal

import pytest

from data_pipelines import leaving
from f3tok_jax.devices import preemption

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture
def notice():
    before = {number: signal.signal(number, signal.SIG_DFL) for number in _SIGNALS}
    notice = preemption.Preemption()
    notice.begin()
    yield notice
    notice.close()
    assert {signal.getsignal(number) for number in _SIGNALS} == {signal.SIG_DFL}
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", _SIGNALS)
def test_a_signal_is_noticed_and_the_handlers_are_put_back(number, notice):
    assert not notice.reached()
    os.kill(os.getpid(), number)
    assert notice.reached() and notice.reached()


def test_until_a_run_begins_signals_are_those_of_the_program():
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    notice = preemption.Preemption()
    assert {number: signal.getsignal(number) for number in _SIGNALS} == before
    notice.close()


def test_under_nohup_a_terminal_may_hang_up():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    notice = preemption.Preemption()
    notice.begin()
    try:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not notice.reached() and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        notice.close()
        signal.signal(signal.SIGHUP, before)


@pytest.mark.reliability("R03")
def test_a_second_sigterm_does_not_interrupt_the_save_but_a_second_ctrl_c_does(notice, monkeypatch):
    left = []
    monkeypatch.setattr(leaving, "leave", lambda sentence, code: left.append((sentence, code)))
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)
    assert notice.reached() and not left
    os.kill(os.getpid(), signal.SIGINT)
    assert left == [("stopped by a second Ctrl-C: run the same command again", 42)]
