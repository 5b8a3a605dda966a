# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""TensorBoard's file: events that its own reader accepts, and only whole ones."""

import contextlib
import multiprocessing

import numpy as np
import pytest

from f3tok_jax.runs import event_file
from tests.support import disks

record_writer = pytest.importorskip("tensorboardX.record_writer")


def _open(folder, resume_step: int = 0) -> event_file.EventFile:
    return event_file.EventFile(str(folder), resume_step=resume_step)


def _events(folder) -> list:
    """The events of the only file there: each after its length and a checksum, and before one."""
    proto = pytest.importorskip("tensorboardX.proto.event_pb2")
    (path,) = folder.glob("events.out.tfevents.*")
    data, events = path.read_bytes(), []
    checksum = lambda part: record_writer.masked_crc32c(part).to_bytes(4, "little")
    while data:
        size = int.from_bytes(data[:8], "little")
        length, event, data = data[:12], data[12 : 16 + size], data[16 + size :]
        assert length[8:] == checksum(length[:8]) and event[size:] == checksum(event[:size])
        events.append(proto.Event.FromString(event[:size]))
    return events


def test_events_are_in_the_file_with_their_steps(tmp_path):
    file = _open(tmp_path, resume_step=4)
    file.add_scalars({"train/loss": 2.5, "train/mel": 1}, step=5, when=17.0)
    sound = np.zeros((100, 1), np.float32)
    file.add("audio", "sound", sound, step=6, when=18.0, sample_rate=8000)
    picture = np.zeros((4, 4), np.uint8)
    file.add("image", "picture", picture, step=7, when=19.0, dataformats="HW")
    events = _events(tmp_path)
    assert [event.step for event in events] == [5, 5, 5, 5, 6, 7]
    assert events[0].file_version == "brain.Event:2"
    assert events[1].session_log.status == 1  # what was written of step 5 and later is hidden
    assert [event.wall_time for event in events[2:]] == [17.0, 17.0, 18.0, 19.0]
    assert [event.summary.value[0].tag for event in events[2:4]] == ["train/loss", "train/mel"]
    assert events[4].summary.value[0].audio.sample_rate == 8000


def test_shared_memory_is_not_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(multiprocessing, "Queue", None)
    _open(tmp_path).add_scalars({"loss": 1.0}, step=1, when=0.0)
    assert len(_events(tmp_path)) == 2


@pytest.mark.reliability("R08")
def test_a_disk_that_is_full_for_a_while_costs_whole_events(tmp_path):
    file = _open(tmp_path)
    for step, num_bytes in enumerate([10, 1000, 100, 10_000]):
        full = contextlib.nullcontext() if num_bytes > 100 else pytest.raises(OSError)
        with full, disks.room(num_bytes):
            file.add_scalars({"loss": 1.0, "mel": 2.0}, step=step, when=0.0)
    assert [event.step for event in _events(tmp_path)] == [0, 1, 1, 3, 3]
