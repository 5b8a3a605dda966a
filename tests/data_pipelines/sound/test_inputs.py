# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a folder offers and passes over, labels and texts, and embedded corpora as an input."""

import os

import numpy as np
import pytest
import soundfile

from data_pipelines.embedded import corpora
from data_pipelines.sound import inputs
from tests.support import sounds


def _keys(source) -> list[str]:
    return [item.key for item in source.listing().items]


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
    source = inputs.Folder(str(tmp_path))
    # m4a is sound, though not for us: listed, so that its refusal is reported.
    assert _keys(source) == ["a/b/d.mp3", "a/c.FLAC", "b.wav", "e.ogg", "phone.m4a"]
    assert source.listing().skipped == {".jpg": 1, ".txt": 1, "no ending": 1}


def test_globs_choose_by_path_or_name(tmp_path):
    _touch(tmp_path, "train/a_1.wav", "train/a_2.wav", "test/a_1.wav", "test/b.sph", "test/b.txt")
    assert _keys(inputs.Folder(str(tmp_path), include=("train/*",))) == [
        "train/a_1.wav",
        "train/a_2.wav",
    ]
    assert _keys(inputs.Folder(str(tmp_path), include=("*_1.wav",))) == [
        "test/a_1.wav",
        "train/a_1.wav",
    ]
    source = inputs.Folder(str(tmp_path), exclude=("test/*",))
    assert _keys(source) == ["train/a_1.wav", "train/a_2.wav"]
    assert source.listing().skipped == {"excluded": 3}
    # A glob says that a file is sound, whatever its ending.
    assert _keys(inputs.Folder(str(tmp_path), include=("*.sph",))) == ["test/b.sph"]


def test_links_are_followed_and_circles_end(tmp_path):
    _touch(tmp_path, "real/a.wav")
    (tmp_path / "set").mkdir()
    os.symlink(tmp_path / "real", tmp_path / "set" / "linked")
    os.symlink(tmp_path / "set", tmp_path / "real" / "circle")
    os.symlink(tmp_path / "nowhere", tmp_path / "set" / "broken.wav")
    assert _keys(inputs.Folder(str(tmp_path / "set"))) == ["linked/a.wav"]


def test_one_file_is_an_input(tmp_path):
    soundfile.write(tmp_path / "one.wav", sounds.tone(), 16_000)
    source = inputs.Folder(str(tmp_path / "one.wav"))
    (item,) = source.listing().items
    assert item.key == "one.wav"
    with source.opened(item) as sound:
        assert sound.sample_rate == 16_000


def test_labels_come_from_the_name_or_the_path(tmp_path):
    sounds.write_folder(tmp_path / "english", num_files=1)
    by_name = inputs.Folder(str(tmp_path), label_pattern=r"^(?P<digit>\d)_(?P<speaker>[a-z]+)")
    by_path = inputs.Folder(str(tmp_path), label_pattern=r"^(?P<language>\w+)/")
    for source, expected in (
        (by_name, {"digit": "0", "speaker": "ada"}),
        (by_path, {"language": "english"}),
    ):
        with source.opened(source.listing().items[0]) as sound:
            assert sound.labels == expected


@pytest.mark.parametrize("pattern, message", [("(?P<a>", "not a regular"), (r"\d+", "named group")])
def test_bad_label_patterns_are_refused(pattern, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        inputs.Folder(str(tmp_path), label_pattern=pattern)


def test_missing_folder_is_refused():
    with pytest.raises(ValueError, match="does not exist"):
        inputs.Folder("no/such/folder")


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
    source = inputs.Folder(str(tmp_path), metadata=str(metadata), metadata_columns=columns)
    first, second = source.listing().items
    with source.opened(first) as sound:
        assert (sound.text, sound.task, sound.labels) == (
            'One, two "three"',
            "speech",
            {"speaker": "ada"},
        )
    with source.opened(second) as sound:
        assert (sound.text, sound.task, sound.labels) == ("", "", {})


def test_embedded_clips_are_the_corpus_own():
    source = inputs.embedded(
        ["events"], num_clips=2, hours=0.0, seed=5, sample_rate=16_000, say=print
    )
    items = source.listing().items
    clip = corpora.generate("events", 1, seed=5, sample_rate=16_000)
    assert items[1].key == clip.key
    with source.opened(items[1]) as sound:
        np.testing.assert_array_equal(np.concatenate(list(sound.blocks))[:, 0], clip.waveform)
        assert (sound.text, sound.task) == (clip.text, clip.task)
        assert sound.labels == {"corpus": "events", **clip.labels}


def test_embedded_hours_are_met_roughly():
    source = inputs.embedded(
        ["events"], num_clips=0, hours=0.1, seed=0, sample_rate=8_000, say=print
    )
    assert 360 / 8 <= source.num_clips[0] <= 360 / 0.4  # a clip has 0.4 to 8 seconds


def test_corpora_that_cannot_be_made_are_said_or_refused(monkeypatch):
    reason = "install the extra demo"
    reasons = {"speech": reason, "digits": reason, "music": None, "events": None}
    monkeypatch.setattr(corpora, "available", reasons.get)
    said = []
    options = dict(num_clips=1, hours=0.0, seed=0, sample_rate=16_000, say=said.append)
    assert inputs.embedded([], **options).corpora == ("music", "events")
    assert said == [f"without the {name} corpus: {reason}" for name in ("speech", "digits")]
    with pytest.raises(ValueError, match="speech cannot be made: install the extra demo"):
        inputs.embedded(["speech", "music"], **options)


@pytest.mark.parametrize("num_clips, hours", [(0, 0.0), (3, 1.0)])
def test_embedded_corpora_need_one_size(num_clips, hours):
    with pytest.raises(ValueError, match="either --num_clips or --hours"):
        inputs.embedded([], num_clips=num_clips, hours=hours, seed=0, sample_rate=16_000, say=print)
