# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Signals of one process; those of several are in test_multiprocess."""

import os
import signal
import threading

import jax
from jax.experimental import multihost_utils
import pytest

from data_pipelines import leaving
from f3tok_jax.devices import multihost
from f3tok_jax.devices import preemption
from tests.support import heeding

# Threads that leave here end by an exception.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

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
    heeding.tell_self(number)
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
        heeding.tell_self(number)
    assert notice.reached() and not left
    heeding.tell_self(signal.SIGINT)
    assert left == [("stopped by a second Ctrl-C: run the same command again", 42)]


class _Others:
    """Another process of the run: whether it is told to leave, and when it comes to the barrier."""

    def __init__(self, monkeypatch):
        self.are_told, self.have_come, self.left = (threading.Event() for _ in range(3))
        self.waited_for = threading.Event()
        monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(
            multihost_utils, "reached_preemption_sync_point", lambda polls: self.are_told.is_set()
        )
        monkeypatch.setattr(multihost, "barrier", self._barrier)
        monkeypatch.setattr(multihost, "gathered_numbers", lambda numbers: [numbers])
        monkeypatch.setattr(jax, "process_index", lambda: 1)
        monkeypatch.setattr(preemption, "_POLL_SECONDS", 0.01)
        monkeypatch.setattr(leaving, "leave", self._leave)

    def _barrier(self, name):
        assert name == "begin"
        self.waited_for.set()
        assert self.have_come.wait(10)

    def _leave(self, sentence, code):
        assert code == preemption.EXIT_PREEMPTED
        self.left.set()
        raise SystemExit  # of the thread that leaves


@pytest.fixture
def others(monkeypatch):
    return _Others(monkeypatch)


def _begun_in_a_thread(notice):
    thread = threading.Thread(target=notice.begin)
    thread.start()
    return thread


def test_several_that_are_told_before_the_barrier_of_the_first_step_leave_at_once(others):
    notice = preemption.Preemption()
    others.are_told.set()
    assert others.left.wait(10) and not others.waited_for.is_set()
    notice.close()


def test_several_that_are_told_at_that_barrier_go_on_together(others):
    notice = preemption.Preemption()
    beginning = _begun_in_a_thread(notice)
    assert others.waited_for.wait(10)
    others.are_told.set()
    assert not others.left.wait(0.2)
    others.have_come.set()
    beginning.join(10)
    assert notice.reached() and not others.left.is_set()
    notice.close()


def test_who_is_told_at_that_barrier_and_waits_for_nobody_leaves(others, monkeypatch):
    monkeypatch.setattr(preemption, "_MEETING_SECONDS", 0.1)
    notice = preemption.Preemption()
    beginning = _begun_in_a_thread(notice)
    assert others.waited_for.wait(10)
    others.are_told.set()
    assert others.left.wait(10)
    others.have_come.set()
    beginning.join(10)
    notice.close()


def test_whose_start_fails_because_another_has_left_is_told_to_leave_before(others):
    notice = preemption.Preemption()
    threading.Timer(0.02, others.are_told.set).start()
    notice.close()
    assert others.left.is_set()
