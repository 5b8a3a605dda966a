# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a folder offers and passes over, and the labels and texts that come with it."""

import os

import pytest
import soundfile

from data_pipelines.inputs import folders
from data_pipelines.records import sound as sound_records
from tests.support import sounds


def _keys(source) -> list[str]:
    return [item.key for item in source.listed().items]


def _touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_sound_is_found_at_any_depth_and_the_rest_is_passed_over(tmp_path):
    _touch(
        tmp_path,
        "b.wav",
        "a/c.FLAC",
        "a/b/d.mp3",
        "e.ogg",
        "phone.m4a",
        "notes.txt",
        "cover.jpg",
        "README",
        ".hidden.wav",
        "._shadow.wav",
        ".ipynb_checkpoints/b-checkpoint.wav",
        "__MACOSX/b.wav",
        "a/.git/x.wav",
    )
    source = folders.Folder(str(tmp_path))
    # m4a is sound, though not for us: listed, so that its refusal is reported.
    assert _keys(source) == ["a/b/d.mp3", "a/c.FLAC", "b.wav", "e.ogg", "phone.m4a"]
    assert source.listed().skipped == {".jpg": 1, ".txt": 1, "no ending": 1}


def test_globs_choose_by_path_or_name(tmp_path):
    _touch(tmp_path, "train/a_1.wav", "train/a_2.wav", "test/a_1.wav", "test/b.sph", "test/b.txt")
    assert _keys(folders.Folder(str(tmp_path), include=("train/*",))) == [
        "train/a_1.wav",
        "train/a_2.wav",
    ]
    assert _keys(folders.Folder(str(tmp_path), include=("*_1.wav",))) == [
        "test/a_1.wav",
        "train/a_1.wav",
    ]
    source = folders.Folder(str(tmp_path), exclude=("test/*",))
    assert _keys(source) == ["train/a_1.wav", "train/a_2.wav"]
    assert source.listed().skipped == {"excluded": 3}
    # A glob says that a file is sound, whatever its ending.
    assert _keys(folders.Folder(str(tmp_path), include=("*.sph",))) == ["test/b.sph"]


def test_links_are_followed_and_circles_end(tmp_path):
    _touch(tmp_path, "real/a.wav")
    (tmp_path / "set").mkdir()
    os.symlink(tmp_path / "real", tmp_path / "set" / "linked")
    os.symlink(tmp_path / "set", tmp_path / "real" / "circle")
    os.symlink(tmp_path / "nowhere", tmp_path / "set" / "broken.wav")
    assert _keys(folders.Folder(str(tmp_path / "set"))) == ["linked/a.wav"]


def test_one_file_is_an_input(tmp_path):
    soundfile.write(tmp_path / "one.wav", sounds.tone(), 16_000)
    source = folders.Folder(str(tmp_path / "one.wav"))
    (item,) = source.listed().items
    assert item.key == "one.wav"
    with source.opened(item) as sound:
        assert sound.sample_rate == 16_000


def test_labels_come_from_the_name_or_the_path(tmp_path):
    sounds.write_folder(tmp_path / "english", num_files=1)
    by_name = folders.Folder(str(tmp_path), label_pattern=r"^(?P<digit>\d)_(?P<speaker>[a-z]+)")
    by_path = folders.Folder(str(tmp_path), label_pattern=r"^(?P<language>\w+)/")
    for source, expected in (
        (by_name, {"digit": "0", "speaker": "ada"}),
        (by_path, {"language": "english"}),
    ):
        with source.opened(source.listed().items[0]) as sound:
            assert sound.labels == expected


@pytest.mark.parametrize("pattern, message", [("(?P<a>", "not a regular"), (r"\d+", "named group")])
def test_bad_label_patterns_are_refused(pattern, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        folders.Folder(str(tmp_path), label_pattern=pattern)


def test_missing_folder_is_refused():
    with pytest.raises(ValueError, match="does not exist"):
        folders.Folder("no/such/folder")


@pytest.mark.parametrize(
    "table, columns",
    [
        ('file,text,speaker,empty\n0_ada_0.wav,"One, two ""three""",ada,\n', ()),
        ('0_ada_0|One, two "three"|ada|x\n', ("id", "text", "speaker", "_")),
        ('\ufefffile\ttext\tspeaker\nsub/0_ada_0.wav\tOne, two "three"\tada\n', ()),
    ],
)
def test_texts_and_labels_come_from_a_table(table, columns, tmp_path):
    sounds.write_folder(tmp_path / "sub", num_files=2)
    metadata = tmp_path / "metadata.csv"
    metadata.write_text(table, encoding="utf-8")
    source = folders.Folder(str(tmp_path), metadata=str(metadata), metadata_columns=columns)
    first, second = source.listed().items
    with source.opened(first) as sound:
        assert sound.texts == (sound_records.Text('One, two "three"', "transcript"),)
        assert sound.labels == {"speaker": "ada"}
    with source.opened(second) as sound:
        assert (sound.texts, sound.labels) == ((), {})
