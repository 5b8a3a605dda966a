# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The start of a program: which processes it looks for."""

import jax
import pytest

from f3tok_jax.devices import processes

_NOTHING = dict(
    mode="auto",
    coordinator="",
    num_processes=0,
    process_id=-1,
    heartbeat_seconds=10,
    start_seconds=10,
)


@pytest.mark.parametrize(
    "given",
    [
        dict(coordinator="localhost:1"),
        dict(coordinator="localhost:1", num_processes=2),
        dict(process_id=0),
    ],
)
def test_half_a_cluster_is_refused(given):
    with pytest.raises(ValueError, match="go together"):
        processes.initialize_distributed(**_NOTHING | given)


def test_which_processes_are_looked_for(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **kwargs: calls.append(args))
    monkeypatch.setattr(processes.rendezvous, "meet", lambda *args, **kwargs: None)
    processes.initialize_distributed(**_NOTHING)  # no TPU chips: alone
    processes.initialize_distributed(
        **_NOTHING | dict(mode="off", coordinator="a:1", num_processes=2, process_id=1)
    )
    assert calls == []
    processes.initialize_distributed(
        **_NOTHING | dict(coordinator="a:1", num_processes=2, process_id=1)
    )
    processes.initialize_distributed(**_NOTHING | dict(mode="on"))
    assert calls == [("a:1", 2, 1), ()]
