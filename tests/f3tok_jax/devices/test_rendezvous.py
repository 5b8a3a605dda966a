# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The processes of a run that meet, as threads, without JAX."""

from concurrent import futures
import socket

import pytest

from f3tok_jax.devices import agreement
from f3tok_jax.devices import cluster
from f3tok_jax.devices import rendezvous


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
