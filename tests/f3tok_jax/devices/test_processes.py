# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The start of a program: which processes, and where compiled programs are kept."""

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


@pytest.fixture(autouse=True)
def _unchanged_config():
    names = (
        "jax_compilation_cache_dir",
        "jax_enable_compilation_cache",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_cache_folder_is_tried_before_it_is_used(tmp_path):
    processes.use_compilation_cache(str(tmp_path / "cache"))
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_folder_that_was_asked_for_must_be_writable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError, match="the compilation cache must be a folder that can be written"
    ):
        processes.use_compilation_cache(str(tmp_path / "file" / "cache"))


def test_without_a_writable_home_there_is_no_cache_and_it_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(processes.pathlib.Path, "home", lambda: tmp_path / "file")
    said = []
    processes.use_compilation_cache(None, say=said.append)
    assert not jax.config.jax_enable_compilation_cache
    assert len(said) == 1 and "--compilation_cache=DIR" in said[0]


def test_no_cache_on_request():
    processes.use_compilation_cache("")
    assert not jax.config.jax_enable_compilation_cache


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
