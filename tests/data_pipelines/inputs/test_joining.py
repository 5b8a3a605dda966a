# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Rows and sounds: all are accounted for, and rows that contradict each other are refused."""

import pytest

from data_pipelines.inputs import joining
from data_pipelines.inputs import matching
from data_pipelines.inputs import tables

_ANN_BEN = ("ann/1.wav", "ann/2.wav", "ben/1.wav", "ben/2.wav")


def _joined(folder, names, *contents, left_out=(), root="/data/set"):
    sounds = matching.Sounds(root, {name: "" if name in left_out else name for name in names})
    joined = joining.Joined(sounds, [name for name in names if name not in left_out])
    for index, content in enumerate(contents):
        path = folder / f"{index}.csv"
        path.write_text(content)
        table = tables.read(path, tables.Options(), sounds.knows)
        joined.add(joining.Group(path.name, [table]))
    return joined


def test_every_row_and_every_sound_is_counted(tmp_path):
    table = "file,text\na.wav,one\na.wav,one\nb,two\nx.wav,three\ny.wav,four\n,\nd,five\n"
    joined = _joined(tmp_path, ("a.wav", "b.wav", "c.wav", "d.wav"), table, left_out=["d.wav"])
    assert joined.summary() == {
        "matched": 2,
        "repeated": 1,
        "without sound": 2,
        "of sounds left out": 1,
        "blank": 1,
        "sounds without row": 1,
    }
    (remark,) = joined.remarks
    assert remark == (
        "0.csv: 3 of 6 rows matched (50 %), 1 of them repeated, 2 without sound such as x.wav, "
        "1 of sounds left out, 1 blank; 1 of 3 sounds without a row"
    )


def test_captions_add_up_and_tables_complete_each_other(tmp_path):
    captions = "file,caption,speaker\na,one,ann\na,two,ann\nb,three,ben\n"
    more = "file,text,room\na,hello,hall\nb,,hall\n"
    joined = _joined(tmp_path, ("a.wav", "b.wav"), captions, more)
    assert [text.content for text in joined.texts("a.wav")] == ["one", "two", "hello"]
    assert joined.labels("b.wav") == {"speaker": "ben", "room": "hall"}
    assert joined.summary() == {"matched": 5}


@pytest.mark.parametrize(
    "contents, message",
    [
        (["file,text\na,one\nb,x\na.wav,two\n"], "0.csv, line 2, and .*0.csv, line 4, .* of a.wav"),
        (["file,text\na,one\n", "file,text\na,two\n"], "0.csv, line 2, and .*1.csv, line 2,"),
        (["file,caption,speaker\na,one,ann\na,two,ben\n"], "speaker is 'ann' and 'ben'"),
        (["file,text\nA,one\na,two\n"], "line 2, and .* line 3"),
    ],
)
def test_rows_that_contradict_each_other_are_refused_by_both_lines(contents, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        _joined(tmp_path, ("a.wav", "b.wav"), *contents)


def test_the_same_name_in_two_folders_is_refused(tmp_path):
    with pytest.raises(ValueError, match="line 2, must name one sound.*ann/1.wav and ben/1.wav"):
        _joined(tmp_path, _ANN_BEN, "file,text\n1,ann one\n2,ann two\n")


@pytest.mark.parametrize("names", [("ann/1.wav", "ann/2.wav"), ("ann/1.wav", "top.wav")])
def test_a_speaker_who_is_not_there_gives_no_text_to_another(names, tmp_path):
    table = "file,text\nann/1.wav,ann one\nben/1.wav,ben one\nben/2.wav,ben two\n"
    joined = _joined(tmp_path, names, table)
    assert [len(joined.texts(name)) for name in names] == [1, 0]
    assert joined.summary() == {"matched": 1, "without sound": 2, "sounds without row": 1}
    # The folder that is searched may be the speaker's.
    table = "file,text\nann/1.wav,ann one\nben/1.wav,ben one\n"
    joined = _joined(tmp_path, ("1.wav",), table, root="/data/ben")
    assert [text.content for text in joined.texts("1.wav")] == ["ben one"]
    # Sounds of two speakers, rows of two others.
    with pytest.raises(ValueError, match="2 rows that name none, such as 'carl/3.wav'"):
        _joined(tmp_path, ("ann/3.wav", "ben/4.wav"), "file,text\ncarl/3.wav,x\ndora/4.wav,y\n")


def test_a_folder_of_another_name_is_seen_through_and_said(tmp_path):
    table = "file,text\nclips/a.mp3,one\nclips/b.mp3,two\n"
    joined = _joined(tmp_path, ("wav/a.wav", "wav/b.wav"), table)
    assert joined.summary() == {"matched": 2}
    assert "2 by the name alone, such as 'clips/a.mp3' for 'wav/a.wav'" in joined.remarks[0]
    # Not where two rows have that name.
    table += "old/a.mp3,three\n"
    joined = _joined(tmp_path, ("wav/a.wav", "wav/b.wav"), table)
    assert joined.texts("wav/a.wav") == () and joined.summary()["without sound"] == 2


def test_spellings_are_said(tmp_path):
    joined = _joined(tmp_path, ("A.wav", "gru\u0308n.wav"), "file,text\na,x\ngr\u00fcn,y\n")
    assert "1 by another Unicode form, such as 'gr\u00fcn'" in joined.remarks[0]
    assert "1 by another case, such as 'a' for 'A.wav'" in joined.remarks[0]


def test_a_table_of_no_sound_is_refused(tmp_path):
    with pytest.raises(ValueError, match="0.csv must name sounds .*'a.wav'.*2 rows .*such as 'x'"):
        _joined(tmp_path, ("a.wav",), "file,text\nx,one\ny,two\n")


def test_a_table_of_labels_alone_is_said(tmp_path):
    joined = _joined(tmp_path, ("a.wav",), "file,words,age\na,hello,3\n")
    assert joined.remarks[0].endswith("; no texts, but labels: age, words")
