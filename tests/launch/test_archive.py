# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is sent to the workers, and the folder in which it lies until then."""

import os
import pathlib
import shutil
import signal
import subprocess

import pytest

from tests.support import launching

_SETUP = ["setup", *launching.SLICE]


def _git(tree: pathlib.Path, *arguments) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(tree), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def tree(tmp_path):
    """A small checkout with what does not belong to it."""
    tree = launching.copy_tree(tmp_path / "tree")
    for name in ("README.md", "LICENSE", ".gitignore", "ruff.toml", "pytest.ini"):
        shutil.copy(launching.ROOT / name, tree / name)
    _git(tree, "init", "-q")
    _git(tree, "add", ".")
    _git(tree, "commit", "-q", "-m", "first")
    strangers = (".env", "key.pem", "runs/a/config.json", "SHARDS/train/manifest.json", "id_rsa")
    for name in (*strangers, "configs/.env", "configs/new.py", "notes.txt", "launch/shards/a.tar"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("secret")
    return tree


def _files(folder: pathlib.Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if (path.is_symlink() or path.is_file()) and ".venv" not in path.parts
    }


def _sent(cloud, tree, *, environment=None) -> tuple[set[str], str]:
    """What lies on worker 1 after setup, and what was printed."""
    (cloud.folder / "state").write_text("ACTIVE")
    script = tree / "launch" / "tpu_train.sh"
    result = cloud.launch(*_SETUP, script=script, **(environment or {}))
    assert result.returncode == 0, result.stdout
    return _files(cloud.home(1) / "f3tok_jax"), result.stdout


def test_what_git_knows_is_sent_as_it_is_here(cloud, tree):
    known = set(_git(tree, "ls-files", "-z").split("\0")) - {""}
    (tree / "README.md").write_text("changed, not committed")
    (tree / "ruff.toml").unlink()
    (tree / "-C").write_text("a name like a flag")
    (tree / "two words\nand a line").touch()
    (tree / "link").symlink_to("/etc/passwd")
    _git(tree, "add", "--", "-C", "two words\nand a line", "link")
    sent, printed = _sent(cloud, tree)
    more = {"-C", "two words\nand a line", "link", "provenance.txt"}
    assert sent == known - {"ruff.toml"} | more
    there = cloud.home(1) / "f3tok_jax"
    assert (there / "README.md").read_text() == "changed, not committed"
    assert (there / "link").is_symlink()
    line = next(line for line in printed.splitlines() if line.startswith("packing: not sent"))
    assert "configs/new.py" in line and "SHARDS/" in line and ".env" in line
    # A module that was changed and kept its size is compiled anew only if its time went along.
    assert abs((there / "setup.py").stat().st_mtime - (tree / "setup.py").stat().st_mtime) < 2


def test_where_the_code_comes_from_goes_along_with_what_differs_from_its_commit(cloud, tree):
    (tree / "README.md").write_text("changed, not committed")
    (tree / "configs" / "key.pem").write_text("secret")
    _git(tree, "add", "-f", "configs/key.pem")
    _sent(cloud, tree)
    text = (cloud.home(1) / "f3tok_jax" / "provenance.txt").read_text()
    assert text.startswith(f"commit: {_git(tree, 'rev-parse', 'HEAD')}branch: ")
    assert "\ndirty: yes\n\n" in text and "+changed, not committed" in text
    assert "secret" not in text


def test_keys_stay_even_where_git_knows_them(cloud, tree):
    (tree / "configs" / "my_credentials.json").touch()
    keys = [".env", "key.pem", "id_rsa", "configs/.env", "configs/my_credentials.json"]
    _git(tree, "add", "-f", *keys)
    sent, printed = _sent(cloud, tree)
    assert "configs/base.py" in sent or "configs/autoencoder.py" in sent
    assert not sent & set(keys)
    assert all(key in printed for key in keys)


def test_without_git_the_projects_own_files_are_sent(cloud, tree):
    known = set(_git(tree, "ls-files", "-z").split("\0")) - {"", ".gitignore"}
    shutil.rmtree(tree / ".git")
    sent, printed = _sent(cloud, tree, environment={"GIT_CEILING_DIRECTORIES": str(tree.parent)})
    assert sent == known | {"configs/new.py", "provenance.txt"}
    assert "no git checkout" in printed


def test_without_git_nothing_of_the_project_is_missing():
    if not (launching.ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    program = (
        f'source "{launching.ROOT}/launch/common.sh"; source "{launching.ROOT}/launch/archive.sh"; '
        "in_checkout() { return 1; }; sent"
    )
    result = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    known = _git(launching.ROOT, "ls-files", "-z").split("\0")
    tests_and_hidden = (".", "tests/")
    assert {name for name in known if name and not name.startswith(tests_and_hidden)} <= set(
        result.stdout.split("\0")
    )


@pytest.mark.parametrize(
    "recipe", ["configs/new.py", "./configs/new.py:base", "configs", "*.py", ""]
)
def test_a_recipe_that_would_not_be_there_is_refused_first(recipe, cloud, tree):
    arguments = [*launching.SLICE, f"--config={recipe}", "--workdir=gs://bucket/run"]
    script = tree / "launch" / "tpu_train.sh"
    result = cloud.launch(*arguments, script=script)
    assert result.returncode == 1
    assert "--config" in result.stdout
    assert not cloud.calls("create")
    if "new" in recipe:
        _git(tree, "add", "configs/new.py")
        assert cloud.launch(*arguments, "--dry-run", script=script).returncode == 0


def test_the_archive_lies_where_nobody_else_can_look(cloud, tmp_path):
    (cloud.folder / "state").write_text("ACTIVE")
    there = tmp_path / "temporary"
    there.mkdir()
    victim = tmp_path / "victim"
    victim.write_text("whole")
    (there / "f3tok_jax_demo.tar.gz").symlink_to(victim)
    result = cloud.launch(*_SETUP, TMPDIR=str(there))
    assert result.returncode == 0, result.stdout
    assert (cloud.folder / "scp_folders").read_text() == "700\n"
    assert victim.read_text() == "whole"
    assert [path.name for path in there.iterdir()] == ["f3tok_jax_demo.tar.gz"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_archive_goes_however_the_launcher_ends(number, cloud, tmp_path):
    (cloud.folder / "state").write_text("ACTIVE")
    (cloud.folder / "scp_failures").write_text("9")
    there = tmp_path / "temporary"
    there.mkdir()
    environment = {**cloud.environment, "TMPDIR": str(there), "RETRY_SECONDS": "60", "HOME": "/"}
    launcher = subprocess.Popen(
        ["bash", str(launching.SCRIPT), *_SETUP],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    waiting = ["pgrep", "-g", str(launcher.pid), "sleep"]  # before the second attempt
    launching.until(lambda: subprocess.run(waiting, capture_output=True).returncode == 0)
    assert list(there.iterdir())
    os.killpg(launcher.pid, number)
    launcher.communicate(timeout=30)
    assert launcher.returncode != 0
    assert not list(there.iterdir())
