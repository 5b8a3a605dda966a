# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What keeps the time, with a clock of our own."""

import time

import pytest

from f3tok_jax.runs import ledger
from f3tok_jax.training import timekeeper
from tests.support import clocks


class _Watchdog:
    """Writes down what it is told."""

    def __init__(self):
        self.heard = []

    def beat(self, phase: str) -> None:
        self.heard.append(phase)

    def rest(self) -> None:
        self.heard.append(None)


def test_every_second_goes_to_one_kind_and_the_watchdog_hears_where_life_is_expected(tmp_path):
    watchdog, clock = _Watchdog(), clocks.Clock()
    book = ledger.Book(str(tmp_path))
    started = time.time() - 30.0
    with timekeeper.Timekeeper(book, watchdog, age=30.0, clock=clock, price=1.5) as keeper:
        for kind, seconds in (("compile", 20.0), ("data", 1.0), ("step", 2.0), ("data", 0.5)):
            keeper.enter(kind)
            clock.now += seconds
        assert keeper.seconds("data", "step") == pytest.approx(3.5)
        keeper.reached(4)
        keeper.reached(5)
        keeper.enter("checkpoint")
        clock.now += 3.0
        keeper.saved(5)
        clock.now += 1.0
        keeper.ended = "preempted"
    assert watchdog.heard == [None, "data", "step", "data", "checkpoint"]
    (session,) = ledger.read(str(tmp_path)).sessions
    spent = {"start": 30.0, "compile": 20.0, "data": 1.5, "step": 2.0, "checkpoint": 4.0}
    assert session.seconds == pytest.approx(spent)
    assert (session.first, session.last, session.ended) == (4, 5, "preempted")
    assert session.saved[0].seconds == pytest.approx({"data": 1.5, "step": 2.0, "checkpoint": 3.0})
    assert (session.start, session.price) == (pytest.approx(started, abs=60.0), 1.5)


def test_an_error_is_why_a_session_ended(tmp_path):
    book = ledger.Book(str(tmp_path))
    with pytest.raises(KeyError):
        with timekeeper.Timekeeper(book, _Watchdog()):
            raise KeyError("of a bug")
    (session,) = ledger.read(str(tmp_path)).sessions
    assert session.ended == "KeyError"


def test_marks_of_many_saves_stay_few_and_hold_the_last(tmp_path):
    clock = clocks.Clock()
    book = ledger.Book(str(tmp_path), is_writer=False)
    with timekeeper.Timekeeper(book, _Watchdog(), clock=clock) as keeper:
        keeper.enter("step")
        keeper.reached(0)
        for step in range(1, 1001):
            clock.now += 2.0
            keeper.reached(step)
            keeper.saved(step)
            session = keeper.session()
            assert len(session.saved) <= 64 and session.saved[-1].step == step
    for step in (0, 1, 333, 500, 999, 1000):
        assert session.kept(step)["step"] == pytest.approx(2.0 * step)
