# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Trains runs on this machine to their last steps, for what comes after them."""

from collections.abc import Callable, Sequence

from f3tok_jax.sweeping import driver
from f3tok_jax.sweeping import job
from f3tok_jax.sweeping import places
from f3tok_jax.sweeping import plan


class TrainingStopped(Exception):
    """A run ended before its last step; `code` is train's."""

    def __init__(self, workdir: str, record: job.Record):
        ended = f"ended with exit code {record.code} ({record.words}): mend that, then"
        if record.code in job.LEFT:
            ended = "was told to leave:"
        super().__init__(f"training in {workdir} {ended} run the same command again")
        self.code = record.code


def finish(runs: Sequence[plan.Run], workdir: str, *, say: Callable[[str], None]) -> None:
    """Trains runs to their ends, those that are there already left out, one after the other.

    Args:
        runs: all of one plan.
        workdir: folder of their folders.
        say: where messages go.

    Raises:
        TrainingStopped: if one ended otherwise.
        ValueError: where something else trains in `workdir`.
    """
    with driver.alone(workdir):
        ended = driver.Driver(places.Place(kind="local"), say=say).train(runs)
    for run in runs:
        if run.name in ended and ended[run.name].state != job.DONE:
            raise TrainingStopped(run.workdir, ended[run.name])
    if len(ended) < len(runs):
        raise TrainingStopped(workdir, job.Record(state=job.STOPPED, code=job.LEFT[0]))
