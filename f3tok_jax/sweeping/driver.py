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

from data_pipelines import command
from data_pipelines import leaving
from f3tok_jax.sweeping import job
from f3tok_jax.sweeping import places
from f3tok_jax.sweeping import plan
from f3tok_jax.sweeping import stopping

_POLL_SECONDS = 0.2
_JUDGE_SECONDS = {True: 5.0, False: 60.0}  # between two looks at the metrics, here and elsewhere
_PATIENCE_SECONDS = 60.0  # with a bucket that does not answer while nothing is at work
_ATTEMPTS = 5  # at the lock of a sweep, which whoever looks for its holder takes for a moment

# Of the runs that are at work, the names of those that are to be stopped, with why.
Judge = Callable[[Collection[plan.Run]], dict[str, str]]


@dataclasses.dataclass
class _Work:
    """A run that is at work, and where; why it was told to stop, or is being asked to, if it is."""

    run: plan.Run
    process: subprocess.Popen
    slot: str
    pruned: str = ""
    why: str = ""
    asking: stopping.Asking | None = None

    @property
    def has_ended(self) -> bool:
        """Whether all is known of its end: what asks it to stop says whether that was why."""
        return self.asking is None and job.exit_code(self.process) is not None


@dataclasses.dataclass
class Driver:
    """Trains runs.

    A run that fails stops no other. One that another process trains, of a driver that was killed or
    begun by hand, is waited for and then looked at again. What asks this process to leave is passed
    on to all of them, and waited for. What cannot be looked at, as a bucket for a while, is said and
    looked at again.

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
    _homes: dict[str, str] = dataclasses.field(default_factory=dict)
    # Name -> the slice that a run which has ended, but not at its last step, was launched on.
    _before: dict[str, str] = dataclasses.field(default_factory=dict)
    # Name -> what went wrong with it last, and since when something does.
    _troubles: dict[str, tuple[str, float]] = dataclasses.field(default_factory=dict)
    _judged: float = 0.0  # when, by time.monotonic

    def train(
        self, runs: Sequence[plan.Run], others: Sequence[plan.Run] = ()
    ) -> dict[str, job.Record]:
        """Trains what is not trained yet.

        Args:
            runs: to train.
            others: of the same plan, which are left alone where they are.

        Returns:
            Name -> what became of each, without what never began.

        Raises:
            ValueError: where the slices that there are cannot be theirs.
        """
        done = [run for run in runs if run.done_step is not None]
        self._ended = {run.name: job.Record(state=job.DONE) for run in done}
        if done:
            self.say(f"{len(done)} of {len(runs)} runs are done: they have all their steps")
        waiting = [run for run in runs if run.name not in self._ended]
        slots = self.place.slots(len(runs))
        self._homes = self._find_homes(waiting, others, slots)
        again = leaving.AtOnce(lambda number: self._leave())
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        with leaving.handling(dict.fromkeys(numbers, again)):
            while self._step(waiting, slots, len(runs)):
                time.sleep(_POLL_SECONDS)
        return self._ended

    def _find_homes(
        self, runs: Sequence[plan.Run], others: Sequence[plan.Run], slots: Sequence[str]
    ) -> dict[str, str]:
        """Name of a run -> the slice on which it may still be trained, though what began it is gone."""
        if self.place.kind != "tpu":
            return {}
        records = {run.name: job.read_record(run.workdir) for run in (*runs, *others)}
        homes = {name: one.place for name, one in records.items() if one and one.is_running}
        for run in others:
            if run.name in homes and run.finished_step is not None:
                del homes[run.name]
        for run in runs:
            if (home := homes.get(run.name, slots[0])) not in slots:
                raise ValueError(
                    f"{run.name} was begun on the slice {home}, got the slices {', '.join(slots)}: "
                    "give --tpu and --max_parallel as before, or --stop it with those"
                )
        taken = {homes[run.name]: run.name for run in others if run.name in homes}
        # A work folder is launched on one slice, as long as that is there.
        ended = {run.name: records[run.name] for run in runs if run.name not in homes}
        self._before = {
            name: one.place
            for name, one in ended.items()
            if one and one.place in slots and one.place not in taken
        }
        if runs and taken.keys() >= set(slots):
            names = ", ".join(f"{taken[slot]} on {slot}" for slot in slots)
            raise ValueError(
                f"a slice must be free, got {names}, which may still be at work there: name that run "
                "to --only too, --stop it, or give another --tpu"
            )
        return homes

    def _leave(self) -> None:
        """Asks all runs to save and leave; may be called in any thread, and more than once."""
        self.told = True
        for work in list(self._at_work):
            work.process.terminate()

    def _step(self, waiting: list[plan.Run], slots: list[str], num: int) -> bool:
        """Looks at all runs once; returns whether there is more to wait for."""
        self._hear()
        for work in [work for work in self._at_work if work.has_ended]:
            with self._patient(work.run.name):
                self._end(work, num)
                self._at_work.remove(work)
                slots.append(work.slot)
        held = self._held(waiting)
        if self.told:
            return bool(self._at_work or [run for run in held if self._is_asked(run)])
        for run in [run for run in waiting if run not in held]:
            with self._patient(run.name):
                if run.name in self._waited_for and run.done_step is not None:
                    waiting.remove(run)
                    self._keep(run, job.Record(state=job.DONE), num)
                elif len(self._at_work) + len(held) >= (self.place.num or num):
                    break
                elif (slot := self._slot(run, slots)) is not None and self._begin(run, slot):
                    waiting.remove(run)
                    slots.remove(slot)
                    self._homes.pop(run.name, None)
        self._prune()
        return bool(self._at_work or waiting)

    @contextlib.contextmanager
    def _patient(self, name: str) -> Iterator[None]:
        """Says what goes wrong with what is named, once; the next turn tries again.

        A bucket may not answer for a while, which is no reason to leave runs without their driver.
        When none is at work, it is waited for no longer than _PATIENCE_SECONDS.
        """
        try:
            yield
        except Exception as error:  # Every file system has errors of its own.
            words = command.explain(error)
            said, since = self._troubles.get(name, ("", time.monotonic()))
            if words != said:
                self.say(f"{name}: {words}; that is tried again")
            self._troubles[name] = words, since
            is_busy = any(job.exit_code(work.process) is None for work in self._at_work)
            if not is_busy and (self.told or time.monotonic() > since + _PATIENCE_SECONDS):
                raise
        else:
            self._troubles.pop(name, None)

    def _slot(self, run: plan.Run, slots: Sequence[str]) -> str | None:
        """Where a run may begin: where it was before, else where none may still be at work."""
        taken = {home for name, home in self._homes.items() if name != run.name}
        home = self._homes.get(run.name) or self._before.get(run.name)
        if home is not None:
            return home if home in slots and home not in taken else None
        return next((slot for slot in slots if slot not in taken), None)

    def _held(self, waiting: Sequence[plan.Run]) -> list[plan.Run]:
        """Those that another process trains, which is said once."""
        held = []
        for run in waiting:
            with self._patient(f"the lock of {run.name}"):
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
        arguments = self.place.command(run, slot)
        process = job.start(arguments, run.workdir, environment=self.place.environment)
        if process is None:
            return False
        self._write(run, job.Record(state=job.RUNNING, place=slot))
        self._at_work.append(_Work(run, process, slot))
        where = f" on {slot}" if slot else ""
        console = job.logs_of(run.workdir) / job.CONSOLE
        self.say(f"{run.name}: begun{where}, process {process.pid}, {console}")
        if self.told:  # meanwhile
            process.terminate()
        return True

    def _end(self, work: _Work, num: int) -> None:
        """Keeps what became of a run, and says it."""
        code, run, is_here = job.exit_code(work.process), work.run, self.place.is_here
        state, words = job.FAILED, job.last_words(run.workdir)
        # What follows a workload that was deleted can only say that it is gone.
        has_left = code in job.LEFT or (work.pruned and self.place.kind == "xpk")
        if code == 0 and run.finished_step is not None:
            state, words = job.DONE, ""
        elif code == 0:
            words = f"{run.workdir} does not hold its last step, {run.config.num_steps}"
        elif work.pruned and has_left:
            state, words = job.PRUNED, work.pruned
        elif code in job.LEFT:
            # Elsewhere a run goes on without what began it.
            is_left = self.told and not is_here and code != job.LEFT[-1]
            state, words = job.RUNNING if is_left else job.STOPPED, ""
        self._keep(run, job.Record(state=state, code=code, words=words, place=work.slot), num)

    def _write(self, run: plan.Run, record: job.Record) -> None:
        """Writes down what a run does; where that cannot be, the runs go on."""
        try:
            job.write_record(run.workdir, record)
        except Exception as error:  # Every file system has errors of its own.
            self.say(f"{run.name}: nothing is written down of it: {command.explain(error)}")

    def _keep(self, run: plan.Run, record: job.Record, num: int) -> None:
        self._write(run, record)
        self._ended[run.name] = record
        said = record.state + f" with exit code {record.code}" * (record.state == job.FAILED)
        words = f": {record.words}" if record.words else ""
        so_far = f"({len(self._ended)} of {num} have ended)"
        if record.is_running:
            said, so_far = "goes on", f"on {record.place}"
        self.say(f"{run.name}: {said}{words} {so_far}")

    def _hear(self) -> None:
        """What became of asking runs elsewhere to stop, as far as that is known."""
        for work in [work for work in self._at_work if work.asking]:
            answer = work.asking.answer()
            if answer == "":
                work.pruned = work.why
            elif answer is not None:
                self.say(f"{work.run.name}: is not stopped yet, as {answer}; that is tried again")
            if answer is not None:
                work.asking = None

    def _prune(self) -> None:
        """Tells runs to leave that the judge does not let go on."""
        if not self.judge or time.monotonic() < self._judged + _JUDGE_SECONDS[self.place.is_here]:
            return
        self._judged = time.monotonic()
        judged = {one.run.name: one for one in self._at_work if not (one.pruned or one.asking)}
        with self._patient("the judge of runs"):
            for name, why in self.judge([work.run for work in judged.values()]).items():
                work = judged[name]
                if self.place.is_here:
                    work.pruned = why
                    work.process.terminate()
                else:
                    work.why, work.asking = why, stopping.Asking(self.place, work.run, work.slot)


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
