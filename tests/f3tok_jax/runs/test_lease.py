# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Two runs that want one folder of a bucket: one trains in it, whichever of them dies or stalls."""

import json
import threading

from etils import epath
import pytest

from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import lease
from f3tok_jax.runs import ledger
from f3tok_jax.runs import metric_writer
from tests.support import bucket
from tests.support import clocks


@pytest.fixture
def logs(tmp_path, monkeypatch) -> epath.Path:
    """Of a folder in a bucket, whose leases beat fast."""
    monkeypatch.setattr(lease, "_BEAT", 0.02)
    monkeypatch.setattr(lease, "_WATCHED", 8.0)
    bucket.serve()
    return epath.Path(f"{bucket.URL}/{tmp_path.name}/logs")


@pytest.mark.reliability("R13")
def test_a_second_run_is_refused_while_the_first_is_at_work_and_not_after(logs):
    workdir, said = str(logs.parent), []
    with run_folder.locked(workdir, said.append) as check:
        with pytest.raises(
            ValueError, match=f"must not be in use, got {workdir}, in which a run on"
        ):
            with run_folder.locked(workdir, said.append):
                pass
        check()
        assert len(said) == 1 and "watching for 8 s if it is at work" in said[0]
    # Given back: the next one need not wait.
    with run_folder.locked(workdir, said.append):
        assert len(said) == 1
    assert not (logs / "lease.json").exists()


def test_what_a_dead_run_left_is_taken_once_it_was_watched(logs):
    logs.mkdir(parents=True)
    for left in (json.dumps({"id": "a", "host": "gone", "beats": 7}), "{", "[]"):
        (logs / "lease.json").write_text(left)
        slept, said = [], []
        taken = lease.Lease(logs, say=said.append, sleep=slept.append)
        assert len(slept) == 401 and ("a run on gone" in said[0] or "another host" in said[0])
        taken.give_back()


def test_who_was_taken_for_dead_saves_nothing_more(logs):
    first = lease.Lease(logs, say=str)
    (logs / "lease.json").write_text(json.dumps({"id": "b", "host": "other", "beats": 0}))
    first._thread.join(20)
    with pytest.raises(
        lease.Taken, match="was taken over by a run on other, to which this one seem"
    ):
        first.check()
    first.give_back()
    assert json.loads((logs / "lease.json").read_text())["id"] == "b"


class _BucketError(Exception):
    """As libraries of buckets raise them: no OSError."""


@pytest.fixture
def fails(monkeypatch) -> list[int]:
    """How many times in a row reading a lease fails from now on; negative: for ever."""
    read, left = lease.small_file.read_text, [0]

    def failing(path):
        if path.name == "lease.json" and left[0]:
            left[0] -= 1
            raise _BucketError("503 of the bucket")
        return read(path)

    monkeypatch.setattr(lease.small_file, "read_text", failing)
    return left


@pytest.mark.parametrize("kind", [_BucketError, OSError])
def test_no_run_trains_without_a_lease_where_the_bucket_fails(logs, monkeypatch, kind):
    def fail(path):
        raise kind("503 of the bucket")

    monkeypatch.setattr(lease.small_file, "read_text", fail)
    monkeypatch.setattr(lease, "_PAUSES", (0.0,) * 4)
    with pytest.raises(ValueError, match=r"--workdir must be a .* be written, got gs://.*: 503 of"):
        with run_folder.locked(str(logs.parent)):
            raise AssertionError("trains without a lease")


def test_a_bucket_that_fails_a_few_times_is_asked_again(logs, fails):
    logs.mkdir(parents=True)
    (logs / "lease.json").write_text(json.dumps({"id": "a", "host": "gone", "beats": 7}))
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 50:  # while it watches
            fails[0] = 3

    fails[0] = 4
    lease.Lease(logs, say=str, sleep=sleep).give_back()
    paused = [seconds for seconds in slept if seconds >= 1.0]
    assert paused == [1.0, 2.0, 4.0, 8.0, 1.0, 2.0, 4.0]


def test_a_beat_goes_on_after_any_error(logs, fails):
    held = lease.Lease(logs, say=str)
    fails[0] = 3
    beat = threading.Event()
    write = held._write
    held._write = lambda: (write(), fails[0] or beat.set())
    assert beat.wait(20) and held._thread.is_alive()
    held.give_back()


@pytest.fixture
def silent(logs, monkeypatch) -> tuple[lease.Lease, clocks.Clock]:
    """A lease whose thread has not beaten yet, with its clock; pauses take no time."""
    monkeypatch.setattr(lease, "_BEAT", 1e6)
    clock = clocks.Clock()
    held = lease.Lease(logs, say=str, clock=clock, sleep=lambda seconds: None)
    yield held, clock
    held._ended.set()


@pytest.mark.parametrize("left", [json.dumps({"id": "b", "host": "other", "beats": 0}), None])
def test_who_asks_between_two_beats_is_told_what_the_lease_says_now(silent, logs, left):
    held, _ = silent
    held.check()
    path = logs / "lease.json"
    path.write_text(left) if left else path.unlink()  # Gone: taken, and given back.
    with pytest.raises(lease.Taken, match=f"run on {'other' if left else 'another host'}, to wh"):
        held.check()


def test_a_lease_that_cannot_be_read_is_trusted_while_nobody_can_have_taken_it(silent, logs, fails):
    held, clock = silent
    fails[0] = -1
    held.check()
    clock.now += 4.5  # More than half of what is watched.
    with pytest.raises(lease.Taken, match=r"got for 4 s: 503 of the bucket; another run may have"):
        held.check()
    fails[0] = 2
    held.check()  # It beats now, late.
    assert json.loads((logs / "lease.json").read_text())["beats"] == 1


def test_who_was_taken_for_dead_writes_no_ledger_metrics_or_done_any_more(
    silent, logs, monkeypatch
):
    held, _ = silent
    workdir, said = str(logs.parent), []
    monkeypatch.setattr(metric_writer, "_open_events", lambda *_: None)
    writer = metric_writer.MetricWriter(workdir, may_write=held.check, say=said.append)
    book = ledger.Book(workdir, may_write=held.check, say=said.append)
    names = ("metrics.jsonl", ledger.NAME, "DONE")
    (logs / "lease.json").write_text(json.dumps({"id": "b", "host": "other", "beats": 0}))
    for name in names:
        (logs.parent / name).write_text("of the other\n")
    writer.write(1, {"train/loss": 1.0})
    writer.close()
    book.write(ledger.Session(start=0.0, seconds={"start": 1.0}))
    book.close()
    with pytest.raises(lease.Taken):
        run_folder.mark_done(workdir, 3, held.check)
    for name in names:
        assert (logs.parent / name).read_text() == "of the other\n"
    assert "copies to the bucket were lost" in " ".join(said) and "taken over by" in said[-1]
