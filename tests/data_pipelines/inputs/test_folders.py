# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a folder offers and passes over, and the labels and texts that come with it."""

import os

import pytest
import soundfile

from data_pipelines.inputs import folders
from data_pipelines.records import sound as sound_records
from tests.support import cases
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
    passed_over = {".jpg": 1, ".txt": 1, "no ending": 1, "hidden file": 2, "hidden folder": 3}
    assert source.listed().skipped == passed_over


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
    found = folders.Folder(str(tmp_path / "set")).listed()
    assert [item.key for item in found.items] == ["linked/a.wav"]
    assert found.skipped == {"broken link": 1, "link to the same folder": 1}


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


def test_a_label_pattern_must_fit_and_its_share_is_said(tmp_path):
    _touch(tmp_path, "ann_1.wav", "ann_2.wav", "other.wav")
    found = folders.Folder(str(tmp_path), label_pattern=r"(?P<speaker>[a-z]+)_").listed()
    assert found.remarks == ("--label_pattern gives labels to 2 of 3 sounds (66 %)",)
    assert [dict(item.labels) for item in found.items] == [{"speaker": "ann"}] * 2 + [{}]
    with pytest.raises(ValueError, match="must fit the file name of some sound.*'ann_1.wav'"):
        folders.Folder(str(tmp_path), label_pattern=r"(?P<speaker>\d)-").listed()
    with pytest.raises(ValueError, match="must fit the path of some sound"):
        folders.Folder(str(tmp_path), label_pattern=r"^(?P<speaker>\w+)/").listed()
    (tmp_path / "a.csv").write_text("file,speaker\nann_1,ben\n")
    tables = dict(metadata=(str(tmp_path / "a.csv"),))
    with pytest.raises(ValueError, match="a.csv, line 2, has speaker 'ben' .* finds 'ann'"):
        folders.Folder(str(tmp_path), label_pattern=r"(?P<speaker>[a-z]+)_", **tables).listed()


def test_what_is_no_folder_of_sound_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="must hold sound, got none: passed over nothing"):
        folders.Folder(str(tmp_path)).listed()
    _touch(tmp_path, "a.txt", "b.tar", "texts.csv")
    with pytest.raises(ValueError, match="passed over 1 .csv, 1 .tar, 1 .txt.*--source=webdataset"):
        folders.Folder(str(tmp_path)).listed()
    with pytest.raises(ValueError, match="must hold sound, got none: passed over 1 .csv"):
        folders.Folder(str(tmp_path / "texts.csv")).listed()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="must be a folder or a file, got neither"):
        folders.Folder(str(tmp_path / "pipe"))
    with pytest.raises(ValueError, match="--metadata=/no/such.csv does not exist"):
        folders.Folder(str(tmp_path), metadata=("/no/such.csv",))


def test_links_to_the_same_sound_are_one_sound_by_its_real_name(tmp_path):
    _touch(tmp_path, "z/real.wav", "z/hard.wav", "elsewhere.wav")
    folder = tmp_path / "set"
    folder.mkdir()
    os.rename(tmp_path / "z", folder / "z")
    os.symlink(folder / "z" / "real.wav", folder / "a.wav")
    os.symlink(folder / "z", folder / "b")
    os.link(folder / "z" / "hard.wav", folder / "c.wav")
    os.symlink(tmp_path / "elsewhere.wav", folder / "d.wav")
    os.symlink(tmp_path / "elsewhere.wav", folder / "e.wav")
    (folder / "texts.csv").write_text("file,text\na,one\nz/hard,two\ne,three\n")
    found = folders.Folder(str(folder), metadata=("texts.csv",)).listed()
    assert [item.key for item in found.items] == ["c.wav", "d.wav", "z/real.wav"]
    # A table may call a sound by any of its names.
    assert [item.texts[0].content for item in found.items] == ["two", "three", "one"]
    passed_over = {"link to the same folder": 1, "link to the same sound": 3, "table": 1}
    assert found.skipped == passed_over


def test_tables_sidecars_and_archives_that_were_not_named_are_remarked(tmp_path):
    _touch(
        tmp_path, "a.wav", "a.lab", "b.txt", "metadata.csv", "x/1.trans.txt", "s.tar", "p.parquet"
    )
    found = folders.Folder(str(tmp_path)).listed()
    remarks = "\n".join(found.remarks)
    assert "files that look like tables and were not read: 2, such as" in remarks
    assert "give --metadata=" in remarks and "--sidecars=.lab" in remarks
    assert "--source=webdataset" in remarks and "--source=parquet" in remarks
    assert "--sidecars=.txt" not in remarks


def test_excluded_sounds_have_rows_of_their_own(tmp_path):
    _touch(tmp_path, "train/1.wav", "test/2.wav", "test/1.wav")
    (tmp_path / "a.csv").write_text("file,text\ntrain/1,one\ntest/2,two\ntest/1,three\n")
    table = dict(metadata=(str(tmp_path / "a.csv"),))
    found = folders.Folder(str(tmp_path), exclude=("test/*",), **table).listed()
    assert [item.texts[0].content for item in found.items] == ["one"]
    assert found.rows == {"matched": 1, "of sounds left out": 2}


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
    source = folders.Folder(str(tmp_path), metadata=(str(metadata),), metadata_columns=columns)
    first, second = source.listed().items
    with source.opened(first) as sound:
        assert sound.texts == (sound_records.Text('One, two "three"', "transcript"),)
        assert sound.labels == {"speaker": "ada"}
    with source.opened(second) as sound:
        assert (sound.texts, sound.labels) == ((), {})


def test_sidecars_lie_beside_or_in_a_parallel_folder(tmp_path):
    _touch(tmp_path, "wav/p1/1.wav", "wav/p2/1.wav")
    for name, text in (
        ("txt/p1/1.txt", "one\n"),
        ("txt/p2/1.txt", "two\nlines"),
        ("README.txt", "x"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for sidecars in (".txt", str(tmp_path / "txt" / "**" / "*.txt")):
        found = folders.Folder(str(tmp_path), sidecars=(sidecars,)).listed()
        assert [item.texts[0].content for item in found.items] == ["one", "two lines"]
        assert found.rows["matched"] == 2
    assert found.skipped == {".txt": 1, "sidecar": 2}
    for name in ("wav/p1/1.normalized.txt", "wav/p1/1.original.txt"):
        (tmp_path / name).write_text(name)
    found = folders.Folder(str(tmp_path), sidecars=(".normalized.txt",)).listed()
    assert [len(item.texts) for item in found.items] == [1, 0]
    assert found.items[0].texts[0].content == "wav/p1/1.normalized.txt"
    with pytest.raises(ValueError, match="--sidecars=.*lab fits no file"):
        folders.Folder(str(tmp_path), sidecars=(".lab",)).listed()


def test_the_ending_of_sidecars_may_be_of_another_case_and_that_is_said(tmp_path):
    _touch(tmp_path, "DR1/SA1.WAV")
    (tmp_path / "DR1" / "SA1.TXT").write_text("0 46797 She had your dark suit.")
    remarks = "\n".join(folders.Folder(str(tmp_path)).listed().remarks)
    assert "give --sidecars=.TXT" in remarks
    with pytest.raises(ValueError, match="fits no file .*, but 1 of another case, such as .*TXT"):
        folders.Folder(str(tmp_path), sidecars=(".txt",)).listed()
    (item,) = folders.Folder(str(tmp_path), sidecars=(".TXT",)).listed().items
    assert item.texts[0].content == "She had your dark suit."


def _write_texts(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"text {name}")


def test_each_speaker_may_have_a_folder_of_sounds_and_one_of_texts(tmp_path):
    names = [f"{who}/wav/{number}.wav" for who in ("ABA", "BWC") for number in (1, 2)]
    texts = [name.replace("wav", "transcript", 1).replace("wav", "txt") for name in names]
    _touch(tmp_path, *names, "BWC/wav/3.wav")
    _write_texts(tmp_path, *texts, "BWC/transcript/3.txt")
    found = folders.Folder(str(tmp_path), sidecars=(".txt",)).listed()
    said = {item.key: [text.content for text in item.texts] for item in found.items}
    assert said == {
        **{name: [f"text {text}"] for name, text in zip(names, texts)},
        "BWC/wav/3.wav": ["text BWC/transcript/3.txt"],
    }
    assert "4 by a folder beside, such as" in "\n".join(found.remarks)


@pytest.mark.parametrize(
    "sounds, texts",
    [
        (["x/bob/1.wav", "y/cat/1.wav"], ["x/ann/1.txt"]),
        (["x/bob/1.wav", "y/cat/1.wav"], ["x/ann/1.txt", "y/ann/1.txt"]),
        (["x/bob/1.wav", "x/cat/1.wav"], ["x/ann/1.txt"]),
        (["a/w/1.wav", "a/v/1.wav", "b/w/1.wav", "b/v/1.wav"], ["a/t/1.txt", "b/t/1.txt"]),
    ],
)
def test_the_texts_of_one_speaker_are_not_given_to_another(sounds, texts, tmp_path):
    _touch(tmp_path, *sounds)
    _write_texts(tmp_path, *texts)
    with pytest.raises(ValueError, match="rows that name none"):
        folders.Folder(str(tmp_path), sidecars=(".txt",)).listed()


_VCTK = [f"wav48/p225/p225_00{number}_mic{mic}.flac" for number in (1, 2) for mic in (1, 2)]


def test_sounds_are_called_what_a_pattern_finds_in_their_names(tmp_path):
    _touch(tmp_path, *_VCTK)
    for number in (1, 2):
        path = tmp_path / "txt" / "p225" / f"p225_00{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text {number}")
    sidecars = dict(sidecars=("txt/**/*.txt",))
    with pytest.raises(ValueError, match="rows that name none.*--name_pattern"):
        folders.Folder(str(tmp_path), **sidecars).listed()
    pattern = "(?P<name>.*)_mic1"
    found = folders.Folder(str(tmp_path), name_pattern=pattern, **sidecars).listed()
    texts = [[text.content for text in item.texts] for item in found.items]
    assert [item.key for item in found.items] == _VCTK
    assert texts == [["text 1"], [], ["text 2"], []]
    assert "--name_pattern finds names in 2 of 4 sounds (50 %)" in found.remarks
    both = dict(name_pattern="(?P<name>.*)_mic[12]", **sidecars)
    with pytest.raises(ValueError, match="two sounds of the name .*p225_001.flac.*mic1.*mic2.*"):
        folders.Folder(str(tmp_path), **both).listed()
    found = folders.Folder(str(tmp_path), include=("*_mic1.flac",), **both).listed()
    assert [item.texts[0].content for item in found.items] == ["text 1", "text 2"]
    assert found.rows == {"matched": 2}


def test_a_pattern_of_names_serves_tables(tmp_path):
    _touch(tmp_path, "Y-0Gj8-vB1q4_30.wav", "Yrqf_RErjfk8_170.wav")
    table = tmp_path / "train.csv"
    table.write_text("youtube_id,start_time,caption\n-0Gj8-vB1q4,30,a dog\nrqf_RErjfk8,170,rain\n")
    found = folders.Folder(
        str(tmp_path), name_pattern=r"^Y(?P<name>.{11})_\d+$", metadata=(str(table),)
    ).listed()
    assert [item.texts[0].content for item in found.items] == ["a dog", "rain"]


@pytest.mark.parametrize(
    "pattern, message",
    [
        ("(?P<name>", "--name_pattern=.* not a regular"),
        ("(.*)_mic1", "--name_pattern=.* no group called name: write .*P<name>"),
        ("(?P<name>.*)_mic3", "--name_pattern=.* must fit the file name of some sound"),
    ],
)
def test_bad_name_patterns_are_refused(pattern, message, tmp_path):
    _touch(tmp_path, *_VCTK)
    with pytest.raises(ValueError, match=message):
        folders.Folder(str(tmp_path), name_pattern=pattern).listed()


def test_a_name_that_is_not_utf_8_is_a_name(tmp_path):
    os.makedirs(os.fsencode(tmp_path) + b"/\xff")
    with open(os.fsencode(tmp_path) + b"/\xff/\xe9.wav", "wb") as file:
        file.write(b"x")
    (item,) = folders.Folder(str(tmp_path)).listed().items
    assert os.fsencode(item.key) == b"\xff/\xe9.wav"


# Names of sounds, where they are other than u1 to u3, and the texts, or what refuses the table.
_CASES = {
    "ljspeech_no_header": (None, [["chapter one, nineteen o five"], ["the second"], ["the third"]]),
    "librispeech": (
        ("1-2-0000.flac", "1-2-0001.flac"),
        [["HE HOPED THERE WOULD BE"], ["STEW FOR DINNER"]],
    ),
    "jsonl": (None, [["words 0"], ["words 1"], ["words 2"]]),
    "common_voice": (None, [['Said "thing 0'], ['Said "thing 1'], ['Said "thing 2']]),
    "clotho": (None, [["a tone", "tone heard"], ["hum", "a hum"], ["x", "y"]]),
    "hf_dotslash": (None, [["first words"], ["second words"], ["third words"]]),
    "windows_path": (("audio/u1.wav", "audio/u2.wav", "audio/u3.wav"), [["words"]] * 3),
    "nfd_names": (("gru\u0308n.wav", "u2.wav"), [["green"], ["two"]]),
    "comma_in_text": (None, "meta.csv, line 2, has 3 columns"),
    "unbalanced_quote": (None, "meta.csv, line 2, opens a quote that is never closed"),
    "bar_in_first_text": (None, [["either|or"], ["two"], ["three"]]),
    "duplicate_names": (
        ("ann/001.wav", "ann/002.wav", "ben/001.wav", "ben/002.wav"),
        "meta.csv, line 2, must name one sound, .* ann/001.wav and ben/001.wav",
    ),
    "missing_rows": (None, [["one"], [], []]),
    "utf16": (None, [["first"], ["second"], ["third"]]),
}


@pytest.mark.parametrize("case", _CASES)
def test_shared_cases_have_their_right_answer(case, tmp_path):
    (table,) = (cases.folder("metadata") / case).iterdir()
    names, answer = _CASES[case]
    _touch(tmp_path, *(names or ("u1.wav", "u2.wav", "u3.wav")))
    source = folders.Folder(str(tmp_path), metadata=(str(table),))
    if isinstance(answer, str):
        with pytest.raises(ValueError, match=answer):
            source.listed()
        return
    found = source.listed()
    assert [[text.content for text in item.texts] for item in found.items] == answer
    kinds = {text.kind for item in found.items for text in item.texts}
    assert kinds == {"caption" if case == "clotho" else "transcript"}
    lost = {"without sound": 2, "sounds without row": 2} if case == "missing_rows" else {}
    assert found.rows == {"matched": sum(map(bool, answer))} | lost
