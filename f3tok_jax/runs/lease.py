# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Who trains in a folder of a bucket, which has no locks: a file with a beat that its holder counts up.

Nobody's clock is compared with another's. Who comes watches the beat: one that goes on is of a run at
work, and refuses; one that stands was left by a run that died. A holder that was taken for dead, cut
off from its bucket for so long, finds another's name in the file, and saves nothing more.
"""

from collections.abc import Callable
import contextlib
import json
import secrets
import socket
import threading
import time
from typing import Any

from etils import epath

from data_pipelines import command
from data_pipelines.records import small_file

_NAME = "lease.json"
_BEAT = 10.0  # seconds
_WATCHED = 45.0  # seconds in which a run at work beats, though a beat or two get lost
_PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds, after each of which a bucket that failed is asked again


class Taken(ValueError):
    """Another run is at work in the folder, or has taken it over, as far as can be seen."""


class Lease:
    """The right to write to a folder; it beats on a thread of its own until `give_back`."""

    def __init__(
        self,
        folder: epath.Path,
        *,
        say: Callable[[str], None] = print,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Takes the folder's lease, once nobody else has it.

        Args:
            folder: of logs, in the run's folder.
            say: where it is said that a lease is watched.
            sleep: waits for seconds.
            clock: seconds that never go back.

        Raises:
            Taken: where another run is at work.
            Exception: of the bucket's own library, where the folder cannot be read or written
                after some tries.
        """
        self._path = folder / _NAME
        self._own = {"id": secrets.token_hex(8), "host": socket.gethostname()}
        self._sleep, self._clock = sleep, clock
        self._beats, self._taker = 0, ""
        self._ended = threading.Event()
        self._watch(say)
        self._patiently(self._write)
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Reads the lease; raises Taken where another run has the folder by now, or may have it."""
        with contextlib.suppress(Exception):  # A young one that cannot be read is nobody else's.
            self._look()
        if self._is_old():
            self._catch_up()
        if self._taker:
            raise Taken(
                f"{self._path.parent.parent} was taken over by a run on {self._taker}, to which this "
                "one seemed dead: it saves nothing more; let that one go on, or end it first"
            )

    def give_back(self) -> None:
        """Ends the beat, and lets the next one in without waiting."""
        self._ended.set()
        self._thread.join(_BEAT)
        with contextlib.suppress(Exception):
            if self._read().get("id") == self._own["id"]:
                self._path.unlink()

    def _catch_up(self) -> None:
        """The beat that is late; who watches may have taken the lease where none is possible."""
        try:
            self._patiently(self._renew)
        except Exception as error:  # Libraries of buckets raise errors of their own.
            raise Taken(
                f"{self._path} must be read before {self._path.parent.parent} is written to, got "
                f"for {self._clock() - self._written:.0f} s: {command.explain(error)}; another run "
                "may have taken it over: start again once the bucket answers"
            ) from error

    def _watch(self, say: Callable[[str], None]) -> None:
        before = self._patiently(self._read)
        if not before:
            return
        who = f"a run on {before.get('host', 'another host')}"
        say(
            f"{who} has left its lease in {self._path}: watching for {_WATCHED:g} s if it is at work"
        )
        for _ in range(round(_WATCHED / _BEAT) + 1):
            self._sleep(_BEAT)
            now = self._patiently(self._read)
            if not now:
                return
            if now != before:
                raise Taken(
                    f"--workdir must not be in use, got {self._path.parent.parent}, in which {who} "
                    "trains; end that one first, or give another folder"
                )

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT) and not self._taker:
            with contextlib.suppress(Exception):  # Whatever it is, the next beat may be heard.
                self._renew()

    def _renew(self) -> None:
        """One beat, where the lease is still this run's."""
        self._look()
        if not self._taker and not self._ended.is_set():
            self._beats += 1
            self._write()

    def _look(self) -> None:
        """Notes who has taken the lease; one that is gone was taken, and given back."""
        found = self._read()
        if not found or found.get("id", self._own["id"]) != self._own["id"]:
            self._taker = found.get("host") or "another host"

    def _is_old(self) -> bool:
        """Whether the last beat is so old that who watches may take over before the next."""
        return self._clock() - self._written > _WATCHED / 2

    def _patiently(self, do: Callable[[], Any]) -> Any:
        """What `do` returns, of a bucket that may fail a few times."""
        for pause in _PAUSES:
            with contextlib.suppress(Exception):
                return do()
            self._sleep(pause)
        return do()

    def _write(self) -> None:
        began = self._clock()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._own | {"beats": self._beats}))
        self._written = began

    def _read(self) -> dict[str, str]:
        """What the file says; {} where there is none."""
        try:
            found = json.loads(small_file.read_text(self._path))
        except FileNotFoundError:
            return {}
        except ValueError:
            found = None  # Of nobody's run, or of one that is being written.
        return found if isinstance(found, dict) and found else {"host": "another host"}
