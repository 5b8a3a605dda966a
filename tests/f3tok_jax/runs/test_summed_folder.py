# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sounds with checksums beside them: what sha256sum accepts, and what is refused by name."""

import os
import subprocess

import pytest

from f3tok_jax.runs import summed_folder


@pytest.fixture
def folder(tmp_path):
    folder = summed_folder.SummedFolder(tmp_path / "00000012")
    for index in range(3):
        folder.write(f"{index}_reference.wav", bytes(range(100 + index)))
    folder.close()
    return tmp_path / "00000012"


def test_sha256sum_accepts_what_was_written(folder):
    command = ["sha256sum", "--check", "--strict", summed_folder.NAME]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and ended.stdout.count(": OK") == 3, ended
    assert sorted(path.name for path in folder.iterdir())[3:] == [summed_folder.NAME]
    for path in folder.glob("*.wav"):
        summed_folder.check(path)


def test_a_flipped_bit_of_a_sound_is_refused_by_name(folder):
    path = folder / "1_reference.wav"
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 11):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(ValueError, match="1_reference.wav is not as SHA256SUMS has it"):
            summed_folder.check(path)
        summed_folder.check(folder / "0_reference.wav")


def test_a_flipped_bit_of_the_checksums_refuses_but_never_lets_pass(folder):
    sums = folder / summed_folder.NAME
    whole, other = sums.read_bytes(), folder / "0_reference.wav"
    other.write_bytes(b"changed")
    for bit in range(0, 8 * len(whole), 23):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        sums.write_bytes(data)
        with pytest.raises(ValueError):
            summed_folder.check(other)


def test_folders_without_checksums_and_files_that_are_not_there_pass(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"a")
    summed_folder.check(tmp_path / "a.wav")
    summed_folder.check(tmp_path / "absent.wav")
    summed_folder.SummedFolder(tmp_path / "new").close()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda path: path.symlink_to(path.parent / "nowhere"), "No such file"),
        (lambda path: path.mkdir(), "it is not a file"),
        (os.mkfifo, "it is not a file"),
    ],
)
def test_checksums_that_cannot_be_read_refuse(tmp_path, make, reason):
    (tmp_path / "a.wav").write_bytes(b"a")
    make(tmp_path / summed_folder.NAME)
    with pytest.raises(ValueError, match=f"a.wav cannot be compared with SHA256SUMS: {reason}"):
        summed_folder.check(tmp_path / "a.wav")
