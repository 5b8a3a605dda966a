# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Folders behind a URL that have no manifest: copied as far as needed, and again when they change."""

import pathlib
import shutil

from fsspec.implementations import memory
import pytest

from data_pipelines.reading import remote

_URL = "memory://models/one"


@pytest.fixture
def files(tmp_path, monkeypatch) -> memory.MemoryFileSystem:
    """The file system of a folder with three files and one below."""
    monkeypatch.setenv(remote.VARIABLE, str(tmp_path / "cache"))
    files = memory.MemoryFileSystem()
    for name in ("a.json", "b.json", "c.bin", "below/d.json"):
        files.pipe(f"/models/one/{name}", name.encode())
    yield files
    files.rm("/models", recursive=True)


def _names(folder: pathlib.Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_is_asked_for_is_copied_once_into_one_folder(files, monkeypatch, caplog):
    folder = remote.folder(_URL, ["*.json"])
    assert folder.name == "one" and _names(folder) == {"a.json", "b.json"}
    assert remote.folder(f"{_URL}/", ["c.bin"]) == folder and _names(folder) > {"c.bin"}
    said = [record.message.partition(", to ")[0] for record in caplog.records]
    assert said == [
        f"copying {count} files of {_URL}, 0.0 MB" for count in ("2 of the 2", "1 of the 1")
    ]
    monkeypatch.setattr(memory.MemoryFileSystem, "get_file", None)
    assert remote.folder(_URL, ["*"]) == folder


def test_a_folder_that_changed_is_another(files):
    first = remote.folder(_URL, ["*.json"])
    files.pipe("/models/one/b.json", b"other!")
    second = remote.folder(_URL, ["*.json"])
    assert (first / "b.json").read_bytes() == b"b.json"
    assert (second / "b.json").read_bytes() == b"other!"


def test_an_interrupted_copy_goes_on_and_a_short_one_is_none(files, monkeypatch):
    get_file = memory.MemoryFileSystem.get_file

    def cut(self, path, local, **options):
        get_file(self, path, local, **options)
        if path.endswith("b.json"):
            pathlib.Path(local).write_bytes(b"b")

    with monkeypatch.context() as patch:
        patch.setattr(memory.MemoryFileSystem, "get_file", cut)
        with pytest.raises(ValueError, match=f"{_URL}/b.json must have 6 bytes, got 1: copy it"):
            remote.folder(_URL, ["*.json"])
    (folder,) = (remote.cache() / "folders").glob("*/one")
    assert _names(folder) == {"a.json"}
    assert remote.folder(_URL, ["*.json"]) == folder and _names(folder) == {"a.json", "b.json"}


def test_what_is_no_folder_or_does_not_fit_is_refused(files, monkeypatch):
    for url in ("memory://models/two", f"{_URL}/a.json"):
        with pytest.raises(ValueError, match=f"{url} must be a folder, got none there"):
            remote.folder(url, ["*"])
    usage = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"needs 0.0 MB, 0.0 MB are free; free some, or name another"):
        remote.folder(_URL, ["*"])
