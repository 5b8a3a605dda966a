# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The start of a program: which processes, and where compiled programs are kept."""

import json
import pathlib
import shutil
import subprocess

import jax
import pytest

from f3tok_jax import startup

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
    startup.use_compilation_cache(str(tmp_path / "cache"))
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_folder_that_was_asked_for_must_be_writable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError, match="the compilation cache must be a folder that can be written"
    ):
        startup.use_compilation_cache(str(tmp_path / "file" / "cache"))


def test_without_a_writable_home_there_is_no_cache_and_it_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(startup.pathlib.Path, "home", lambda: tmp_path / "file")
    said = []
    startup.use_compilation_cache(None, say=said.append)
    assert not jax.config.jax_enable_compilation_cache
    assert len(said) == 1 and "--compilation_cache=DIR" in said[0]


def test_no_cache_on_request():
    startup.use_compilation_cache("")
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
        startup.initialize_distributed(**_NOTHING | given)


def test_which_processes_are_looked_for(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **kwargs: calls.append(args))
    startup.initialize_distributed(**_NOTHING)  # no TPU chips: alone
    startup.initialize_distributed(
        **_NOTHING | dict(mode="off", coordinator="a:1", num_processes=2, process_id=1)
    )
    assert calls == []
    startup.initialize_distributed(
        **_NOTHING | dict(coordinator="a:1", num_processes=2, process_id=1)
    )
    startup.initialize_distributed(**_NOTHING | dict(mode="on"))
    assert calls == [("a:1", 2, 1), ()]


def _git(folder: pathlib.Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> pathlib.Path:
    """A repository that the code seems to run from."""
    if not shutil.which("git"):
        pytest.skip("git is not installed: nothing to be asked")
    (tmp_path / "f3tok_jax").mkdir()
    file = tmp_path / "f3tok_jax" / "startup.py"
    file.write_text("")
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-q", "-m", "first")
    monkeypatch.setattr(startup, "__file__", str(file))
    return tmp_path


def test_the_environment_names_the_commit_and_whether_files_differ_from_it(checkout):
    commit = _git(checkout, "rev-parse", "HEAD")
    (checkout / "runs").mkdir()
    (checkout / "runs" / "result").write_text("")  # not the code's
    assert startup.environment()["git"] == {"commit": commit, "dirty": False}
    (checkout / "f3tok_jax" / "startup.py").write_text("changed")
    assert startup.environment()["git"] == {"commit": commit, "dirty": True}
    json.dumps(startup.environment())


def test_a_repository_around_an_installed_package_is_not_the_code_s(checkout, monkeypatch):
    installed = checkout / ".venv" / "site-packages" / "f3tok_jax"
    installed.mkdir(parents=True)
    monkeypatch.setattr(startup, "__file__", str(installed / "startup.py"))
    assert "git" not in startup.environment()


def test_without_git_the_environment_says_nothing_of_it(checkout, monkeypatch):
    monkeypatch.setenv("PATH", str(checkout / "nowhere"))
    assert "git" not in startup.environment()


def test_without_a_checkout_the_environment_says_nothing_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(startup, "__file__", str(tmp_path / "f3tok_jax" / "startup.py"))
    assert "git" not in startup.environment()
