# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run keeps of its environment: the commit of the code, where the code is a checkout."""

import json
import pathlib
import shutil
import subprocess

import pytest

from f3tok_jax.runs import environment


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
    file = tmp_path / "f3tok_jax" / "environment.py"
    file.write_text("")
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-q", "-m", "first")
    monkeypatch.setattr(environment, "__file__", str(file))
    return tmp_path


def test_the_environment_names_the_commit_and_whether_files_differ_from_it(checkout):
    commit = _git(checkout, "rev-parse", "HEAD")
    (checkout / "runs").mkdir()
    (checkout / "runs" / "result").write_text("")  # not the code's
    assert environment.environment()["git"] == {"commit": commit, "dirty": False}
    (checkout / "f3tok_jax" / "environment.py").write_text("changed")
    assert environment.environment()["git"] == {"commit": commit, "dirty": True}
    json.dumps(environment.environment())


def test_a_repository_around_an_installed_package_is_not_the_code_s(checkout, monkeypatch):
    installed = checkout / ".venv" / "site-packages" / "f3tok_jax"
    installed.mkdir(parents=True)
    monkeypatch.setattr(environment, "__file__", str(installed / "environment.py"))
    assert "git" not in environment.environment()


def test_without_git_the_environment_says_nothing_of_it(checkout, monkeypatch):
    monkeypatch.setenv("PATH", str(checkout / "nowhere"))
    assert "git" not in environment.environment()


def test_without_a_checkout_the_environment_says_nothing_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "f3tok_jax" / "environment.py"))
    assert "git" not in environment.environment()
