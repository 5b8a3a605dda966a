# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The process of one run on this machine: begun once, whoever asks, and what its folder says of it.

A process holds the lock of its run from before it begins until it is gone, so that whoever comes
after a driver that was killed neither trains a run a second time nor has to guess.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
from typing import IO, NamedTuple

from etils import epath

from data_pipelines import command
from data_pipelines import leaving
from data_pipelines.records import atomic
from data_pipelines.records import lock
from data_pipelines.records import small_file
from f3tok_jax.runs import typed_json

RUNNING, DONE, FAILED, STOPPED, PRUNED = "running", "done", "failed", "stopped", "pruned"
# Of a run that was told to leave, before or after it listened.
LEFT = (leaving.EXIT_RESUMABLE, *(128 + int(s) for s in (signal.SIGHUP, signal.SIGINT)))
LEFT += (128 + int(signal.SIGTERM), 43)  # 43: by `launch/tpu_train.sh stop`
CONSOLE = "console.log"
_LOCK, _RECORD = "sweep.lock", "sweep.json"
_TRAINS = "lock"  # that train itself holds, whoever began it
_MAX_NAME = 200  # characters of a folder's, of which a disk takes 255
_MAX_WORDS = 300  # characters of the last words of a run
_TAIL_BYTES = 8192
# How a program of ours, or Python, says what was wrong: a launcher says something else after that.
_CAUSE = re.compile(r"(f3tok_jax\.\w+|\w+\.sh|[\w.]*(Error|Exception)): ")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What became of the last process of a run.

    Attributes:
        state: one of the above.
        code: exit code; 0 while it is running.
        words: the last ones of its console where it failed; why, where it was pruned.
        place: name of the slice or workload that it was given; "" on this machine.
    """

    state: str
    code: int = 0
    words: str = ""
    place: str = ""

    @property
    def is_running(self) -> bool:
        return self.state == RUNNING


class Holder(NamedTuple):
    """The process that holds a lock; 0 and "" where it is not known."""

    pid: int
    host: str

    def tell(self, number: int = signal.SIGTERM) -> bool:
        """Sends a signal, by default the one to leave; returns whether that is possible from here."""
        if not self.pid or self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, number)
        except OSError:
            return False
        return True

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else "another process"


def logs_of(workdir: str) -> pathlib.Path:
    """Where locks and console of a folder lie: in it or, for a bucket, in the home, as job.sh's.

    Of a bucket's folder the name is for the eye; a part of a digest tells it from others.
    """
    if "://" not in workdir:
        return pathlib.Path(workdir) / "logs"
    workdir = workdir.rstrip("/")
    name = "".join(one if one.isalnum() or one in "_.-" else "_" for one in workdir.split("://")[1])
    digest = hashlib.sha256(workdir.encode()).hexdigest()[:8]
    return pathlib.Path.home() / "f3tok_jobs" / f"{name[:_MAX_NAME]}-{digest}"


def take(workdir: str) -> IO[str] | None:
    """The lock of a folder, emptied of the name of who held it before; None where it is held."""
    logs = logs_of(workdir)
    try:
        handle = lock.take(logs / _LOCK)
    except BlockingIOError:
        return None
    if _is_locked(logs / _TRAINS):  # by one that was begun by hand
        handle.close()
        return None
    handle.truncate(0)
    return handle


def sign(handle: IO[str], pid: int) -> None:
    """Says in a lock who holds it."""
    handle.write(f"{pid} {socket.gethostname()}\n")
    handle.flush()


def holder(workdir: str) -> Holder | None:
    """Who holds the lock of a folder, None for nobody; makes nothing."""
    logs = logs_of(workdir)
    if _is_locked(logs / _LOCK):
        pid, _, host = (logs / _LOCK).read_text(encoding="utf-8").strip().partition(" ")
        return Holder(int(pid), host) if pid.isdecimal() else Holder(0, "")
    return Holder(0, "") if _is_locked(logs / _TRAINS) else None


def _is_locked(path: pathlib.Path) -> bool:
    """Whether a process holds the lock of a file that is there."""
    if not path.exists():
        return False
    try:
        lock.take(path).close()
    except BlockingIOError:
        return True
    except OSError:
        pass  # It cannot be asked by this user.
    return False


def start(
    arguments: Sequence[str], workdir: str, *, environment: Mapping[str, str] | None = None
) -> subprocess.Popen | None:
    """Begins the process of a run; None where another one trains it.

    Args:
        arguments: of the process, which is the leader of a session of its own: a signal to this
            one's terminal reaches it as this one decides.
        workdir: of the run.
        environment: of the process; default that of this one.
    """
    handle = take(workdir)
    if handle is None:
        return None
    # Closed here, the lock is the child's alone, which has had it from its beginning.
    with handle, open(logs_of(workdir) / CONSOLE, "ab") as console:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            pass_fds=[handle.fileno()],
        )
        sign(handle, process.pid)
    return process


def exit_code(process: subprocess.Popen) -> int | None:
    """As a shell has it, 143 for SIGTERM; None of one that is at work."""
    code = process.poll()
    return 128 - code if code is not None and code < 0 else code


def last_words(workdir: str) -> str:
    """The line by which a run has said what was wrong, or else its last."""
    try:
        with open(logs_of(workdir) / CONSOLE, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip()]
    said = list(filter(_CAUSE.match, said)) or said
    return command.explain(ValueError(said[-1][:_MAX_WORDS])) if said else ""


def write_record(workdir: str, record: Record) -> None:
    """Writes down in a run's folder, local or a bucket, what became of its process."""
    content = json.dumps(typed_json.write(record)) + "\n"
    atomic.write_text(epath.Path(workdir) / "logs" / _RECORD, content)


def read_record(workdir: str) -> Record | None:
    """What `write_record` wrote; None where there is none, or one that was not written so.

    Raises:
        OSError: where it cannot be told whether there is one, or what it says.
    """
    try:
        content = json.loads(small_file.read_text(epath.Path(workdir) / "logs" / _RECORD))
        return typed_json.read(content, Record)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
