# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Which code a run says that it is of: in a checkout, in somebody else's, and where there is none."""

import pathlib
import shutil
import subprocess

import pytest

from f3tok_jax.runs import code
from tests.support import launching


def _git(folder: pathlib.Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def tree(tmp_path, monkeypatch) -> pathlib.Path:
    """A tree that the code seems to run from."""
    tree = tmp_path / "two words"
    (tree / "launch").mkdir(parents=True)
    (tree / "f3tok_jax").mkdir()
    (tree / "f3tok_jax" / "a.py").write_text("a = 1\n")
    shutil.copy(launching.ROOT / "launch" / "provenance.sh", tree / "launch")
    monkeypatch.setattr(code, "_TREE", tree)
    code.fingerprint.cache_clear()
    yield tree
    code.fingerprint.cache_clear()


@pytest.fixture
def checkout(tree) -> pathlib.Path:
    if not shutil.which("git"):
        pytest.skip("git is not installed: nothing to be asked")
    _git(tree, "init", "-q", "-b", "pods")
    _git(tree, "add", ".")
    _git(tree, "commit", "-q", "-m", "first")
    return tree


def test_a_checkout_has_a_commit_a_branch_and_what_differs_from_it(checkout):
    clean = {"commit": _git(checkout, "rev-parse", "HEAD"), "branch": "pods", "dirty": False}
    (checkout / "runs").mkdir()
    (checkout / "runs" / "result").write_text("")  # not the code's
    assert code.provenance() == clean | {"diff": ""}
    (checkout / "f3tok_jax" / "a.py").write_text("a = 2\n")
    (checkout / "f3tok_jax" / "b.py").write_text("b = 3\n")
    _git(checkout, "add", "f3tok_jax/b.py")
    diff = code.provenance()["diff"]
    assert "-a = 1\n+a = 2" in diff and "+b = 3" in diff
    _git(checkout, "checkout", "-q", "--detach")
    assert code.provenance() == clean | {"branch": "none", "dirty": True, "diff": diff}


def test_a_diff_has_no_keys_and_no_more_than_its_limit(checkout):
    for name in (".env", "configs/my_credentials.json", "id_rsa"):
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).write_text("first")
        _git(checkout, "add", "-f", name)
    _git(checkout, "commit", "-q", "-m", "keys")
    for name in (".env", "configs/my_credentials.json", "id_rsa"):
        (checkout / name).write_text("secret")
    assert code.provenance()["dirty"] and code.provenance()["diff"] == ""
    (checkout / "f3tok_jax" / "a.py").write_text("a = 1  # long\n" * 100_000)
    diff = code.provenance()["diff"]
    assert "secret" not in diff and len(diff) == 200_000


def test_a_repository_around_an_installed_package_is_not_the_code_s(checkout, monkeypatch):
    installed = checkout / ".venv" / "site-packages"
    shutil.copytree(checkout / "launch", installed / "launch")
    monkeypatch.setattr(code, "_TREE", installed)
    assert code.provenance() == {}
    monkeypatch.setattr(code, "_TREE", checkout / ".venv")
    assert code.provenance() == {}


def test_without_a_checkout_it_is_what_was_sent_along(checkout, tmp_path, monkeypatch):
    (checkout / "f3tok_jax" / "a.py").write_text("a = 2\n")
    there, script = code.provenance(), str(checkout / "launch" / "provenance.sh")
    text = subprocess.run(["bash", script], check=True, capture_output=True).stdout
    sent = tmp_path / "sent"
    shutil.copytree(checkout, sent, ignore=shutil.ignore_patterns(".git"))
    monkeypatch.setattr(code, "_TREE", sent)
    assert code.provenance() == {}
    (sent / "provenance.txt").write_bytes(text)
    assert code.provenance() == there


def test_without_git_or_bash_nothing_is_said(tree, monkeypatch):
    assert code.provenance() == {}
    monkeypatch.setenv("PATH", str(tree / "nowhere"))
    assert code.provenance() == {}


def test_the_fingerprint_is_of_every_module_by_name_and_content(tree):
    def changed() -> str:
        code.fingerprint.cache_clear()
        return code.fingerprint()

    seen = {changed()}
    (tree / "f3tok_jax" / "a.py").write_text("a = 2\n")
    seen.add(changed())
    (tree / "f3tok_jax" / "a.py").rename(tree / "f3tok_jax" / "b.py")
    seen.add(changed())
    assert len(seen) == 3
    (tree / "f3tok_jax" / "notes.txt").touch()
    assert changed() in seen
