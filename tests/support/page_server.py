# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A page that is really served, on any port, in a thread; and what a browser asks of it."""

from collections.abc import Iterator
import contextlib
import http.client
import json
import threading
import time
from typing import NamedTuple

from f3tok_jax.serving import server as server_lib


class Answer(NamedTuple):
    """What came back."""

    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def found(self) -> dict:
        return json.loads(self.body)


class Served(NamedTuple):
    """A server that listens."""

    port: int

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """GETs, or POSTs a body; underscores in names of headers are hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("GET" if body is None else "POST", path, body, named)
            response = connection.getresponse()
            low = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, low, response.read())


@contextlib.contextmanager
def served(app) -> Iterator[Served]:
    """Serves an ASGI application while the context lasts."""
    with server_lib.bind("127.0.0.1", 0) as listens:
        server = server_lib.of(app)
        thread = threading.Thread(target=server.run, kwargs=dict(sockets=[listens]))
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            yield Served(listens.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()
