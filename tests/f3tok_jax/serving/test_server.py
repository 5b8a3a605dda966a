# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sockets: what is taken or not of this machine is one sentence, and who can reach one is known."""

import pytest

pytest.importorskip("uvicorn", reason="the extra serve is not installed")

from f3tok_jax.serving import server


def test_any_free_port_will_do_and_a_taken_one_is_refused():
    with server.bind("127.0.0.1", 0) as listens:
        port = listens.getsockname()[1]
        assert port > 0 and server.is_loopback(listens)
        assert server.address(listens, "localhost") == f"http://localhost:{port}/"
        with pytest.raises(ValueError, match=f"must be free .* got 127.0.0.1 and {port} .Address"):
            server.bind("127.0.0.1", port)


def test_all_addresses_are_no_loopback():
    with server.bind("0.0.0.0", 0) as listens:
        assert not server.is_loopback(listens)


def test_an_address_with_colons_has_brackets():
    with server.bind("127.0.0.1", 0) as listens:
        assert server.address(listens, "::1").startswith("http://[::1]:")


@pytest.mark.parametrize(
    "host, port", [("nowhere.invalid", 0), ("192.0.2.1", 0), ("a" * 70, 0), ("127.0.0.1", 65_536)]
)
def test_what_is_not_of_this_machine_is_refused(host, port):
    with pytest.raises(ValueError, match="--port must be"):
        server.bind(host, port)
