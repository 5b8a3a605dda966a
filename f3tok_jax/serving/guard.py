# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Who may ask: a page of this server, and no other that the same browser shows."""

from collections.abc import Collection
import urllib.parse

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


class Guard:
    """An ASGI application in front of another."""

    def __init__(self, app: types.ASGIApp, hosts: Collection[str] | None):
        """Takes what is guarded.

        Args:
            app: the application.
            hosts: names that browsers may know this server by; None for any. A page elsewhere can
                have its own name lead here, but cannot have the browser say another.
        """
        self._app, self._hosts = app, hosts

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

        app, refusal = self._app, self._refusal(datastructures.Headers(scope=scope))
        if refusal:
            code, error = refusal
            app = responses.JSONResponse({"error": error}, code)
        await app(scope, receive, send_guarded)

    def _refusal(self, headers: datastructures.Headers) -> tuple[int, str] | None:
        """The status and the sentence for a request that is not of our own page."""
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            wanted = " or ".join(sorted(self._hosts))
            return 421, f"this server must be asked by the name {wanted}, got {host!r}"
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        is_own = origin is None or urllib.parse.urlsplit(origin).netloc == host
        if not is_own or site not in ("same-origin", "none"):
            return 403, f"only its own page may ask this server, got one of {origin or site}"
        return None


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    return host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0].lower()
