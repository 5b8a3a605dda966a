# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Every entry of a folder is a file or is counted as what it is."""

import os
import socket

import pytest

from data_pipelines.inputs import entries
from data_pipelines.records import manifest


def _touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


def test_entries_that_are_no_files_are_counted(tmp_path):
    for name in ("a.wav", "b/c.wav", ".hidden", ".git/x", "__MACOSX/a.wav"):
        _touch(tmp_path / name)
    for name in (manifest.FILE_NAME, manifest.REFUSALS_NAME):
        _touch(tmp_path / "b" / "shards" / name)
    os.symlink("/nowhere", tmp_path / "broken.wav")
    os.symlink(tmp_path, tmp_path / "b" / "circle")
    os.mkfifo(tmp_path / "pipe.wav")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.wav"))
        found = entries.Entries(str(tmp_path))
    assert sorted(file.key for file in found.files) == ["a.wav", "b/c.wav"]
    assert found.others == {
        "hidden file": 1,
        "hidden folder": 2,
        "broken link": 1,
        "pipe, socket or device": 2,
        "link to the same folder": 1,
    }
    assert found.outputs == [str(tmp_path / "b" / "shards")]


def test_a_folder_that_cannot_be_searched_is_counted_and_the_top_one_refused(tmp_path, monkeypatch):
    _touch(tmp_path / "open" / "a.wav")
    _touch(tmp_path / "shut" / "b.wav")
    search = os.scandir

    def scandir(folder):
        if os.path.basename(folder) == "shut":
            raise PermissionError(13, "Permission denied", folder)
        return search(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    found = entries.Entries(str(tmp_path))
    assert [file.key for file in found.files] == ["open/a.wav"]
    assert found.others == {"unreadable folder": 1}
    assert found.unreadable == [str(tmp_path / "shut")]
    with pytest.raises(PermissionError):
        entries.Entries(str(tmp_path / "shut"))


def test_a_trailing_slash_and_a_dot_change_no_key(tmp_path, monkeypatch):
    _touch(tmp_path / "b" / "c.wav")
    monkeypatch.chdir(tmp_path)
    for root in (str(tmp_path), f"{tmp_path}/", ".", "./", "../" + tmp_path.name):
        assert [file.key for file in entries.Entries(root).files] == ["b/c.wav"]
    for root in ("b/c.wav", str(tmp_path / "b" / "c.wav")):
        assert [file.key for file in entries.Entries(root).files] == ["c.wav"]


def test_real_names_come_before_links(tmp_path):
    _touch(tmp_path / "set" / "z" / "a.wav")
    _touch(tmp_path / "outside" / "b.wav")
    os.symlink(tmp_path / "set" / "z", tmp_path / "set" / "a")
    os.symlink(tmp_path / "outside", tmp_path / "set" / "o")
    found = entries.Entries(str(tmp_path / "set"))
    assert [(file.key, file.is_link) for file in found.files] == [
        ("z/a.wav", False),
        ("o/b.wav", True),
    ]
    assert found.others == {"link to the same folder": 1}
