# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What may be written: no input by any of its names, no other kind of file, nothing unasked."""

import os

import numpy as np
import pytest
import soundfile

from f3tok_jax.inference import outputs


def _sound(path):
    soundfile.write(path, np.zeros(100), 16_000, format="WAV")
    return str(path)


def _latents(path):
    np.savez(path, version=2, latents=np.zeros(3), fingerprint="abc")
    return str(path)


def test_a_new_file_may_be_written_where_a_folder_can_be_made(tmp_path):
    checked = outputs.Outputs("latents", [])
    checked.check(str(tmp_path / "new" / "folder" / "a.npz"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "a.npz", tmp_path / "file" / "b" / "a.npz"):
        with pytest.raises(ValueError, match="in a folder that is there or can be made"):
            checked.check(str(place))


def test_a_folder_is_no_file_even_with_force(tmp_path):
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(ValueError, match="must be a file in a folder"):
        outputs.Outputs("latents", [], force=True).check(str(tmp_path / "a.npz"))


@pytest.mark.parametrize("kind, name", [("latents", "a.wav"), ("sound", "a.npz"), ("sound", "a")])
def test_other_endings_are_refused(tmp_path, kind, name):
    with pytest.raises(ValueError, match=f"{name} must end in .* to hold {kind}"):
        outputs.Outputs(kind, [], force=True).check(str(tmp_path / name))


@pytest.mark.parametrize(
    "kind, make, name", [("latents", _latents, "a.npz"), ("sound", _sound, "a.wav")]
)
def test_what_exists_is_replaced_by_force_alone(tmp_path, kind, make, name):
    path = make(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} must be a new file, got one that exists"):
        outputs.Outputs(kind, []).check(path)
    outputs.Outputs(kind, [], force=True).check(path)
    open(path, "wb").close()  # Nothing is lost with a file of no bytes.
    outputs.Outputs(kind, [], force=True).check(path)


@pytest.mark.parametrize(
    "kind, name, write",
    [
        ("latents", "a.npz", lambda path: path.write_text("notes")),
        ("latents", "a.npz", lambda path: np.savez(path, features=np.zeros(3))),
        ("latents", "a.npz", lambda path: os.mkfifo(path)),
        ("latents", "a.npz", lambda path: path.symlink_to("nowhere")),
        ("sound", "a.wav", lambda path: path.write_text("notes")),
        ("sound", "a.flac", lambda path: soundfile.write(path, np.zeros(9), 8_000, format="OGG")),
        ("sound", "a.wav", lambda path: os.mkfifo(path)),
    ],
)
def test_what_is_of_another_kind_is_never_replaced(tmp_path, kind, name, write):
    write(tmp_path / name)
    for force, words in ((False, "got one that exists"), (True, f"must replace {kind} alone")):
        with pytest.raises(ValueError, match=words):
            outputs.Outputs(kind, [], force=force).check(str(tmp_path / name))


def _relative(path, other):
    os.chdir(path.parent)
    return path.name


def _hard_link(path, other):
    os.link(path, other)
    return str(other)


def _link(path, other):
    other.symlink_to(path)
    return str(other)


def _linked_folder(path, other):
    other.parent.joinpath("folder").symlink_to(path.parent)
    return str(other.parent / "folder" / path.name)


def _dots(path, other):
    return str(path.parent / "." / ".." / path.parent.name / path.name)


@pytest.mark.parametrize("rename", [_relative, _hard_link, _link, _linked_folder, _dots])
@pytest.mark.parametrize("force", [False, True])
def test_an_input_is_never_written_over_by_any_name(tmp_path, monkeypatch, rename, force):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "in.wav"
    _sound(path)
    output = rename(path, tmp_path / "other.wav")
    with pytest.raises(ValueError, match="must be none of the files that are read"):
        outputs.Outputs("sound", [str(path)], force=force).check(output)


def test_neither_is_one_that_has_the_name_that_is_written_first(tmp_path):
    path = _sound(tmp_path / ".a.wav.partial")
    with pytest.raises(ValueError, match="must be none of the files that are read"):
        outputs.Outputs("sound", [path]).check(str(tmp_path / "a.wav"))


def test_what_was_just_written_is_not_replaced_by_force(tmp_path):
    """As on file systems that take a.wav and A.wav for one."""
    checked = outputs.Outputs("sound", [], force=True)
    checked.wrote(_sound(tmp_path / "a.wav"))
    (tmp_path / "A.wav").hardlink_to(tmp_path / "a.wav")
    with pytest.raises(ValueError, match="or were just written"):
        checked.check(str(tmp_path / "A.wav"))
