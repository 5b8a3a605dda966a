# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Asks the runs of a sweep to save and leave, whoever began them."""

from collections.abc import Callable, Sequence
import os
import shlex
import signal
import subprocess
import time

from f3tok_jax.sweeping import job
from f3tok_jax.sweeping import places
from f3tok_jax.sweeping import plan

_POLL_SECONDS = 0.2
_LIMIT_SECONDS = 900.0  # in which a run must have saved and left, or been asked to elsewhere


class Asking:
    """What asks a run elsewhere to save and leave: a process, ended where it takes too long."""

    def __init__(self, place: places.Place, run: plan.Run, slot: str):
        self._process = subprocess.Popen(
            place.stop_command(run, slot),
            stdin=subprocess.DEVNULL,
            env=place.environment,
            start_new_session=True,
        )
        self._until = time.monotonic() + _LIMIT_SECONDS

    def answer(self) -> str | None:
        """ "" where the run was asked, else in words why not; None where that is not known yet."""
        code = self._process.poll()
        if code is None and time.monotonic() < self._until:
            return None
        if code is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            return f"its stop command has not ended in {_LIMIT_SECONDS:g} s"
        return f"its stop command has ended with exit code {code}" if code else ""


def here(workdir: str, names: Sequence[str], *, say: Callable[[str], None]) -> bool:
    """Asks the driver on this machine and all runs of it, and waits until they have left.

    Args:
        workdir: of the sweep.
        names: of the runs.
        say: where a line per event goes.

    Returns:
        Whether all have left.
    """
    # The driver first, which would begin others, and passes it on.
    folders = {"the sweep": workdir} | {name: os.path.join(workdir, name) for name in names}
    asked, left = [], []
    for name, folder in folders.items():
        if not (holder := job.holder(folder)):
            continue
        is_told = holder.tell()
        (asked if is_told else left).append(name)
        say(f"{name}: {holder} {'is asked' if is_told else 'cannot be told from here'} to leave")
    until = time.monotonic() + _LIMIT_SECONDS
    for name in asked:
        while (is_there := job.holder(folders[name])) and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
        if is_there:
            left.append(name)
        say(f"{name}: has {f'not left in {_LIMIT_SECONDS:g} s' if is_there else 'left'}")
    return not left


def elsewhere(place: places.Place, runs: Sequence[plan.Run], *, say: Callable[[str], None]) -> bool:
    """Asks, one after the other, the runs that were begun elsewhere and have not ended.

    Returns:
        Whether all were asked.
    """
    is_well = True
    for run in runs:
        record = job.read_record(run.workdir)
        if not (record and record.is_running and record.place) or run.finished_step is not None:
            continue
        say(f"{run.name}: {shlex.join(place.stop_command(run, record.place))}")
        asking = Asking(place, run, record.place)
        while (answer := asking.answer()) is None:
            time.sleep(_POLL_SECONDS)
        if answer:
            say(f"{run.name}: is not stopped, as {answer}")
        is_well &= not answer
    return is_well
