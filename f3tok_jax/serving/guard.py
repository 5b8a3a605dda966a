# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Who may ask: a page of this server, and no other that the same browser shows."""

from collections.abc import Collection
import ipaddress
import socket

from starlette import datastructures
from starlette import responses
from starlette import types

_HEADERS = {
    # Nothing is loaded from anywhere else, and no other page shows this one.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; media-src blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "cache-control": "no-store",
}


def names(host: str, *, is_local: bool) -> set[str]:
    """Names that browsers may know this machine by, in lower case.

    Args:
        host: that the user has given; an address is no name.
        is_local: whether nobody else can reach it: then addresses of its own are among them.
    """
    if is_local:
        return {host.lower(), "localhost", "127.0.0.1", "[::1]"}
    own = {host.lower(), "localhost", socket.gethostname().lower(), socket.getfqdn().lower()}
    return {name for name in own if name and not _is_address(name)}


class Guard:
    """An ASGI application in front of another."""

    def __init__(self, app: types.ASGIApp, hosts: Collection[str], *, by_address: bool = False):
        """Takes what is guarded.

        Args:
            app: the application.
            hosts: names that browsers may know this server by. A page elsewhere can have its own
                name lead here, but cannot have the browser say another.
            by_address: whether any IP address will do, too: nobody can have one lead elsewhere.
        """
        self._app, self._hosts, self._by_address = app, hosts, by_address

    async def __call__(self, scope: types.Scope, receive: types.Receive, send: types.Send) -> None:
        """Answers a request, or refuses it before its body is read."""
        if scope["type"] != "http":
            return

        async def send_guarded(message: types.Message) -> None:
            if message["type"] == "http.response.start":
                headers = datastructures.MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        headers = datastructures.Headers(scope=scope)
        app, refusal = self._app, self._refusal(headers, _is_opening(scope, headers))
        if refusal:
            code, error = refusal
            app = responses.JSONResponse({"error": error}, code)
        await app(scope, receive, send_guarded)

    def _refusal(self, headers: datastructures.Headers, is_opening: bool) -> tuple[int, str] | None:
        """The status and the sentence for a request that is not of our own page, nor opens it."""
        host = headers.get("host", "")
        name = _name(host)
        if name not in self._hosts and not (self._by_address and _is_address(name)):
            wanted = " or ".join([*sorted(self._hosts), *["its IP address"] * self._by_address])
            return 421, (
                f"this server must be asked by the name {wanted}, got {host!r}: open it by one of "
                "these"
            )
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        is_own = origin in (None, f"http://{host}")
        if not is_own or not (is_opening or site in ("same-origin", "none")):
            return 403, f"only its own page may ask this server, got one of {origin or site}"
        return None


def _is_opening(scope: types.Scope, headers: datastructures.Headers) -> bool:
    """Whether a browser opens the page for its user, who may have followed a link."""
    told = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
    asked = scope["method"], scope["path"]
    return asked == ("GET", "/") and told == ("navigate", "document")


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    return host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
