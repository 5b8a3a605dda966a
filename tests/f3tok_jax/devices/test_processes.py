# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The start of a program: which processes it looks for, and how it meets them."""

import time
import types

import jax
import pytest

from f3tok_jax.devices import cluster
from f3tok_jax.devices import processes
from f3tok_jax.devices import slices

_NOTHING = dict(mode="auto", coordinator="", num_processes=0, process_id=-1)
_GIVEN = dict(coordinator="a:1", num_processes=2, process_id=1)
_SLICE = cluster.Seat("h0:8482", 16, 3, tuple(f"h{host}" for host in range(16)))


@pytest.fixture
def slice_host(monkeypatch):
    """A host of a slice of sixteen."""
    monkeypatch.setattr(processes, "has_tpu_chips", lambda: True)
    monkeypatch.setattr(cluster, "find", lambda has_tpu_chips: _SLICE)


@pytest.mark.parametrize(
    "given",
    [
        dict(coordinator="localhost:1"),
        dict(coordinator="localhost:1", num_processes=2),
        dict(coordinator="localhost:1", num_processes=2, process_id=2),
        dict(process_id=0),
    ],
)
def test_half_a_cluster_is_refused(given):
    with pytest.raises(ValueError, match="go together"):
        processes.find_seat(**_NOTHING | given)
    with pytest.raises(ValueError, match="--coordinator must be host:port"):
        processes.find_seat(**_NOTHING | _GIVEN | dict(coordinator="localhost"))


def test_a_process_alone_one_that_is_told_and_one_that_only_jax_can_place():
    assert processes.find_seat(**_NOTHING) is None  # no TPU chips
    assert processes.find_seat(**_NOTHING | _GIVEN | dict(mode="off")) is None
    assert processes.find_seat(**_NOTHING | _GIVEN) == cluster.Seat("a:1", 2, 1)
    assert processes.find_seat(**_NOTHING | dict(num_processes=1)) is None


def test_on_a_slice_the_cluster_places_it(slice_host):
    for given in (_NOTHING, _NOTHING | dict(num_processes=16), _NOTHING | dict(mode="on")):
        assert processes.find_seat(**given) == _SLICE
    assert processes.find_seat(**_NOTHING | _GIVEN) == cluster.Seat("a:1", 2, 1)


def test_one_host_that_is_not_one_of_so_many_is_refused(slice_host, monkeypatch):
    wanted = "must have --num_processes=4, got {} by what this machine says of its cluster: start"
    with pytest.raises(ValueError, match=wanted.format(16)):
        processes.find_seat(**_NOTHING | dict(num_processes=4))
    monkeypatch.setattr(cluster, "find", lambda has_tpu_chips: None)
    with pytest.raises(ValueError, match=wanted.format(1)):
        processes.find_seat(**_NOTHING | dict(num_processes=4))
    assert processes.find_seat(**_NOTHING) is None
    only_jax = processes.find_seat(**_NOTHING | dict(num_processes=4, mode="on"))
    assert only_jax == cluster.Seat(num_processes=4)


@pytest.mark.parametrize(
    "name, num_slices, missing, platform, is_whole",
    [
        ("v5litepod-16", 1, 0, "tpu", True),
        ("v5e:4x4", 2, 0, "tpu", True),
        ("tpu7x-16", 1, 0, "tpu", True),
        ("v5e-16", 1, 1, "tpu", False),
        ("v5e-16", 2, 16, "tpu", False),
        ("v5e-16", 1, 0, "cpu", False),
    ],
)
def test_a_slice_with_a_missing_chip_is_refused(
    name, num_slices, missing, platform, is_whole, monkeypatch
):
    wanted = slices.parse(name, num_slices)
    each = wanted.num_devices // num_slices
    devices = [
        types.SimpleNamespace(platform=platform, device_kind="TPU", slice_index=number // each)
        for number in range(wanted.num_devices - missing)
    ]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    if is_whole:
        return processes.check_devices(wanted)
    with pytest.raises(ValueError, match=f"--accelerator must be .*, got {len(devices)} TPU dev"):
        processes.check_devices(wanted)


def test_all_have_met_before_jax_is_told_where_they_are(slice_host, monkeypatch):
    calls = []
    said = lambda *args, **named: calls.append((args, named))
    monkeypatch.setattr(jax.distributed, "initialize", said)
    monkeypatch.setattr(processes.rendezvous, "meet", said)
    limits = dict(heartbeat_seconds=10, start_seconds=60)
    processes.connect(_SLICE, facts={"jax": "1"}, **limits)
    own = dict(heartbeat_timeout_seconds=10, initialization_timeout=300)
    assert calls == [
        ((_SLICE,), dict(seconds=60, facts={"jax": "1"})),
        (("h0:8482", 16, 3), own),
    ]
    del calls[:]
    processes.connect(cluster.Seat(num_processes=jax.process_count()), facts={}, **limits)
    assert calls == [((), own)]
    with pytest.raises(ValueError, match="must have --num_processes=7, got 1: start the same"):
        processes.connect(cluster.Seat(num_processes=7), facts={}, **limits)


def test_a_clock_that_is_set_while_a_machine_starts_adds_no_age(monkeypatch):
    before = processes.age()
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert 0.0 < before <= processes.age() < before + 600.0
