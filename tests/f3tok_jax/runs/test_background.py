# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Jobs in the background: whatever befalls them is counted, and holds up nobody."""

import errno
import subprocess
import sys
import threading
import time

import pytest

from f3tok_jax.runs import background


def _fail(error: BaseException):
    def job() -> None:
        raise error

    return job


@pytest.fixture
def stuck():
    """A job that does not end before the test does."""
    end = threading.Event()
    yield end.wait
    end.set()


def test_jobs_are_done_in_order_by_another_thread():
    done, said = [], []
    jobs = background.Background(said.append)
    for index in range(100):
        jobs.add("numbers", lambda index=index: done.append((index, threading.current_thread())))
    assert jobs.drain(10)
    assert [index for index, _ in done] == list(range(100))
    assert {thread.name for _, thread in done} == {"reports"}
    jobs.close(10)
    assert not said


@pytest.mark.reliability("R08")
def test_what_fails_is_said_once_and_counted_at_the_end_and_the_rest_is_done():
    done, said = [], []
    jobs = background.Background(said.append)
    full = OSError(errno.ENOSPC, "No space left on device", "/run/a")
    for error in (full, full, SystemExit("bad"), MemoryError()):
        jobs.add("lines", _fail(error))
        jobs.add("sounds", lambda: done.append(1))
    jobs.add("points", _fail(ValueError("no number")))
    assert jobs.drain(10) and len(done) == 4
    assert said == [
        "lines are being lost: /run/a cannot be used: No space left on device; the run goes on",
        "points are being lost: no number; the run goes on",
    ]
    jobs.close(10)
    assert said[2:] == ["4 lines were lost: MemoryError", "1 points were lost: no number"]


def test_a_job_that_stands_still_holds_up_nobody_for_longer_than_allowed(stuck, monkeypatch):
    monkeypatch.setattr(background, "_MAX_WAITING", 20)
    said = []
    jobs = background.Background(said.append)
    jobs.add("lines", stuck)
    started = time.monotonic()
    assert not jobs.drain(0.1)
    assert time.monotonic() - started >= 0.1
    started = time.monotonic()
    for _ in range(100):
        jobs.add("lines", lambda: None)
    assert not jobs.drain(10)  # it does not wait again
    assert time.monotonic() - started < 5
    jobs.close(0.1)
    assert said == [
        "lines are being lost: their disk does not keep up; the run goes on",
        "101 lines were lost: their disk stands still",
    ]


def test_it_is_waited_for_again_once_it_has_caught_up():
    go, said = threading.Event(), []
    jobs = background.Background(said.append)
    jobs.add("lines", go.wait)
    assert not jobs.drain(0.05) and not jobs.drain(60)
    go.set()
    deadline = time.monotonic() + 30
    while not jobs.drain(10):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    jobs.close(10)
    assert not said


def test_what_jobs_hold_is_bounded(stuck, monkeypatch):
    monkeypatch.setattr(background, "_MAX_BYTES", 1000)
    said = []
    jobs = background.Background(said.append)
    jobs.add("lines", stuck)
    for _ in range(3):
        jobs.add("sounds", lambda: None, num_bytes=400)
    jobs.add("lines", lambda: None)
    jobs.close(0.05)
    assert said == [
        "sounds are being lost: their disk does not keep up; the run goes on",
        "3 sounds were lost: their disk stands still",
        "2 lines were lost: their disk stands still",
    ]


def test_without_a_thread_everything_is_lost_and_nothing_fails(monkeypatch):
    def none(self):
        raise RuntimeError("can't start new thread")

    said = []
    jobs = background.Background(said.append)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none)
        jobs.add("lines", lambda: None)
        assert jobs.drain(10)
    jobs.add("lines", lambda: None)  # there are threads again
    jobs.close(10)
    assert said == [
        "lines are being lost: there is no thread that writes them; the run goes on",
        "1 lines were lost: there is no thread that writes them",
    ]


def test_after_the_end_nothing_is_done():
    said = []
    jobs = background.Background(said.append)
    jobs.close(10)
    jobs.add("lines", lambda: pytest.fail("done"))
    jobs.close(10)
    assert said == ["1 lines were lost: there is no thread that writes them"]


def test_notes_of_jobs_are_said_by_who_hands_them_over():
    said = []
    jobs = background.Background(lambda text: said.append((text, threading.current_thread())))
    jobs.add("lines", lambda: jobs.note("3 lines were not whole"))
    jobs.close(10)
    assert said == [("3 lines were not whole", threading.current_thread())]


_LOSING = """
import errno
from data_pipelines import command
from f3tok_jax.runs import background
def fail(): raise OSError(errno.ENOSPC, "No space left on device")
jobs = background.Background(command.say)
for _ in range(3):
    jobs.add("lines", fail)
    jobs.drain(10)
jobs.close(10)
"""


@pytest.mark.parametrize("console", [">&-", "> /dev/full", "| true"])
def test_a_console_that_is_gone_takes_only_its_sentences_along(console):
    command = ["bash", "-c", f'set -o pipefail; "$0" -c "$1" {console}', sys.executable, _LOSING]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("\n") <= 1, ended.stderr
