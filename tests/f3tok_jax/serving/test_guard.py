# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Who may ask: names that nobody can lead elsewhere, our own page, and links that open it."""

import asyncio
import socket

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")

from starlette import responses

from f3tok_jax.serving import guard

_OPENS = dict(sec_fetch_mode="navigate", sec_fetch_dest="document")


def _ask(
    method="GET", path="/", *, by_address=False, host="box:8000", **headers
) -> tuple[int, str]:
    """The status and the body of what a guard in front of a page that welcomes all answers."""
    given = dict(host=host, **headers)
    scope = dict(
        type="http",
        method=method,
        path=path,
        headers=[(n.replace("_", "-").encode(), v.encode()) for n, v in given.items()],
    )
    sent = []

    async def send(message):
        sent.append(message)

    page = responses.PlainTextResponse("welcome")
    guarded = guard.Guard(page, {"box", "localhost"}, by_address=by_address)
    asyncio.run(guarded(scope, None, send))
    return sent[0]["status"], b"".join(one.get("body", b"") for one in sent).decode()


@pytest.mark.parametrize("site", ["same-site", "cross-site", "same-origin", "none"])
def test_a_link_on_any_page_opens_it(site):
    assert _ask(sec_fetch_site=site, **_OPENS) == (200, "welcome")


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
@pytest.mark.parametrize(
    "asked",
    [
        dict(path="/api/model", **_OPENS),
        dict(path="/page.js", **_OPENS),
        dict(method="POST", path="/api/reconstruction", **_OPENS),
        dict(method="POST", **_OPENS),
        dict(_OPENS, sec_fetch_dest="iframe"),
        dict(_OPENS, sec_fetch_dest="object"),
        dict(_OPENS, sec_fetch_mode="no-cors"),
        dict(_OPENS, sec_fetch_mode="cors", sec_fetch_dest="empty"),
        dict(_OPENS, origin="http://evil.example"),
        dict(),
    ],
)
def test_other_pages_get_nothing_else(site, asked):
    code, said = _ask(sec_fetch_site=site, **asked)
    assert code == 403 and "only its own page may ask this server" in said


@pytest.mark.parametrize(
    "origin",
    [
        "http://[",
        "http://[::1",
        "https://box:8000",
        "http://box",
        "http://box:8001",
        "http://box:8000@evil.example",
        "http://evil.example",
        "ftp://box:8000",
        "//box:8000",
        "box:8000",
        "null",
        "",
    ],
)
def test_an_origin_is_its_own_to_the_letter(origin):
    code, said = _ask("POST", "/api/speech", origin=origin)
    assert code == 403 and "only its own page may ask this server" in said
    assert _ask("POST", "/api/speech", origin="http://box:8000") == (200, "welcome")


@pytest.mark.parametrize("host", ["192.0.2.7", "192.0.2.7:8000", "[2001:db8::7]:8000", "[::1]"])
def test_an_address_will_do_where_others_may_come(host):
    assert _ask(by_address=True, host=host) == (200, "welcome")
    code, said = _ask(host=host)
    assert code == 421 and "must be asked by the name box or localhost, got" in said


@pytest.mark.parametrize(
    "host",
    ["evil.example", "192.0.2.7.evil.example:8000", "box.evil.example", "[", "[box]", "[::1", ""],
)
def test_a_name_that_a_stranger_may_have_led_here_is_refused(host):
    code, said = _ask(by_address=True, host=host, **_OPENS)
    assert code == 421
    assert "by the name box or localhost or its IP address, got" in said
    assert "open it by one of these" in said


@pytest.mark.parametrize(
    "host, own",
    [
        ("0.0.0.0", {"box", "box.lan"}),
        ("::", {"box", "box.lan"}),
        ("", {"box", "box.lan"}),
        ("Studio.lan", {"studio.lan", "box", "box.lan"}),
    ],
)
def test_a_machine_is_known_by_its_names(monkeypatch, host, own):
    monkeypatch.setattr(socket, "gethostname", lambda: "Box")
    monkeypatch.setattr(socket, "getfqdn", lambda: "box.lan")
    assert guard.names(host, is_local=False) == {"localhost", *own}


def test_its_own_addresses_are_enough_where_nobody_else_may_come(monkeypatch):
    monkeypatch.setattr(socket, "getfqdn", None)  # it may take its time
    own = {"localhost", "127.0.0.1", "[::1]"}
    assert guard.names("127.0.0.1", is_local=True) == own
    assert guard.names("Localhost", is_local=True) == own
