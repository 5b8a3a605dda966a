# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Asks the runs of a sweep to save and leave, whoever began them."""

from collections.abc import Callable, Sequence
import os
import shlex
import subprocess
import time

from f3tok_jax.sweeping import job
from f3tok_jax.sweeping import places
from f3tok_jax.sweeping import plan

_POLL_SECONDS = 0.2


def here(workdir: str, names: Sequence[str], *, say: Callable[[str], None]) -> bool:
    """Asks the driver on this machine and all runs of it, and waits until they have left.

    Args:
        workdir: of the sweep.
        names: of the runs.
        say: where a line per event goes.

    Returns:
        Whether none is left.
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
    for name in asked:
        while job.holder(folders[name]):
            time.sleep(_POLL_SECONDS)
        say(f"{name}: has left")
    return not left


def elsewhere(place: places.Place, runs: Sequence[plan.Run], *, say: Callable[[str], None]) -> bool:
    """Asks, one after the other, the runs that were begun elsewhere and have not ended.

    Returns:
        Whether all were asked.
    """
    is_well = True
    for run in runs:
        record = job.read_record(run.workdir)
        if not record or not record.place or run.done_step is not None:
            continue
        command = place.stop_command(run, record.place)
        say(f"{run.name}: {shlex.join(command)}")
        is_well &= subprocess.run(command, env=place.environment, check=False).returncode == 0
    return is_well
