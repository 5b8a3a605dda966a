# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Where a page is listened to: a socket of this machine, and the loop behind it."""

from collections.abc import Iterator
import contextlib
import ipaddress
import socket

from starlette import types
import uvicorn

_MOST_AT_ONCE = 64  # connections: a browser opens six


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: name or address of this machine.
        port: of it, from 0; 0 for a free one.

    Raises:
        ValueError: where it is not of this machine, or taken.
    """
    if port >= 2**16:
        raise ValueError(f"--port must be below {2**16}, got {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listens = socket.socket(family, kind, protocol)
        try:
            listens.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listens.bind(address)
            listens.listen()
        except OSError:
            listens.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(
            f"--host and --port must be free and of this machine, got {host} and {port} ({reason}): "
            "give another port, or 0 for any"
        ) from error
    return listens


def is_loopback(listens: socket.socket) -> bool:
    """Whether nobody but this machine can reach a socket."""
    return ipaddress.ip_address(listens.getsockname()[0].partition("%")[0]).is_loopback


def address(listens: socket.socket, host: str) -> str:
    """What to type into a browser."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listens.getsockname()[1]}/"


class Server(uvicorn.Server):
    """uvicorn's, which leaves signals to the program."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Does nothing."""
        yield


def of(app: types.ASGIApp) -> Server:
    """A server of an application; its `run(sockets=[...])` ends when `should_exit` is set."""
    config = uvicorn.Config(
        app,
        access_log=False,
        http="h11",
        lifespan="off",
        limit_concurrency=_MOST_AT_ONCE,
        log_config=None,
        loop="asyncio",
        proxy_headers=False,
        server_header=False,
        ws="none",
    )
    return Server(config)
