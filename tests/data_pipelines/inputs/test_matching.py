# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A name in a table is that of one sound, of none, or of several and refused."""

import unicodedata

import pytest

from data_pipelines.inputs import matching


def _sounds(*names, root="/data/set", left_out=()):
    return matching.Sounds(root, {name: "" if name in left_out else name for name in names})


@pytest.mark.parametrize(
    "name, folder",
    [
        ("ann/u1.wav", ""),
        ("./ann/u1.wav", ""),
        ("ann//u1.wav", ""),
        ("ann\\u1.wav", ""),
        (".\\ann\\u1.wav", ""),
        ("ann/u1", ""),
        ("ann/u1.mp3", ""),
        ("/data/set/ann/u1.wav", "/elsewhere"),
        ("file:///data/set/ann/u1.wav", ""),
        ("u1.wav", "/data/set/ann"),
        ("../ann/u1.wav", "/data/set/meta"),
        ("set/ann/u1.wav", "/data"),
    ],
)
def test_a_path_from_the_folder_or_the_table_is_found(name, folder):
    sounds = _sounds("ann/u1.wav", "ben/u1.wav")
    match = sounds.find(name, folder)
    assert (match.key, match.how, match.differs) == ("ann/u1.wav", matching.BY_PATH, "")
    assert sounds.knows(name, folder)


@pytest.mark.parametrize(
    "name, key",
    [
        ("u2.wav", "ann/u2.wav"),
        ("/home/x/corpus/ann/u1.wav", "ann/u1.wav"),
        ("C:\\corpus\\ben\\u1.wav", "ben/u1.wav"),
        ("/home/x/top.wav", "top.wav"),
        ("u3.v2", "ann/u3.v2.wav"),
    ],
)
def test_the_longest_end_of_a_path_decides(name, key):
    sounds = _sounds("ann/u1.wav", "ben/u1.wav", "ann/u2.wav", "top.wav", "ann/u3.v2.wav")
    match = sounds.find(name)
    assert (match.key, match.how) == (key, matching.BY_END)


def test_a_name_of_several_sounds_is_ambiguous():
    sounds = _sounds("ann/u1.wav", "ben/u1.wav", "x/a.wav", "x/a.flac")
    for name, candidates in (
        ("u1.wav", "ann/u1.wav and ben/u1.wav"),
        ("u1", "ann/u1.wav and ben/u1.wav"),
        ("x/a", "x/a.flac and x/a.wav"),
        ("x/a.mp3", "x/a.flac and x/a.wav"),
    ):
        assert sounds.knows(name)
        with pytest.raises(matching.Ambiguous, match=candidates):
            sounds.find(name)
    assert sounds.find("x/a.wav").key == "x/a.wav"
    # Also where one of them is left out: the row may be its own.
    with pytest.raises(matching.Ambiguous):
        _sounds("ann/u1.wav", "ben/u1.wav", left_out=["ben/u1.wav"]).find("u1")
    # Nobody says that another speaker's sound is meant.
    assert sounds.find("carl/u1.wav") is None


def test_the_name_alone_is_said_with_the_folders_that_differ():
    sounds = _sounds("wav48/p1/p1_1.wav", "wav48/p2/p2_1.wav")
    match = sounds.find("/old/clips/p1/p1_1.mp3")
    assert (match.key, match.how, match.folders) == (
        "wav48/p1/p1_1.wav",
        matching.BY_NAME,
        ("clips", "wav48"),
    )


def test_a_path_inside_the_folder_is_known_in_full():
    sounds = _sounds("1.wav", "ann/2.wav")
    assert sounds.find("/old/ann/1").how == matching.BY_END
    match = sounds.find("/data/set/ann/1")
    assert (match.key, match.how, match.folders) == ("1.wav", matching.BY_NAME, ("ann", ""))


def test_spellings_do_not_separate_and_are_said():
    composed, decomposed = "gr\u00fcn.wav", unicodedata.normalize("NFD", "gr\u00fcn.wav")
    assert _sounds(decomposed).find(composed).differs == "Unicode form"
    assert _sounds(composed).find(decomposed).differs == "Unicode form"
    assert _sounds(composed, decomposed).find(decomposed).key == decomposed
    assert _sounds("U1.WAV").find("u1.wav").differs == "case"
    assert _sounds("U1.wav", "u1.wav").find("u1.wav").key == "u1.wav"
    with pytest.raises(matching.Ambiguous):
        _sounds("UA.wav", "uA.wav").find("ua.wav")


def test_what_is_no_name_finds_nothing():
    sounds = _sounds("a.wav")
    for name in ("", ".", "./", "..", "b.wav", "a.wav.wav", "speech.a", "\udcff"):
        assert sounds.find(name) is None
    assert _sounds("\udcff.wav").find("\udcff.wav").key == "\udcff.wav"


def test_links_lead_to_the_sound_and_no_number_of_equal_names_is_slow():
    sounds = matching.Sounds("/x", {"a/u1.wav": "a/u1.wav", "b/u1.wav": "a/u1.wav"})
    assert sounds.find("u1").key == "a/u1.wav"
    names = [f"{index}/audio.wav" for index in range(5_000)]
    sounds = matching.Sounds("/x", dict(zip(names, names)))
    assert all(sounds.find(f"/old/{name}").key == name for name in names)
