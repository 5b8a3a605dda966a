# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""TensorBoard's file is written beside a run, and whatever befalls it never stops the run."""

import errno
import multiprocessing
import threading
import time

import numpy as np
import pytest

from f3tok_jax.runs import event_file

event_file_writer = pytest.importorskip("tensorboardX.event_file_writer")


def _open(folder, said: list, resume_step: int = 0) -> event_file.EventFile:
    return event_file.EventFile(str(folder), resume_step=resume_step, say=said.append)


def _events(folder) -> list:
    """The events of the only file there: each after its length and a checksum, and before one."""
    proto = pytest.importorskip("tensorboardX.proto.event_pb2")
    (path,) = folder.glob("events.out.tfevents.*")
    data, events = path.read_bytes(), []
    while data:
        size = int.from_bytes(data[:8], "little")
        events.append(proto.Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    return events


def test_events_are_in_the_file_with_their_steps(tmp_path):
    said = []
    file = _open(tmp_path, said, resume_step=4)
    file.add("scalar", "train/loss", 2.5, step=5)
    file.add("audio", "sound", np.zeros((100, 1), np.float32), step=6, sample_rate=8000)
    file.add("image", "picture", np.zeros((4, 4), np.uint8), step=7, dataformats="HW")
    file.close()
    events = _events(tmp_path)
    assert [event.step for event in events] == [0, 5, 5, 5, 6, 7]
    assert events[2].session_log.status == 1  # what was written of step 5 and later is hidden
    assert events[3].summary.value[0].tag == "train/loss"
    assert events[4].summary.value[0].audio.sample_rate == 8000 and not said


def test_what_is_flushed_is_there_before_the_end(tmp_path):
    file = _open(tmp_path, [])
    file.add("scalar", "loss", 1.0, step=1)
    file.flush()
    deadline = time.monotonic() + 30
    while not list(tmp_path.iterdir()) or len(_events(tmp_path)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    file.close()


def test_shared_memory_is_not_needed(tmp_path, monkeypatch):
    def none(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(multiprocessing, "Queue", none)
    said = []
    _open(tmp_path, said).close()
    assert len(_events(tmp_path)) == 1 and not said


@pytest.mark.reliability("R08")
def test_a_full_disk_is_said_once(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    said = []
    monkeypatch.setattr(event_file_writer.EventsWriter, "_write_serialized_event", full)
    file = _open(tmp_path, said)
    file.add("scalar", "loss", 1.0, step=1)
    file.close()
    for step in range(3 * event_file._MAX_WAITING):
        file.add("scalar", "loss", 1.0, step=step)
    assert len(said) == 1 and "No space left on device; the run goes on" in said[0]


@pytest.mark.reliability("R08")
def test_a_disk_that_stands_still_does_not_hold_up_the_run(tmp_path, monkeypatch):
    free, said = threading.Event(), []
    monkeypatch.setattr(event_file, "_MAX_WAITING", 20)
    monkeypatch.setattr(event_file, "_CLOSE_SECONDS", 0.1)
    monkeypatch.setattr(
        event_file_writer.EventsWriter, "_write_serialized_event", lambda self, data: free.wait()
    )
    file = _open(tmp_path, said)
    for step in range(100):
        file.add("scalar", "loss", 1.0, step=step)
    file.close()
    free.set()
    assert said == [
        "TensorBoard events are not written any more: 20 wait for their disk; the run goes on"
    ]
