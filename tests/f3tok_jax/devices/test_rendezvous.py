# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The processes of a run that meet, as threads, without JAX."""

from concurrent import futures
import contextlib
import json
import resource
import socket
import threading

import pytest

from f3tok_jax.devices import agreement
from f3tok_jax.devices import cluster
from f3tok_jax.devices import reception
from f3tok_jax.devices import rendezvous
from tests.support import clocks


@pytest.fixture
def address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def _meet(address: str, *numbers: int, num_processes: int, seconds: float, counts=None, facts=None):
    """What each process that starts met with, in order: None, or its error."""

    def one(at: int):
        count = counts[at] if counts else num_processes
        seat = cluster.Seat(address, count, numbers[at], ("first", "second"))
        try:
            own = facts[at] if facts else {"jax": "1"}
            rendezvous.meet(seat, seconds=seconds, facts=own)
        except (rendezvous.Absent, ValueError) as error:
            return error

    with futures.ThreadPoolExecutor(len(numbers)) as pool:
        return list(pool.map(one, range(len(numbers))))


def test_all_meet_in_any_order_and_the_address_is_free_afterwards(address):
    for _ in range(2):
        met = _meet(address, 2, 0, 1, num_processes=3, seconds=20)
        assert met == [None] * 3
    assert _meet(address, 0, num_processes=1, seconds=20) == [None]


@pytest.mark.reliability("R17")
def test_who_has_not_arrived_is_named_in_all_that_have(address):
    absent = _meet(address, 0, 2, num_processes=5, seconds=1)
    assert {str(error) for error in absent} == {
        "processes 1 (second), 3, 4 have not arrived in 1 s (--start_seconds), 2 of 5 have: start "
        "the same command on every host"
    }
    many = _meet(address, 0, num_processes=2000, seconds=0.2)
    assert "processes 1 (second), 2, 3, 4, 5, 6, 7, 8 and 1991 more have" in str(many[0])
    assert "1 of 2000 have: start the same command" in str(many[0])


@pytest.mark.reliability("R17")
def test_without_process_0_the_others_name_it(address):
    (error,) = _meet(address, 1, num_processes=2, seconds=0.5)
    assert isinstance(error, rendezvous.Absent)
    assert str(error) == (
        f"process 0 (first) at {address} has not arrived in 0.5 s (--start_seconds)"
    )


@pytest.mark.reliability("R18")
def test_who_starts_otherwise_is_named_in_all_even_where_one_is_absent(address):
    facts = [{"jax": "1", "code": "a"}, {"jax": "1", "code": "b"}, {"jax": "1", "code": "a"}]
    for num_processes, seconds in ((3, 20), (4, 1)):
        met = _meet(address, 0, 1, 2, num_processes=num_processes, seconds=seconds, facts=facts)
        assert {type(error) for error in met} == {agreement.Differing}
        host = socket.gethostname()
        assert {error.table for error in met} == {
            f"fact  value  processes\ncode  a      0 ({host}), 2 ({host})\ncode  b      1 ({host})"
        }
        assert {str(error) for error in met} == {str(met[0])} and "got others in 1 (" in str(met[0])


def test_facts_may_be_long(address):
    facts = [{f"config.{key}": "x" * 100 for key in range(2000)}] * 3
    assert _meet(address, 0, 1, 2, num_processes=3, seconds=20, facts=facts) == [None] * 3


def test_processes_that_count_differently_or_are_there_twice_are_refused(address):
    met = _meet(address, 0, 1, num_processes=2, seconds=5, counts=[3, 2])
    assert all(isinstance(error, ValueError) for error in met)
    assert "got 3 in process 0 and 2 in process 1" in str(met[0]) == str(met[1])
    met = _meet(address, 0, 1, 1, num_processes=3, seconds=5)
    host = socket.gethostname()
    assert {(type(error), str(error)) for error in met} == {
        (ValueError, f"--process_id must differ, got two processes 1, on {host} and {host}")
    }


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n" + bytes(10_000),
        b"[" * 100_000 + b"\n",
        b'{"process": "1", "count": 2, "host": 3, "facts": []}\n',
        b"7\n",
    ],
)
def test_a_stranger_who_tries_ports_is_nobody(address, sent):
    host, port = address.split(":")

    def stranger(sent):
        for _ in range(100):
            try:
                with socket.create_connection((host, int(port)), timeout=1) as peer:
                    return peer.sendall(sent)
            except OSError:
                continue

    with futures.ThreadPoolExecutor(1) as pool:
        pool.submit(stranger, sent)
        assert _meet(address, 0, 1, num_processes=2, seconds=20) == [None] * 2


def test_an_address_that_is_taken_is_refused_by_name(address):
    with rendezvous._listener(address):
        (error,) = _meet(address, 0, num_processes=2, seconds=1)
    assert f"process 0 must be able to listen at the coordinator's address, got {address}: " in str(
        error
    )


def _connect(address: str) -> socket.socket:
    """To process 0, once it listens."""
    host, port = address.split(":")
    for _ in range(1000):
        with contextlib.suppress(OSError):
            return socket.create_connection((host, int(port)), timeout=20)
        threading.Event().wait(0.01)
    raise AssertionError("process 0 does not listen")


def _arrive(address: str, number: int, count: int, host: str = "other") -> socket.socket:
    """One that has arrived, and answers nothing: as a machine that died without a word."""
    peer = _connect(address)
    line = dict(process=number, count=count, host=host, facts={"jax": "1"})
    peer.sendall(json.dumps(line).encode() + b"\n")
    return peer


@pytest.fixture
def quick(monkeypatch):
    """Silence is noticed soon."""
    monkeypatch.setattr(reception, "_BEAT", 0.02)
    monkeypatch.setattr(reception, "SILENCE", 0.6)


@pytest.mark.reliability("R17")
@pytest.mark.parametrize("is_same_host", [True, False])
def test_who_replaces_a_machine_that_died_without_a_word_takes_its_place(
    address, quick, is_same_host
):
    host = socket.gethostname() if is_same_host else "other"
    with futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(_meet, address, 0, num_processes=3, seconds=20)
        with _arrive(address, 1, 3, host) as dead:
            assert dead.recv(2) == reception.PING  # It has been seen.
            met = _meet(address, 1, 2, num_processes=3, seconds=20)
        assert first.result() == [None] and met == [None] * 2


@pytest.mark.reliability("R17")
def test_who_has_given_up_does_not_count_as_there(address, monkeypatch):
    monkeypatch.setattr(reception, "_BEAT", 0.02)
    with futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(_meet, address, 0, num_processes=3, seconds=1)
        with _arrive(address, 1, 3) as gone:
            assert gone.recv(2) == reception.PING
        (second,) = _meet(address, 2, num_processes=3, seconds=1)
        assert str(first.result()[0]) == str(second)
        assert "processes 1 (second) have not arrived in 1 s" in str(second)


def test_who_is_connected_waits_for_as_long_as_process_0_does(address):
    clock = clocks.Clock()
    with rendezvous._listener(address) as listener, futures.ThreadPoolExecutor(1) as pool:
        seat = cluster.Seat(address, 2, 1)
        met = pool.submit(rendezvous.meet, seat, seconds=5.0, facts={}, clock=clock)
        with listener.accept()[0] as peer:
            peer.settimeout(20)
            assert b"process" in peer.recv(2**16)
            for _ in range(10):
                clock.now += 6.0  # Less than a silence, and in the end far behind its 5 s.
                peer.sendall(reception.PING)
                assert peer.recv(2) == reception.PONG
            peer.sendall(rendezvous._written(None) + b"\n")
            assert met.result(20) is None


def test_silent_strangers_hold_nobody_up(address):
    with futures.ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as stack:
        first = pool.submit(_meet, address, 0, num_processes=2, seconds=20)
        for _ in range(100):
            stack.enter_context(_connect(address)).sendall(b"{")
        assert _meet(address, 1, num_processes=2, seconds=20) == first.result() == [None]


def test_a_line_that_comes_byte_by_byte_has_one_time_limit(address):
    clock = clocks.Clock()
    with rendezvous._listener(address) as listener:
        hall = reception.Reception(listener, cluster.Seat(address, 2, 0), clock)
        with contextlib.closing(hall), _connect(address) as stranger:
            for _ in range(4):
                stranger.sendall(b"x")
                hall.serve(1.0)
                clock.now += 3.0
            hall.serve(0.0)
            assert stranger.recv(1) == b""


def test_hundreds_of_hosts_meet_at_once(address):
    count = 512
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(least, min(most, 4 * count)), most))
    met = _meet(address, *range(count), num_processes=count, seconds=60)
    assert met == [None] * count
    resource.setrlimit(resource.RLIMIT_NOFILE, (least, most))
