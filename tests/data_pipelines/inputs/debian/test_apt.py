# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Packages of the cache: fetched whole or not at all, once, and anew where they were changed."""

import shutil
import subprocess

import pytest

from data_pipelines.inputs.debian import apt
from tests.support import debs

pytestmark = pytest.mark.skipif(
    not shutil.which("dpkg-deb"), reason="no dpkg-deb, which unpacks packages"
)
FILES = {"usr/share/a/one.wav": b"1234", "usr/share/a/two.txt": b"12"}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    return debs.repository(tmp_path, monkeypatch)


def _unpacked(tmp_path, *names):
    said = []
    return apt.unpacked(names, tmp_path / "cache", said.append), said


def test_a_package_is_fetched_once_and_kept_unpacked(repository, tmp_path):
    repository.add("speech", FILES, version="1:2.0-3")
    found, said = _unpacked(tmp_path, "speech")
    assert said == [f"fetching the package speech into {tmp_path / 'cache'}"]
    assert found["speech"].version == "1:2.0-3"
    root = tmp_path / "cache" / "speech" / "files"
    assert found["speech"].root == str(root)
    for name, content in FILES.items():
        assert (root / name).read_bytes() == content
    assert not list((tmp_path / "cache").rglob("*.deb"))
    shutil.rmtree(repository.folder)  # without network
    assert _unpacked(tmp_path, "speech") == (found, [])


@pytest.mark.parametrize("change", ["removed", "longer", "unsealed"])
def test_what_was_changed_is_fetched_again(change, repository, tmp_path):
    repository.add("speech", FILES)
    found, _ = _unpacked(tmp_path, "speech")
    folder = tmp_path / "cache" / "speech"
    one = folder / "files" / "usr/share/a/one.wav"
    if change == "removed":
        one.unlink()
    elif change == "longer":
        one.write_bytes(b"12345")
    else:
        content = folder / "package.json"
        content.write_text(content.read_text().replace("1.0-1", "1.0-2"))
    assert _unpacked(tmp_path, "speech")[0] == found
    assert one.read_bytes() == b"1234" and repository.asked == ["speech", "speech"]


def test_a_folder_of_somebody_else_is_left_alone(repository, tmp_path):
    repository.add("speech", FILES)
    own = tmp_path / "cache" / "speech" / "mine.txt"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    with pytest.raises(ValueError, match="got something else: choose another --data_dir"):
        _unpacked(tmp_path, "speech")
    assert own.read_text() == "mine"


def test_a_package_that_apt_does_not_know_is_refused_in_its_words(repository, tmp_path):
    with pytest.raises(ValueError, match="E: Unable to locate package music: .* apt-get update"):
        _unpacked(tmp_path, "music")
    assert not (tmp_path / "cache" / "music").exists()


def test_a_download_that_ends_early_leaves_nothing_behind(repository, tmp_path):
    repository.add("speech", FILES)
    (repository.folder / "interrupted").touch()
    with pytest.raises(ValueError, match="Connection timed out: see to the network"):
        _unpacked(tmp_path, "speech")
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["lock"]
    (repository.folder / "interrupted").unlink()
    assert _unpacked(tmp_path, "speech")[0]["speech"].name == "speech"


def test_a_package_that_is_damaged_is_refused_and_the_next_attempt_fetches_it(repository, tmp_path):
    path = repository.add("speech", {**FILES, "usr/share/a/noise.wav": bytes(range(256)) * 99})
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    with pytest.raises(
        ValueError, match="speech must come whole.*dpkg-deb.*damaged and was removed"
    ):
        _unpacked(tmp_path, "speech")
    assert not (tmp_path / "cache" / "speech").exists()
    path.write_bytes(whole)
    assert _unpacked(tmp_path, "speech")[0]["speech"].name == "speech"


def test_what_a_killed_attempt_left_is_cleared_away(repository, tmp_path):
    repository.add("speech", FILES)
    left = tmp_path / "cache" / ".speech.partial" / "speech_1.0_all.deb"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    assert _unpacked(tmp_path, "speech")[0]["speech"].version == "1.0-1"
    assert not left.parent.exists()


def test_without_apt_the_sentence_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="got no apt-get and no dpkg-deb: build the shards on"):
        _unpacked(tmp_path, "speech")


def test_a_full_disk_is_said_as_one(repository, tmp_path, monkeypatch):
    repository.add("speech", FILES)
    words = "dpkg-deb: error: failed to write: No space left on device"
    failed = subprocess.CompletedProcess([], 2, "", words)
    monkeypatch.setattr(apt.subprocess, "run", lambda *given, **options: failed)
    with pytest.raises(OSError, match="No space left on device"):
        _unpacked(tmp_path, "speech")
