# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What the time of a session goes to: one word at each turn tells the ledger and the watchdog."""

from collections.abc import Callable
import threading
import time

from f3tok_jax.runs import ledger as ledger_lib
from f3tok_jax.training import watchdog as watchdog_lib

# In which signs of life are not expected: a library compiles, reads or waits for its own reasons.
_UNWATCHED = [kind for kind in ledger_lib.ONCE if kind != "statistics"]
_TELL_SECONDS = 5.0  # after which the ledger hears of a session in which nothing turns
_MOST_MARKS = 64  # of a session


class Timekeeper:
    """Time goes to one kind of ledger.ONCE and ledger.REPEATED at any moment, and so adds up.

    A context: at its end the ledger hears why.

    Attributes:
        ended: why the session ends, once that is known.
    """

    def __init__(
        self,
        book: ledger_lib.Book,
        watchdog: watchdog_lib.Watchdog,
        *,
        age: float = 0.0,
        chips: int = 1,
        device: str = "",
        price: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Counts the process' `age` as start.

        Args:
            book: that the session is written to.
            watchdog: that hears of signs of life.
            age: seconds since the process began.
            chips: that are trained on.
            device: what kind they are.
            price: dollars for a chip-hour, where it is known.
            clock: seconds that never go back.
        """
        self.ended = ""
        self._book, self._watchdog, self._clock = book, watchdog, clock
        self._facts = dict(start=time.time() - age, chips=chips, device=device, price=price)
        self._kind, self._since = ledger_lib.ONCE[0], clock()
        self._seconds = {self._kind: age}
        self._first = self._last = -1
        self._saved: list[ledger_lib.Mark] = []
        self._lock = threading.Lock()  # guards all that the thread reads
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="ledger", daemon=True)
        self._thread.start()

    def enter(self, kind: str) -> None:
        """From here on time goes to `kind`; a sign of life."""
        with self._lock:
            self._settle()
            self._kind = kind
        if kind in _UNWATCHED:
            self._watchdog.rest()
        else:
            self._watchdog.beat(kind)
        if self._book.is_due():
            self._book.write(self.session())

    def reached(self, step: int) -> None:
        """So many steps are taken; the first call says from where."""
        with self._lock:
            self._last = step
            self._first = step if self._first < 0 else self._first

    def saved(self, step: int) -> None:
        """What was spent until here is not lost once the run goes on from `step`."""
        with self._lock:
            self._settle()
            spent = {
                kind: self._seconds[kind] for kind in ledger_lib.REPEATED & self._seconds.keys()
            }
            self._saved.append(ledger_lib.Mark(step, spent))
            if len(self._saved) > _MOST_MARKS:
                del self._saved[1::2]

    def seconds(self, *kinds: str) -> float:
        """That went to some kinds so far, to all without any."""
        with self._lock:
            self._settle()
            return sum(self._seconds.get(kind, 0.0) for kind in kinds or self._seconds)

    def session(self, ended: str = "") -> ledger_lib.Session:
        """What the ledger knows of this session."""
        with self._lock:
            self._settle()
            return ledger_lib.Session(
                seconds=dict(self._seconds),
                first=self._first,
                last=self._last,
                saved=tuple(self._saved),
                ended=ended,
                **self._facts,
            )

    def ledger(self) -> ledger_lib.Ledger | None:
        """Of the run so far; None in a process that does not write it, or has not read it yet."""
        if (before := self._book.before) is None:
            return None
        return ledger_lib.Ledger(sessions=[*before, self.session()])

    def __enter__(self) -> "Timekeeper":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        """Writes why the session has ended: `ended`, or an error by its name."""
        self._stop.set()
        self._thread.join()
        self._book.write(self.session(kind.__name__ if kind else self.ended))
        self._book.close()

    def _settle(self) -> None:
        now = self._clock()
        self._seconds[self._kind] = self._seconds.get(self._kind, 0.0) + now - self._since
        self._since = now

    def _tell(self) -> None:
        while not self._stop.wait(_TELL_SECONDS):
            if self._book.is_due():
                self._book.write(self.session())
