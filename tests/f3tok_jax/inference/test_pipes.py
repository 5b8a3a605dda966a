# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Pipes in the place of files: every byte, nothing else among them, nothing left behind."""

import io
import os
import pathlib
import subprocess
import sys
import threading
import types

import pytest

from f3tok_jax.inference import pipes

_ROOT = pathlib.Path(__file__).parents[3]
_DATA = os.urandom(3 * 2**20 + 1)


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """The folder of temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


def test_a_file_is_read_where_it_is(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    with pipes.readable(str(tmp_path / "a")) as path:
        assert path == str(tmp_path / "a")


def test_standard_input_is_copied_whole(monkeypatch, temporary):
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(_DATA)))
    with pipes.readable("-") as path:
        assert pathlib.Path(path).read_bytes() == _DATA and pathlib.Path(path).parent == temporary


def test_a_closed_standard_input_is_said(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ValueError, match="standard input must be open"):
        with pipes.readable("-"):
            pass


def test_a_named_pipe_is_copied_whole(tmp_path):
    """As the shell's <(command) is one."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(_DATA))
    writer.start()
    with pipes.readable(str(tmp_path / "pipe")) as path:
        assert pathlib.Path(path).read_bytes() == _DATA
    writer.join()


_PROGRAM = """
import os, sys
from f3tok_jax.inference import pipes
with pipes.writable("-", ".npz") as place:
    print("printed by Python")
    os.system("echo printed by another")
    assert place.endswith("standard_output.npz")
    with open(place, "wb") as file:
        file.write(sys.stdin.buffer.read())
    if len(sys.argv) > 1:
        raise SystemExit(3)
print("the end")
"""


def _run(*arguments):
    command = [sys.executable, "-c", _PROGRAM, *arguments]
    return subprocess.run(command, input=_DATA, capture_output=True, cwd=_ROOT)


def test_only_the_result_goes_to_standard_output():
    done = _run()
    assert done.returncode == 0 and done.stdout == _DATA + b"the end\n"
    assert set(done.stderr.splitlines()) == {b"printed by another", b"printed by Python"}


def test_a_full_disk_is_named():
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            input=_DATA,
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=_ROOT,
        )
    assert b"No space left on device: 'standard output'" in done.stderr


def test_a_result_that_is_not_whole_goes_nowhere():
    done = _run("stop")
    assert done.returncode == 3 and done.stdout == b""


def test_a_file_is_written_where_it_is(tmp_path, capfd):
    with pipes.writable(str(tmp_path / "a"), ".npz") as path:
        print("printed")
    assert path == str(tmp_path / "a") and capfd.readouterr().out == "printed\n"


def test_a_terminal_is_no_place_for_bytes(monkeypatch):
    monkeypatch.setattr("sys.stdout", types.SimpleNamespace(isatty=lambda: True))
    with pytest.raises(ValueError, match="must be a pipe or a file, got a terminal"):
        pipes.check_output()
