# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Keeps the runs of a sweep going, so many at a time, until all have ended or it is told to leave."""

from collections.abc import Callable, Collection, Iterator, Sequence
import contextlib
import dataclasses
import os
import signal
import subprocess
import time

from data_pipelines import leaving
from f3tok_jax.sweeping import job
from f3tok_jax.sweeping import places
from f3tok_jax.sweeping import plan

_POLL_SECONDS = 0.2
_JUDGE_SECONDS = 5.0  # between two looks at the metrics
_ATTEMPTS = 5  # at the lock of a sweep, which whoever looks for its holder takes for a moment

# Of the runs that are at work, the names of those that are to be stopped, with why.
Judge = Callable[[Collection[plan.Run]], dict[str, str]]


@dataclasses.dataclass
class _Work:
    """A run that is at work, and where; why it is to be stopped, if it is."""

    run: plan.Run
    process: subprocess.Popen
    slot: str
    name: str
    pruned: str = ""


@dataclasses.dataclass
class Driver:
    """Trains runs.

    A run that fails stops no other. One that another process trains, of a driver that was killed or
    begun by hand, is waited for and then looked at again. What asks this process to leave is passed
    on to all of them, and waited for.

    Attributes:
        place: where runs are trained.
        judge: which are to be stopped early; None for none ever.
        say: where a line per event goes.
    """

    place: places.Place
    judge: Judge | None = None
    say: Callable[[str], None] = print
    told: bool = False  # to leave
    _ended: dict[str, job.Record] = dataclasses.field(default_factory=dict)
    _at_work: list[_Work] = dataclasses.field(default_factory=list)
    _waited_for: set[str] = dataclasses.field(default_factory=set)
    _asked: set[str] = dataclasses.field(default_factory=set)
    _judged: float = 0.0  # when, by time.monotonic

    def train(self, runs: Sequence[plan.Run]) -> dict[str, job.Record]:
        """Trains what is not trained yet; name -> what became of each, without what never began."""
        done = [run for run in runs if run.done_step is not None]
        self._ended = {run.name: job.Record(state=job.DONE) for run in done}
        if done:
            self.say(f"{len(done)} of {len(runs)} runs are done: they have all their steps")
        waiting = [run for run in runs if run.name not in self._ended]
        slots = self.place.slots(runs)
        again = leaving.AtOnce(lambda number: self._leave())
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        with leaving.handling(dict.fromkeys(numbers, again)):
            while self._step(waiting, slots, len(runs)):
                time.sleep(_POLL_SECONDS)
        return self._ended

    def _leave(self) -> None:
        """Asks all runs to save and leave; may be called in any thread, and more than once."""
        self.told = True
        for work in list(self._at_work):
            work.process.terminate()

    def _step(self, waiting: list[plan.Run], slots: list[str], num: int) -> bool:
        """Looks at all runs once; returns whether there is more to wait for."""
        for work in [work for work in self._at_work if job.exit_code(work.process) is not None]:
            self._at_work.remove(work)
            slots.append(work.slot)
            self._end(work, num)
        held = self._held(waiting)
        if self.told:
            return bool(self._at_work or [run for run in held if self._is_asked(run)])
        for run in [run for run in waiting if run not in held]:
            if not slots or len(self._at_work) + len(held) >= (self.place.num or num):
                break
            if run.name in self._waited_for and run.done_step is not None:
                waiting.remove(run)
                self._keep(run, job.Record(state=job.DONE), num)
            elif self._begin(run, slots[0]):
                waiting.remove(run)
                slots.pop(0)
        self._prune()
        return bool(self._at_work or waiting)

    def _held(self, waiting: Sequence[plan.Run]) -> list[plan.Run]:
        """Those that another process trains, which is said once."""
        held = []
        for run in waiting:
            if holder := job.holder(run.workdir):
                held.append(run)
                if run.name not in self._waited_for:
                    self._waited_for.add(run.name)
                    self.say(f"{run.name}: is trained by {holder}, which is waited for")
        return held

    def _is_asked(self, run: plan.Run) -> bool:
        """Passes on, once, to a run that another driver began, what asks this one to leave.

        Returns:
            Whether it can be waited for: it is there, and could be asked.
        """
        holder = job.holder(run.workdir)
        if not holder or run.name in self._asked:
            return bool(holder and holder.tell(0))
        self._asked.add(run.name)
        is_told = holder.tell()
        if not is_told:
            self.say(f"{run.name}: {holder} cannot be told from here to leave")
        return is_told

    def _begin(self, run: plan.Run, slot: str) -> bool:
        """Starts a run; returns False where somebody was quicker."""
        name = self.place.name_of(run, slot)
        arguments = self.place.command(run, name)
        process = job.start(arguments, run.workdir, environment=self.place.environment)
        if process is None:
            return False
        job.write_record(run.workdir, job.Record(state=job.RUNNING, place=name))
        self._at_work.append(_Work(run, process, slot, name))
        where = f" on {name}" if name else ""
        console = job.logs_of(run.workdir) / job.CONSOLE
        self.say(f"{run.name}: begun{where}, process {process.pid}, {console}")
        if self.told:  # meanwhile
            process.terminate()
        return True

    def _end(self, work: _Work, num: int) -> None:
        """Keeps what became of a run, and says it."""
        code, run = job.exit_code(work.process), work.run
        state, words = job.FAILED, job.last_words(run.workdir)
        if code == 0:
            state, words = job.DONE, ""
        elif code in job.LEFT:
            state, words = (job.PRUNED, work.pruned) if work.pruned else (job.STOPPED, "")
        self._keep(run, job.Record(state=state, code=code, words=words, place=work.name), num)

    def _keep(self, run: plan.Run, record: job.Record, num: int) -> None:
        job.write_record(run.workdir, record)
        self._ended[run.name] = record
        said = (
            f"failed with exit code {record.code}" if record.state == job.FAILED else record.state
        )
        words = f": {record.words}" if record.words else ""
        self.say(f"{run.name}: {said}{words} ({len(self._ended)} of {num} have ended)")

    def _prune(self) -> None:
        """Tells runs to leave that the judge does not let go on."""
        if not self.judge or time.monotonic() < self._judged + _JUDGE_SECONDS:
            return
        judged = {work.run.name: work for work in self._at_work if not work.pruned}
        for name, why in self.judge([work.run for work in judged.values()]).items():
            judged[name].pruned = why
            judged[name].process.terminate()
        self._judged = time.monotonic()


@contextlib.contextmanager
def alone(workdir: str) -> Iterator[None]:
    """Keeps a second driver out of a sweep.

    Raises:
        ValueError: where one is at work in it.
    """
    for _ in range(_ATTEMPTS):
        if handle := job.take(workdir):
            break
        time.sleep(_POLL_SECONDS)
    else:
        raise ValueError(
            f"--workdir must not be in use, got {workdir}, which {job.holder(workdir)} sweeps; "
            "end that one first by --stop, or wait for it"
        )
    with handle:
        job.sign(handle, os.getpid())
        yield
