# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Who stands before process 0 of a run: any number of connections, none of which holds up another.

Whoever waits is asked each second whether it still does, and told so that process 0 does: a machine
that died without a word is given up at either end after some seconds of silence.
"""

from collections.abc import Callable
import contextlib
import dataclasses
import json
import selectors
import socket

from f3tok_jax.devices import agreement
from f3tok_jax.devices import cluster

PING, PONG = b"?\n", b"!\n"
LONGEST = 2**20  # bytes of a line; what is longer is not of a process of this run
SILENCE = 10.0  # seconds for a line, and for an answer
_BEAT = 1.0  # seconds from one question to the next
_PATIENCE = 2.0  # seconds in which a verdict must be taken


@dataclasses.dataclass(eq=False)
class _Peer:
    """A connection; of nobody yet where it has no number."""

    socket: socket.socket
    until: float  # when it is given up
    data: bytes = b""  # of its line, so far
    number: int = 0
    start: agreement.Start | None = None
    since: float = 0.0  # when it said its number
    heard: float = 0.0  # when it last answered


class Reception:
    """Process 0's: hears who arrives, who leaves, and who falls silent.

    Attributes:
        error: what is wrong with somebody who has arrived.
        starts: process -> how it starts, of those who wait.
    """

    def __init__(self, listener: socket.socket, seat: cluster.Seat, clock: Callable[[], float]):
        """Listens; the listener stays the caller's.

        Args:
            listener: at the coordinator's address.
            seat: of process 0.
            clock: seconds that never go back.
        """
        self.error: ValueError | None = None
        self._seat, self._clock, self._asked = seat, clock, clock()
        self._listener, self._peers = listener, set[_Peer]()
        self._seated: dict[int, _Peer] = {}
        self._selector = selectors.DefaultSelector()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)

    @property
    def starts(self) -> dict[int, agreement.Start]:
        return {number: peer.start for number, peer in self._seated.items()}

    @property
    def is_full(self) -> bool:
        """Whether all have arrived, though one may have died since without a word."""
        return len(self._seated) == self._seat.num_processes - 1

    @property
    def is_complete(self) -> bool:
        """Whether all have answered since the last one arrived, and nobody wants another's place."""
        here = [peer for peer in self._peers if peer.start]
        last = max((peer.since for peer in here), default=0.0)
        return len(here) == len(self._seated) and self.is_full and all(p.heard > last for p in here)

    def serve(self, seconds: float) -> None:
        """Hears all who have something to say; waits for somebody for `seconds`, at most a beat."""
        for key, _ in self._selector.select(min(seconds, _BEAT)):
            if key.data is None:
                self._accept()
            else:
                self._hear(key.data)
        now = self._clock()
        if now - self._asked >= _BEAT:
            self._asked = now
            for peer in filter(lambda peer: peer.start, self._peers):
                with contextlib.suppress(OSError):  # Who takes nothing will not answer either.
                    peer.socket.send(PING)
        for peer in [peer for peer in self._peers if now > peer.until]:
            self._drop(peer)
        self._seat_all()

    def tell(self, line: bytes) -> None:
        """Sends all who have arrived the last line, and waits until they have it."""
        self._selector.unregister(self._listener)
        for peer in filter(lambda peer: peer.start, self._peers):
            with contextlib.suppress(OSError):
                peer.socket.settimeout(_PATIENCE)
                peer.socket.sendall(line)
                peer.socket.shutdown(socket.SHUT_WR)
            peer.socket.setblocking(False)
        # A connection that is closed before its answers are read takes back what was sent.
        until = self._clock() + _PATIENCE
        while any(peer.start for peer in self._peers) and (left := until - self._clock()) > 0:
            for key, _ in self._selector.select(left):
                self._hear(key.data)

    def close(self) -> None:
        for peer in list(self._peers):
            self._drop(peer)
        self._selector.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # It has gone already.
            while True:
                made = self._listener.accept()[0]
                made.setblocking(False)
                peer = _Peer(made, self._clock() + SILENCE)
                self._peers.add(peer)
                self._selector.register(made, selectors.EVENT_READ, peer)

    def _hear(self, peer: _Peer) -> None:
        try:
            data = peer.socket.recv(2**16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            return self._drop(peer)
        if not peer.start:
            peer.data += data
            line, end, _ = peer.data.partition(b"\n")
            if not end and len(line) <= LONGEST:
                return  # Its time is that of the whole line.
            self._admit(peer, line)
            if not peer.start:
                return self._drop(peer)
            peer.since = self._clock()
            self._asked -= _BEAT  # It is asked at once.
        peer.heard = peer.since if peer.data else self._clock()
        peer.data, peer.until = b"", self._clock() + SILENCE

    def _admit(self, peer: _Peer, line: bytes) -> None:
        """Notes who it is, if it is of a run."""
        try:
            told = json.loads(line)
            number, count, host, facts = (told[k] for k in ("process", "count", "host", "facts"))
        except (ValueError, TypeError, KeyError, RecursionError):
            return  # Somebody else, who tries ports.
        if not (type(number) is type(count) is int and type(host) is str and type(facts) is dict):
            return
        peer.number, peer.start = number, agreement.Start(host, facts)
        if count != self._seat.num_processes or not 0 < number < count:
            self.error = ValueError(
                f"--num_processes must be one everywhere, got {self._seat.num_processes} in process "
                f"0 and {count} in process {number} ({host})"
            )

    def _seat_all(self) -> None:
        """Gives numbers to who wants them; two who want the same are wrong if both are alive."""
        for peer in sorted((peer for peer in self._peers if peer.start), key=lambda one: one.since):
            holder = self._seated.setdefault(peer.number, peer)
            # Who was restarted arrives again, maybe before it is known that it has died.
            if holder is not peer and holder.heard > peer.since:
                hosts = f"on {holder.start.host} and {peer.start.host}"
                self.error = self.error or ValueError(
                    f"--process_id must differ, got two processes {peer.number}, {hosts}"
                )

    def _drop(self, peer: _Peer) -> None:
        self._selector.unregister(peer.socket)
        peer.socket.close()
        self._peers.discard(peer)
        if self._seated.get(peer.number) is peer:
            del self._seated[peer.number]
