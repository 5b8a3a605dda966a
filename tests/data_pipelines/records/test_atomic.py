# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or absent."""

import contextlib
import errno
import os
import stat

from etils import epath
import pytest

from data_pipelines.records import atomic


@pytest.mark.parametrize("make", [lambda path: path, epath.Path], ids=["pathlib", "epath"])
def test_a_file_gets_its_name_when_it_is_whole(make, tmp_path, monkeypatch):
    path = make(tmp_path) / "new" / "folder" / "results.json"
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with atomic.replacing(path) as partial:
        partial.write_bytes(b"half")
        assert not path.exists() and not synced
    assert path.read_bytes() == b"half" and len(synced) == 1
    atomic.write_text(path, "gr\u00fcn")
    assert path.read_text(encoding="utf-8") == "gr\u00fcn"
    assert os.listdir(tmp_path / "new" / "folder") == ["results.json"]


def test_a_full_disk_says_of_which_file(tmp_path):
    full = lambda *name: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *name)
    for error, name in ((full(), str(tmp_path / "a")), (full("other"), "other")):
        for writing in (atomic.replacing, atomic.making):
            with pytest.raises(OSError) as raised, writing(tmp_path / "a"):
                raise error
            assert raised.value.filename == name


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_leaves_what_stood_there_before(error, tmp_path):
    path = tmp_path / "results.json"
    path.write_text("before")
    with pytest.raises(error), atomic.replacing(path) as partial:
        partial.write_text("half")
        raise error
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["results.json"]
    with pytest.raises(FileNotFoundError), atomic.replacing(path):
        pass  # nothing was written
    assert path.read_text() == "before"


@pytest.mark.parametrize("error", [None, OSError, KeyboardInterrupt])
def test_a_folder_gets_its_name_when_it_is_whole(error, tmp_path):
    (tmp_path / ".a.partial" / "of a kill").mkdir(parents=True)
    failing = pytest.raises(error) if error else contextlib.nullcontext()
    with failing, atomic.making(tmp_path / "a") as folder:
        assert os.listdir(tmp_path) == [".a.partial"] and not os.listdir(folder)
        (folder / "b").write_text("c")
        if error:
            raise error
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == (
        [] if error else ["a", "a/b"]
    )


def test_what_is_half_goes_with_the_process(tmp_path):
    (tmp_path / "passing").write_text("")
    with (
        pytest.raises(FileNotFoundError),
        atomic.making(tmp_path / "a") as folder,
        atomic.passing(str(tmp_path / "passing")),
        atomic.replacing(folder / "b") as partial,
    ):
        partial.write_text("half")
        atomic.remove_partials()
        assert not os.listdir(tmp_path)


def test_a_temporary_folder_goes_with_its_context_and_with_the_process():
    with atomic.temporary_folder() as folder:
        assert folder.is_dir() and stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "sound.wav").write_bytes(b"RIFF")
    assert not folder.exists()
    with atomic.temporary_folder() as folder:
        (folder / "sound.wav").write_bytes(b"RIFF")
        atomic.remove_partials()
        assert not folder.exists()
