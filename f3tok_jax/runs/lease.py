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

from etils import epath

from data_pipelines.records import small_file

_NAME = "lease.json"
_BEAT = 10.0  # seconds
_WATCHED = 45.0  # seconds in which a run at work beats, though a beat or two get lost


class Taken(ValueError):
    """Another run is at work in the folder, or has taken it over."""


class Lease:
    """The right to write to a folder; it beats on a thread of its own until `give_back`."""

    def __init__(
        self,
        folder: epath.Path,
        *,
        say: Callable[[str], None] = print,
        sleep: Callable[[float], None] = time.sleep,
    ):
        """Takes the folder's lease, once nobody else has it.

        Args:
            folder: of logs, in the run's folder.
            say: where it is said that a lease is watched.
            sleep: waits for seconds.

        Raises:
            Taken: where another run is at work.
            OSError: where the folder cannot be written.
        """
        self._path = folder / _NAME
        self._own = {"id": secrets.token_hex(8), "host": socket.gethostname()}
        self._beats, self._taker = 0, ""
        self._ended = threading.Event()
        self._watch(say, sleep)
        self._write()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises Taken where another run has the folder by now."""
        if self._taker:
            raise Taken(
                f"{self._path.parent.parent} was taken over by a run on {self._taker}, to which this "
                "one seemed dead: it saves nothing more; let that one go on, or end it first"
            )

    def give_back(self) -> None:
        """Ends the beat, and lets the next one in without waiting."""
        self._ended.set()
        self._thread.join(_BEAT)
        with contextlib.suppress(OSError):
            if self._read().get("id") == self._own["id"]:
                self._path.unlink()

    def _watch(self, say: Callable[[str], None], sleep: Callable[[float], None]) -> None:
        before = self._read()
        if not before:
            return
        who = f"a run on {before.get('host', 'another host')}"
        say(
            f"{who} has left its lease in {self._path}: watching for {_WATCHED:g} s if it is at work"
        )
        for _ in range(round(_WATCHED / _BEAT) + 1):
            sleep(_BEAT)
            now = self._read()
            if not now:
                return
            if now != before:
                raise Taken(
                    f"--workdir must not be in use, got {self._path.parent.parent}, in which {who} "
                    "trains; end that one first, or give another folder"
                )

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT) and not self._taker:
            with contextlib.suppress(OSError):
                found = self._read()
                if found.get("id", self._own["id"]) != self._own["id"]:
                    self._taker = found.get("host") or "another host"
                elif not self._ended.is_set():
                    self._beats += 1
                    self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._own | {"beats": self._beats}))

    def _read(self) -> dict[str, str]:
        """What the file says; {} where there is none."""
        try:
            found = json.loads(small_file.read_text(self._path))
        except FileNotFoundError:
            return {}
        except ValueError:
            found = None  # Of nobody's run, or of one that is being written.
        return found if isinstance(found, dict) and found else {"host": "another host"}
