# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the time of a run went to, over all its restarts: ledger.jsonl, a line per session.

A session is one process of the run's first host, from its start until its work is done. Its line is
written anew every half second, in buckets every half minute, and a kill takes no more than that. What
is damaged or missing costs the sessions that it told of, and never the run.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import errno
import functools
import io
import itertools
import math
import time

from etils import epath
import numpy as np

from data_pipelines.records import atomic
from data_pipelines.records import small_file
from f3tok_jax.runs import background
from f3tok_jax.runs import sealed_lines
from f3tok_jax.runs import typed_json

NAME = "ledger.jsonl"
# What the time of a session goes to. "start": imports, opening data, agreement of the processes.
ONCE = ("start", "statistics", "restore", "compile", "profile")
# What is done once more where it was done after the step from which a run goes on.
REPEATED = ("data", "step", "evaluation", "samples", "checkpoint")
# Of a whole run: what was done in vain, and what lies between two sessions.
LOST, DOWN = "lost", "down"

_LEAST_SECONDS = {False: 0.5, True: 30.0}  # from one writing to the next, on disks and in buckets
_CLOSE_SECONDS = 20.0  # for the last line
_WHAT = f"states of {NAME}"


@dataclasses.dataclass(frozen=True)
class Mark:
    """What a session had spent on each of REPEATED when it had saved a step."""

    step: int
    seconds: Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Session:
    """One start of a run.

    Attributes:
        start: of its process, seconds since the epoch.
        seconds: kind -> that went to it so far; they add up to the time since `start`.
        first: steps that were taken when its loop began, -1 before.
        last: steps that are taken.
        saved: in order, of its checkpoints.
        chips: that it trains on.
        device: what kind they are.
        price: dollars for a chip-hour; None where nobody has said it.
        ended: why; "" of one that runs, was killed, or left before its first step.
    """

    start: float
    seconds: Mapping[str, float]
    first: int = -1
    last: int = -1
    saved: tuple[Mark, ...] = ()
    chips: int = 1
    device: str = ""
    price: float | None = None
    ended: str = ""

    @property
    def wall_seconds(self) -> float:
        return sum(self.seconds.values())

    @property
    def end(self) -> float:
        """Seconds since the epoch at which it was seen last."""
        return self.start + self.wall_seconds

    def kept(self, step: int) -> dict[str, float]:
        """What it had spent on each of REPEATED when `step` was taken, between its marks a share."""
        spent = {kind: self.seconds.get(kind, 0.0) for kind in REPEATED}
        if self.ended and step >= self.last:
            return spent
        marks = [Mark(self.first, {}), *self.saved]
        if self.last > marks[-1].step:
            marks.append(Mark(self.last, spent))
        steps = [mark.step for mark in marks]
        at = lambda kind: np.interp(step, steps, [mark.seconds.get(kind, 0.0) for mark in marks])
        return {kind: float(at(kind)) for kind in REPEATED}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ledger:
    """What a run has spent so far.

    Attributes:
        sessions: in the order of their starts.
        num_damaged: lines that tell nothing.
    """

    sessions: Sequence[Session] = ()
    num_damaged: int = 0

    @functools.cached_property
    def seconds(self) -> dict[str, float]:
        """Kind -> seconds, those of LOST and DOWN among them: together they are `wall_seconds`.

        LOST is what was done after the step from which a later session went on. DOWN is the time
        between two sessions, in which a slice may have been gone, kept idle, or waited for; what a
        killed session had not written yet, and the end of a process behind its work, are in it.
        A session that went on when the next had begun counts until then: it was cut off, and what
        does not stay of it is lost.
        """
        totals = dict.fromkeys((*ONCE, *REPEATED, LOST, DOWN), 0.0)
        goes_on_from = [
            min(
                (later.first for later in self.sessions[index + 1 :] if later.first >= 0),
                default=-1,
            )
            for index in range(len(self.sessions))
        ]
        nexts = [*self.sessions[1:], None]
        for session, after, step in zip(self.sessions, nexts, goes_on_from):
            kept = session.kept(step) if step >= 0 else session.seconds
            stays = {kind: kept.get(kind, spent) for kind, spent in session.seconds.items()}
            wall = session.wall_seconds
            if after and after.start >= session.start:  # Clocks of two hosts may differ.
                wall = min(wall, after.start - session.start)
            fits = min(1.0, wall / (sum(stays.values()) or 1.0))
            for kind, spent in stays.items():
                totals[kind] = totals.get(kind, 0.0) + fits * spent
            totals[LOST] += wall - fits * sum(stays.values())
        for before, after in itertools.pairwise(self.sessions):
            totals[DOWN] += max(0.0, after.start - before.end)  # Clocks of two hosts may differ.
        return totals

    @property
    def wall_seconds(self) -> float:
        """From the start of the first session until the last one was seen last."""
        return sum(self.seconds.values())

    @property
    def goodput(self) -> float:
        """Share of the sessions' time that went to steps that stay; 0 without sessions."""
        up = self.wall_seconds - self.seconds[DOWN]
        return self.seconds["step"] / up if up else 0.0

    @property
    def chip_hours(self) -> float:
        """Of all sessions; chips that were kept in between are not known."""
        return sum(session.chips * session.wall_seconds for session in self.sessions) / 3600

    @property
    def dollars(self) -> float | None:
        """Price of `chip_hours`; None where a session does not say its own."""
        if not self.sessions or any(session.price is None for session in self.sessions):
            return None
        return sum(one.chips * one.wall_seconds / 3600 * one.price for one in self.sessions)


def read(workdir: str) -> Ledger:
    """The ledger of a run folder, local or a bucket; an empty one where there is none to be read."""
    try:
        lines = list(_lines(epath.Path(workdir) / NAME))
    except (OSError, ValueError):
        return Ledger()
    sessions = [session for _, session in lines if session]
    return Ledger(sessions=sessions, num_damaged=len(lines) - len(sessions))


def _lines(path: epath.Path) -> Iterator[tuple[bytes, Session | None]]:
    """Each line as it stands there, and the session that it tells of; None where it is damaged."""
    if not path.exists():
        return
    for line in sealed_lines.read(io.BytesIO(small_file.read_bytes(path))):
        try:
            yield line.data, typed_json.read(line.content or {}, Session)
        except (ValueError, RecursionError):
            yield line.data, None


class Book:
    """Writes the line of a session, beside those of earlier ones, in the background.

    A disk that is full, gone or stands still costs the ledger, and never the run: no method raises,
    or waits for longer than is said.
    """

    def __init__(
        self,
        workdir: str,
        *,
        is_writer: bool = True,
        may_write: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = print,
    ):
        """Reads what is there, in the background.

        Args:
            workdir: run folder, local or a bucket.
            is_writer: whether this process writes at all.
            may_write: raises where the folder is another run's by now.
            say: where messages to the user go.
        """
        self.before: Sequence[Session] | None = None  # earlier sessions, once they are read
        self._path = epath.Path(workdir) / NAME
        self._data = b""  # of their lines
        self._newest: Session | None = None  # that was handed over
        self._background = background.Background(say) if is_writer else None
        self._may_write, self._is_remote = may_write, "://" in workdir
        self._least = _LEAST_SECONDS[self._is_remote]
        self._written = -math.inf
        if is_writer:
            self._background.add(_WHAT, self._open)

    def is_due(self) -> bool:
        """Whether the state that was written last is old enough to be replaced."""
        return bool(self._background) and time.monotonic() - self._written >= self._least

    def write(self, session: Session) -> None:
        """Writes the session in the place of what was written of it before."""
        if self._background:
            self._written, self._newest = time.monotonic(), session
            self._background.add(_WHAT, functools.partial(self._write, session))

    def close(self) -> None:
        """Waits, not for ever, until all is written."""
        if self._background:
            self._background.close(_CLOSE_SECONDS)
            self._background = None

    def _open(self) -> None:
        """Keeps the lines that are whole; a disk that cannot be read now is asked again."""
        try:
            lines = list(_lines(self._path))
        except ValueError as error:  # It is no file.
            self._background.note(f"{NAME} begins anew: {error}")
            lines = []
        whole = [(data, session) for data, session in lines if session]
        if len(whole) < len(lines):
            self._background.note(f"{len(lines) - len(whole)} lines of {NAME} were not whole")
        self._data = b"".join(data for data, _ in whole)
        self.before = [session for _, session in whole]

    def _write(self, session: Session) -> None:
        if self.before is None:
            self._open()
        if not self._path.parent.exists() and not self._is_remote:
            raise FileNotFoundError(errno.ENOENT, "it was moved or removed", self._path.parent)
        if session is self._newest:  # A disk that was behind gets the newest state alone.
            self._may_write()
            line = sealed_lines.make(typed_json.write(session))
            atomic.write_bytes(self._path, self._data + line)
