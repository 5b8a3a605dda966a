# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A ledger adds up to the wall clock, whatever ended its sessions and whatever befell its file."""

import errno
import os
import threading

import pytest

from data_pipelines.records import atomic
from data_pipelines.records import small_file
from f3tok_jax.runs import ledger


def _session(start: float, *, first: int, last: int, ended: str = "", **options) -> ledger.Session:
    """One with 10 s of start, and 2 s of steps and 0.5 s of data for each step."""
    steps = last - first
    seconds = {"start": 10.0, "step": 2.0 * steps, "data": 0.5 * steps}
    return ledger.Session(
        start=start, seconds=seconds, first=first, last=last, ended=ended, **options
    )


def _write(workdir, *sessions: ledger.Session) -> list[str]:
    """Writes them one after another, as their processes would; what was said."""
    said = []
    for session in sessions:
        book = ledger.Book(str(workdir), say=said.append)
        book.write(session)
        book.close()
    return said


def test_steps_that_are_taken_again_are_lost_and_all_adds_up(tmp_path):
    mark = ledger.Mark(100, {"step": 200.0, "data": 50.0})
    killed = _session(1000.0, first=0, last=140, saved=(mark,))
    left = _session(1400.0, first=100, last=120, ended="preempted")
    done = _session(1500.0, first=120, last=200, ended="done")
    assert _write(tmp_path, killed, left, done) == []
    found = ledger.read(str(tmp_path))
    assert found.sessions == [killed, left, done]
    assert found.seconds["lost"] == pytest.approx(40 * 2.5)
    assert found.seconds["step"] == pytest.approx(2.0 * 200)
    assert found.seconds["data"] == pytest.approx(0.5 * 200)
    assert found.seconds["start"] == 30.0
    # 1360 to 1400 and 1460 to 1500.
    assert found.seconds["down"] == pytest.approx(80.0)
    assert found.wall_seconds == pytest.approx(done.end - killed.start)
    assert found.goodput == pytest.approx(400.0 / (found.wall_seconds - 80.0))


@pytest.mark.parametrize(("step", "lost"), [(0, 140), (50, 90), (120, 20), (140, 0), (200, 0)])
def test_between_marks_a_share_is_lost(step, lost):
    mark = ledger.Mark(100, {"step": 200.0, "data": 50.0})
    sessions = [
        _session(0.0, first=0, last=140, saved=(mark,)),
        ledger.Session(start=500.0, seconds={"start": 5.0}),  # killed before its loop
        _session(600.0, first=step, last=step + 1),
    ]
    seconds = ledger.Ledger(sessions=sessions).seconds
    assert seconds["lost"] == pytest.approx(2.5 * lost)
    assert seconds["start"] == 25.0


def test_a_clock_that_went_back_between_two_hosts_takes_no_time_away():
    first, second = _session(1000.0, first=0, last=4), _session(900.0, first=4, last=8)
    found = ledger.Ledger(sessions=[first, second])
    assert found.seconds["down"] == 0.0
    assert found.wall_seconds == first.wall_seconds + second.wall_seconds


@pytest.mark.parametrize("step", [0, 40, 75, -1])
def test_a_session_that_overlaps_the_next_counts_until_that_began(step):
    cut = ledger.Session(start=0.0, seconds={"start": 10.0, "step": 188.0}, first=0, last=94)
    after = ledger.Session(start=100.0, seconds={"step": 110.0}, first=step, last=step + 55)
    found = ledger.Ledger(sessions=[cut, after])
    assert found.wall_seconds == pytest.approx(210.0) and found.seconds["down"] == 0.0
    stays = {0: 0.0, 40: 80.0}.get(step, 100.0 * (1 - found.seconds["start"] / 100.0))
    assert found.seconds["step"] == pytest.approx(110.0 + stays)
    assert found.seconds["lost"] == pytest.approx(100.0 - found.seconds["start"] - stays)
    assert found.chip_hours == pytest.approx((198.0 + 110.0) / 3600)  # Both had their chips.


def test_chips_and_money_are_of_the_time_that_sessions_ran(tmp_path):
    one = _session(0.0, first=0, last=10, ended="preempted", chips=8, price=2.0)
    two = _session(5000.0, first=10, last=20, chips=16, price=1.0)
    found = ledger.Ledger(sessions=[one, two])
    assert found.chip_hours == pytest.approx(35.0 * 24 / 3600)
    assert found.dollars == pytest.approx(35.0 * (8 * 2.0 + 16 * 1.0) / 3600)
    unpriced = ledger.Ledger(sessions=[one, _session(0.0, first=10, last=20)])
    assert unpriced.dollars is None
    empty = ledger.read(str(tmp_path))
    assert (empty.wall_seconds, empty.goodput, empty.dollars) == (0.0, 0.0, None)


def test_a_session_replaces_its_own_line_and_no_other(tmp_path):
    first = _session(0.0, first=0, last=5)
    _write(tmp_path, first)
    book = ledger.Book(str(tmp_path))
    for last in (6, 7):
        book.write(_session(100.0, first=5, last=last))
    book.close()
    assert [one.last for one in ledger.read(str(tmp_path)).sessions] == [5, 7]
    assert book.before == [first]


@pytest.mark.parametrize("damage", [b"\xff", b"\0", b"\n", b"7"])
def test_a_damaged_line_costs_its_session_alone(tmp_path, damage):
    _write(tmp_path, *(_session(100.0 * i, first=i, last=i + 1) for i in range(3)))
    path = tmp_path / ledger.NAME
    data = path.read_bytes()
    place = data.index(b"\n") + 60
    path.write_bytes(data[:place] + damage + data[place + 1 :])
    found = ledger.read(str(tmp_path))
    assert [one.first for one in found.sessions] == [0, 2] and found.num_damaged >= 1
    said = _write(tmp_path, _session(400.0, first=3, last=4))
    assert len(said) == 1 and said[0].endswith(f"lines of {ledger.NAME} were not whole")
    assert [one.first for one in ledger.read(str(tmp_path)).sessions] == [0, 2, 3]


@pytest.mark.parametrize("kind", ["folder", "pipe", "list", "wrong"])
def test_nothing_in_its_place_stops_a_run(tmp_path, kind):
    path = tmp_path / ledger.NAME
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_text("[]\n" if kind == "list" else '{"start": "now", "seconds": {"step": "1"}}')
    assert ledger.read(str(tmp_path)).sessions in ([], ())
    assert len(_write(tmp_path, _session(0.0, first=0, last=1))) >= 1
    if kind != "folder":
        assert len(ledger.read(str(tmp_path)).sessions) == 1


@pytest.mark.reliability("R08")
def test_a_full_disk_is_said_once(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(atomic, "write_bytes", full)
    said = []
    book = ledger.Book(str(tmp_path), say=said.append)
    for _ in range(5):
        book.write(_session(0.0, first=0, last=1))
        book._background.drain(10.0)
    book.close()
    assert len([line for line in said if "being lost" in line]) == 1
    assert said[-1].startswith(f"5 states of {ledger.NAME} were lost: ")


def test_a_disk_that_was_behind_gets_the_newest_state_alone(tmp_path, monkeypatch):
    free, write, written = threading.Event(), atomic.write_bytes, []

    def slow(path, data):
        free.wait(300)
        written.append(data)
        write(path, data)

    monkeypatch.setattr(atomic, "write_bytes", slow)
    book = ledger.Book(str(tmp_path))
    for last in range(1, 101):
        book.write(_session(0.0, first=0, last=last))
    free.set()
    book.close()
    assert len(written) <= 2
    assert [one.last for one in ledger.read(str(tmp_path)).sessions] == [100]


def test_a_session_that_comes_while_another_is_taken_up_is_written(tmp_path):
    last, later = _session(0.0, first=0, last=9, ended="done"), []

    class Busy(ledger.Book):
        @property
        def _newest(self):
            """What it was, while the last session comes from another thread."""
            newest = self.__dict__["newest"]
            if newest and not later:
                later.append(last)
                self.write(last)
            return newest

        @_newest.setter
        def _newest(self, session):
            self.__dict__["newest"] = session

    book = Busy(str(tmp_path))
    book.write(_session(0.0, first=0, last=8))
    book._background.drain(10.0)
    book.close()
    assert later and ledger.read(str(tmp_path)).sessions == [last]


def test_a_disk_that_cannot_be_read_for_a_while_keeps_its_sessions(tmp_path, monkeypatch):
    _write(tmp_path, _session(0.0, first=0, last=1))
    read, failures = small_file.read_bytes, [OSError(errno.EIO, "I/O error")] * 2

    def broken(path):
        if failures:
            raise failures.pop()
        return read(path)

    monkeypatch.setattr(small_file, "read_bytes", broken)
    book = ledger.Book(str(tmp_path), say=lambda message: None)
    for last in (2, 3):
        book.write(_session(100.0, first=1, last=last))
    book.close()
    assert [one.last for one in ledger.read(str(tmp_path)).sessions] == [1, 3]


def test_a_folder_that_was_moved_is_not_made_again(tmp_path):
    said = []
    book = ledger.Book(str(tmp_path / "run"), say=said.append)
    book.write(_session(0.0, first=0, last=1))
    book.close()
    assert not (tmp_path / "run").exists() and "moved or removed" in said[-1]
