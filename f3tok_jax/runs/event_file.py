# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""TensorBoard's event file, of whole events whatever its disk does."""

from collections.abc import Mapping
import importlib
import socket
import struct
import time
from typing import Any

from f3tok_jax.runs import appended_file


class EventFile:
    """An event file of TensorBoard; tensorboardX makes what is in it.

    tensorboardX's own writer has a thread whose queue needs /dev/shm and blocks for ever once the
    disk is full.
    """

    def __init__(self, workdir: str, *, resume_step: int):
        """Touches nothing yet.

        Args:
            workdir: folder of the file, local or a bucket.
            resume_step: the restored step, 0 for a fresh run; later points of before are hidden.

        Raises:
            ImportError: where tensorboardX is not installed.
        """
        self._proto = importlib.import_module("tensorboardX.proto.event_pb2")
        self._summary = importlib.import_module("tensorboardX.summary")
        self._checksum = importlib.import_module("tensorboardX.record_writer").masked_crc32c
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
        self._file = appended_file.AppendedFile(f"{workdir}/{name}")
        self._resume_step, self._is_begun = resume_step, False

    def add_scalars(self, values: Mapping[str, float], *, step: int, when: float) -> None:
        """Appends a point per value; raises OSError where the disk takes none of them.

        Args:
            values: name -> number.
            step: that they describe.
            when: seconds since the epoch.
        """
        points = (self._summary.scalar(name, value) for name, value in values.items())
        self._append(*(self._event(step, when, summary=point) for point in points))

    def add(self, kind: str, tag: str, value: Any, *, step: int, when: float, **options) -> None:
        """Appends what tensorboardX.summary makes, under the name `kind`, of a value."""
        summary = getattr(self._summary, kind)(tag, value, **options)
        self._append(self._event(step, when, summary=summary))

    def publish(self) -> None:
        """Makes a bucket's file visible."""
        self._file.publish()

    def _append(self, *events: bytes) -> None:
        begin = [] if self._is_begun else self._begin(time.time())
        self._file.append(b"".join([*begin, *events]))
        self._is_begun = True

    def _begin(self, now: float) -> list[bytes]:
        version = {"file_version": "brain.Event:2"}
        if not self._resume_step:
            return [self._event(0, now, **version)]
        start = self._proto.SessionLog(status=self._proto.SessionLog.START)
        step = self._resume_step + 1
        return [self._event(step, now, **version), self._event(step, now, session_log=start)]

    def _event(self, step: int, when: float, **content: Any) -> bytes:
        """An event as it stands in the file: its length and its bytes, each with its checksum."""
        data = self._proto.Event(step=step, wall_time=when, **content).SerializeToString()
        length = struct.pack("<Q", len(data))
        framed = ((part, struct.pack("<I", self._checksum(part))) for part in (length, data))
        return b"".join(piece for pair in framed for piece in pair)
