# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Files of whole pieces: on full disks, after kills, in folders that come and go, in buckets."""

import os
import shutil

from etils import epath
import pytest

from f3tok_jax.runs import appended_file
from tests.support import disks


@pytest.mark.reliability("R08")
def test_a_piece_without_room_leaves_nothing_and_the_next_is_whole(tmp_path):
    path = tmp_path / "lines"
    file = appended_file.AppendedFile(path, end=b"\n")
    file.append(b"first\n")
    with disks.room(10):
        with pytest.raises(OSError, match="File too large"):
            file.append(b"second\n")  # Four bytes of it have room.
        assert path.read_bytes() == b"first\n"
        file.append(b"3rd\n")
    file.append(b"fourth\n")
    assert path.read_bytes() == b"first\n3rd\nfourth\n"


def test_half_a_piece_that_could_not_be_taken_away_is_taken_away_before_the_next(
    tmp_path, monkeypatch
):
    path = tmp_path / "events"
    file = appended_file.AppendedFile(path)
    file.append(b"first.")
    opened = open

    class Stubborn:
        def __init__(self, *arguments, **options):
            self._file = opened(*arguments, **options)

        def __enter__(self):
            return self

        def __exit__(self, *raised):
            self._file.close()

        def __getattr__(self, name):
            return getattr(self._file, name)

        def truncate(self, size):
            raise OSError("no")

    monkeypatch.setattr(appended_file, "open", Stubborn, raising=False)
    with disks.room(10), pytest.raises(OSError):
        file.append(b"second.")
    assert path.read_bytes() == b"first.seco"
    monkeypatch.undo()
    file.append(b"third.")
    assert path.read_bytes() == b"first.third."


@pytest.mark.parametrize("before", [b"", b"whole\n", b"cut sho"])
def test_what_was_cut_short_before_does_not_touch_the_next_piece(tmp_path, before):
    path = tmp_path / "lines"
    path.write_bytes(before)
    file = appended_file.AppendedFile(path, end=b"\n")
    file.append(b"next\n")
    file.append(b"last\n")
    assert path.read_bytes().splitlines() == [*before.splitlines(), b"next", b"last"]


def test_a_folder_that_goes_is_noticed_and_used_when_it_is_there_again(tmp_path):
    folder = tmp_path / "run"
    file = appended_file.AppendedFile(folder / "lines", end=b"\n")
    file.replace([b"a\n", b"b\n"])
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError):
        file.append(b"c\n")
    folder.mkdir()
    file.append(b"d\n")
    assert (folder / "lines").read_bytes() == b"d\n"


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_an_error_at_once(tmp_path, kind):
    path = tmp_path / "lines"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(OSError):
        appended_file.AppendedFile(path, end=b"\n").append(b"a\n")


def test_replacing_that_fails_leaves_what_is_there(tmp_path):
    path = tmp_path / "lines"
    file = appended_file.AppendedFile(path, end=b"\n")
    file.append(b"a\n")
    with disks.room(100), pytest.raises(OSError):
        file.replace([b"b\n", bytes(100_000)])
    assert path.read_bytes() == b"a\n" and list(tmp_path.iterdir()) == [path]


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """A place that is written like a bucket: whole objects, which this counts."""

    class Object:
        written = []

        def __init__(self, path):
            self.name = str(path).rpartition("/")[2]
            self._file = epath.Path(tmp_path / self.name)

        def __str__(self):
            return f"gs://bucket/{self.name}"

        def __getattr__(self, name):
            return getattr(self._file, name)

        def write_bytes(self, data):
            self.written.append(data)
            self._file.write_bytes(data)

    path = epath.Path
    make = lambda name: Object(name) if "://" in str(name) else path(name)
    monkeypatch.setattr(appended_file.epath, "Path", make)
    return Object("gs://bucket/lines")


def test_a_bucket_gets_whole_files_where_there_is_something_new(bucket):
    bucket.write_bytes(b"before\n")
    file = appended_file.AppendedFile("gs://bucket/lines", end=b"\n")
    file.append(b"a\n")
    file.append(b"b\n")
    assert bucket.read_bytes() == b"before\n"
    file.publish()
    file.publish()
    assert bucket.written[1:] == [b"before\na\nb\n"]
    file.append(b"c\n")
    file.publish()
    assert bucket.read_bytes() == b"before\na\nb\nc\n"


def test_a_bucket_that_cannot_be_read_loses_nothing_that_is_there(bucket):
    bucket.write_bytes(b"before\n")

    def unreachable():
        yield b"before\n"
        raise OSError("unreachable")

    file = appended_file.AppendedFile("gs://bucket/lines", end=b"\n")
    with pytest.raises(OSError):
        file.replace(unreachable())
    file.append(b"a\n")
    file.publish()
    assert bucket.read_bytes() == b"before\na\n"
