# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Tables in the layouts that people keep, and those that are refused with the line that is wrong."""

import os

import pytest

from data_pipelines.inputs import tables

_NAMES = ("u1", "u2", "u3")


def _knows(name):
    return os.path.splitext(os.path.basename(name.replace("\\", "/")))[0] in _NAMES


def _read(folder, name, content, knows=_knows, **options):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tables.read(path, tables.Options(**options), knows)


def _rows(*arguments, **options):
    """(file, [(kind's first letter, words)], labels) of each row."""
    table = _read(*arguments, **options)
    return [
        (row.file, [(text.kind[0], text.content) for text in row.texts], row.labels)
        for row in table.rows
    ]


_ONE_TWO = [("u1.wav", [("t", "one")], {}), ("u2.wav", [("t", "two")], {})]


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.csv", "file,text\nu1.wav,one\nu2.wav,two\n"),
        ("a.csv", 'File Name;Text\r\nu1.wav;"one"\r\nu2.wav;two\r\n\r\n'),
        ("a.csv", "\ufefftext\tpath\n one \tu1.wav\ntwo\tu2.wav"),
        ("a.csv", "u1.wav,one\nu2.wav,two\n"),
        ("a.csv", "u1.wav|1|one\nu2.wav|two|\n"),
        ("a.csv", "u1.wav|one\nu2.wav|two\n"),
        ("a.csv", "file,text\ru1.wav,one\ru2.wav,two\r"),
        ("a.txt", "u1.wav one\nu2.wav two\n"),
        ("a.tsv", 'file\ttext\n"u1.wav"\t"one"\n"u2.wav"\t"two"\n'),
        ("x.trans.txt", "u1.wav one\nu2.wav\ttwo\n"),
        ("text", "u1.wav  one\nu2.wav two\n"),
        ("content.txt", "u1.wav\tone\nu2.wav\ttwo \n"),
        ("a.jsonl", '{"file_name": "u1.wav", "text": "one"}\n{"text":"two", "file_name":"u2.wav"}'),
        ("a.json", '[{"path": "u1.wav", "text": "one"},\n {"path": "u2.wav", "text": "two"}]\n'),
        (
            "a.csv",
            '{"audio": {"path": "u1.wav"}, "text": "one"}\n{"audio": "u2.wav", "text": "two"}',
        ),
        ("a.csv", "file,text\nu1.wav,one\nu2.wav,two\n".encode("utf-16")),
        ("a.csv", "\ufefffile,text\nu1.wav,one\nu2.wav,two\n".encode("utf-16-be")),
        ("a.csv", "file,text,kind\nu1.wav,one,speech\nu2.wav,two,\n"),
        ("a.csv", 'file,text,_,\nu1.wav,one,x,y\nu2.wav,two,"x,\n2",\n'),
    ],
)
def test_two_texts_are_found_in_any_layout(name, content, tmp_path):
    assert _rows(tmp_path, name, content) == _ONE_TWO


@pytest.mark.parametrize(
    "name, content, texts",
    [
        # A bar in a text of a table with commas, and commas in one with bars: names decide.
        ("a.csv", "u1,either|or\nu2,a|b\nu3,x|y\n", ["either|or", "a|b", "x|y"]),
        ("a.csv", "u1|a, b\nu2|c, d\n", ["a, b", "c, d"]),
        ("a.txt", "u1 a, b\nu2 c, d\n", ["a, b", "c, d"]),
        ("a.csv", 'file|text\nu1|"Well, he\nu2|said "so"\n', ['"Well, he', 'said "so"']),
        ("a.tsv", 'id\ttext\nu1\t"He said ""so"""\nu2\tso\n', ['He said "so"', "so"]),
        ("a.tsv", 'id\ttext\nu1\t"So."\nu2\tso\n', ['"So."', "so"]),
        ("a.tsv", 'id\ttext\nu1\t"a\tb"\nu2\t"c\nd"\n', ["a\tb", "c\nd"]),
        (
            "a.tsv",
            'client_id\tpath\tsentence\nc\tu1.mp3\t"a ""b"" c"\nc\tu2.mp3\t"d\n',
            ['"a ""b"" c"', '"d'],
        ),
        ("a.jsonl", '{"id": "u1", "text": "a\\"b\\u2028c"}\n', ['a"b\u2028c']),
        ("a.csv", 'file,text\nu1,"a ""b"", c\nd, e"\n', ['a "b", c\nd, e']),
    ],
)
def test_marks_in_texts_are_told_from_marks_between_cells(name, content, texts, tmp_path):
    assert [row[1][0][1] for row in _rows(tmp_path, name, content)] == texts


def test_captions_labels_and_kinds(tmp_path):
    clotho = "file_name,caption_1,caption_2\nu1.wav,a,b\nu2.wav,c,\n"
    assert _rows(tmp_path, "a.csv", clotho) == [
        ("u1.wav", [("c", "a"), ("c", "b")], {}),
        ("u2.wav", [("c", "c")], {}),
    ]
    table = "file,text,kind,speaker\nu1,a dog,caption,\nu2,hello,transcript,ann\n"
    assert _rows(tmp_path, "a.csv", table) == [
        ("u1", [("c", "a dog")], {}),
        ("u2", [("t", "hello")], {"speaker": "ann"}),
    ]
    assert _rows(tmp_path, "a.csv", "u1,a dog\n", text_kind="caption") == [
        ("u1", [("c", "a dog")], {})
    ]


def test_columns_can_be_named_whatever_the_first_line_says(tmp_path):
    named = dict(columns=("id", "_", "text", "speaker"))
    assert _rows(tmp_path, "a.csv", "u1|x|one|ann\n", **named) == [
        ("u1", [("t", "one")], {"speaker": "ann"})
    ]
    assert _rows(tmp_path, "a.csv", "file,a,text,b\nu1,x,one,ann\n", **named) == [
        ("u1", [("t", "one")], {"speaker": "ann"})
    ]
    # Of several columns that may name the sound, the one whose cells do.
    table = "id,file,text\n7,u1.wav,one\n8,u2.wav,two\n"
    assert [row[0] for row in _rows(tmp_path, "a.csv", table)] == ["u1.wav", "u2.wav"]
    table = "id,file,text\nu1,7.wav,one\nu2,8.wav,two\n"
    assert [row[0] for row in _rows(tmp_path, "a.csv", table)] == ["u1", "u2"]
    # Of lines of words, too.
    rows = _rows(tmp_path, "a.txt", "1 p/u1.wav\n2 p/u2.wav\n", columns=("part", "file"))
    assert rows == [("p/u1.wav", [], {"part": "1"}), ("p/u2.wav", [], {"part": "2"})]
    # A sound may have the name of a column.
    rows = _rows(tmp_path, "a.csv", "audio,x\nu1,one\n", knows=lambda name: name in ("audio", "u1"))
    assert [row[0] for row in rows] == ["audio", "u1"]


def test_of_json_the_columns_that_are_named_are_read(tmp_path):
    content = '{"path": "u1", "text": "one", "task": "s2t_translation", "speaker": "ann"}\n'
    with pytest.raises(ValueError, match="line 1, must have transcript .* --metadata_columns"):
        _rows(tmp_path, "a.json", content)
    rows = _rows(tmp_path, "a.json", content, columns=("path", "text", "_"))
    assert rows == [("u1", [("t", "one")], {})]
    with pytest.raises(ValueError, match="--metadata_columns=file,text must name .*path, text, t"):
        _rows(tmp_path, "a.json", content, columns=("file", "text"))


def test_few_sounds_of_a_large_table_tell_what_it_is(tmp_path):
    lines = "".join(f"x{index}|a, b|c;d\n" for index in range(1_700)) + "u1|a, b|one, two\n"
    rows = _rows(tmp_path, "a.csv", lines)
    assert len(rows) == 1_701 and rows[-1] == ("u1", [("t", "one, two")], {})


def test_numbers_in_a_text_name_no_sound(tmp_path):
    rows = _rows(
        tmp_path, "text", "001 call 112 b2b\n112 CALL 001\n", knows={"001", "112"}.__contains__
    )
    assert [row[1][0][1] for row in rows] == ["call 112 b2b", "CALL 001"]
    table = ",file,speaker\n0,u1.wav,ann\n"
    assert _rows(tmp_path, "a.csv", table) == [("u1.wav", [], {"speaker": "ann"})]


def test_rows_of_nothing_are_counted(tmp_path):
    table = _read(tmp_path, "a.csv", "file,text\nu1,one\n,\n\nu2,two\n , \n")
    assert len(table.rows) == 2 and table.num_blank == 2
    assert [row.line for row in table.rows] == [2, 5]


@pytest.mark.parametrize(
    "content, message",
    [
        ("file,text\nu1,Hello, dear\nu2,two\n", "line 2, has 3 columns .* must stand in quotes"),
        ("u1,one\nu2,Hello, dear\nu3,three\n", "line 2, has 3 columns"),
        ("file,text\nu1,one\nu2\n", "line 3, has 1 columns"),
        ("u1|a|a\nu2|b|c|c\n", "line 2, has 4 columns .* needs JSON lines"),
        ('file,text\nu1,"Well\nu2,two\n', "line 2, opens a quote that is never closed"),
        ('file,text\nu1,"Well\nu2,"two"\n', "line 2, opens a quote"),
        (
            'file,text\nu1,"Well\nu2,two"\nu3,three\n',
            "line 2, opens a quote that takes in .*u2,two",
        ),
        ('file,text\nu1,one\nu2,"two" words\n', "line 3, opens a quote with text behind"),
        ('file,text\nu1, "two"\n', "line 2, has a quote in a cell that does not begin with one"),
        ('file,text\nu1,Well said"\n', "line 2, has a quote"),
        ('file\ttext\nu1\tHe ""so""\n', "line 2, has a quote"),
        ("file,text\nu1,one\n,two\n", "line 3, must name its sound in 'file'"),
        ("file,text\nu1,one\rtwo\nu2,three\n", "line 2, has a carriage return inside"),
        ("file,text\nu1,a\0b\n", "line 2, must be text, got a zero byte"),
        ("file,text\nu1,one\nu2,gr\u00fcn\n".encode("latin-1"), "line 3, must be in UTF-8.*iconv"),
        ("file,text\nu1,one\n".encode("utf-16-le"), "line 1, must be text, .*UTF-16"),
        ("file,text\nu1,one\n".encode("utf-16")[:-1], "line 2, must be in UTF-8 or have"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        ("file,text,text\nu1,a,b\n", "two of the name 'text'"),
        ("file,text,kind\nu1,a,caption\nu2,b,drum\n", "line 3, must have transcript or caption"),
        (
            "file,text,offset\nu1,a,0.0\nu1,b,1.5\n",
            "line 3, is of a part of a sound, by its offset",
        ),
        ("u1,one,ann\nu2,two,ben\n", "has 3 columns .* no names .* --metadata_columns"),
        ("u1|one two|ann\nu2|two three|ben\n", "has 3 columns .* --metadata_columns"),
        ("u1\nu2\n", "must have a name and a text or labels in each line"),
        ("x1,y;z\nx2,y;z\n", "by comma and by semicolon: say --metadata_delimiter"),
        ("file,text\n", "got no row"),
        ("file,text\nu1,a\nu2," + "b " * 40_000, "line 3, must be the texts of one sound"),
        ("", "must have a name and a text"),
        ("x1 hello\nx2 there\n", "must have a name and a text"),
        (
            '{"audio_filepath": "u1", "text": "a"}\n{"audio_filepath": "u2", \n',
            "line 2, must be one JSON",
        ),
        ('{"audio_filepath": "u1", "text": "a"} {}\n', "line 1, .*more behind it"),
        (
            '{"audio_filepath": "u1", "text": "a", "text": "b"}\n',
            "line 1, .*'text' twice in one object",
        ),
        ('{"audio_filepath": "u1", "text": "a", "offset": 2}\n', "line 1, is of a part"),
        ('{"sound_of": "u1", "text": "a"}\n', "must name a sound in each object.*sound_of"),
        ('{"audio_filepath": "u1", "text": "a"}\n{"text": "b"}\n', "line 2, must name its sound"),
        ('{"audio_filepath": "u1", "text": "\\ud800"}\n', "line 1, must have text"),
    ],
)
def test_what_is_wrong_is_refused_by_line(content, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        _read(tmp_path, "a.csv", content)
    assert str(tmp_path / "a.csv") in str(error.value)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.json", '[{"id": "u1"},\n {"id": "u2"}\n {"id": "u3"}]', "line 2, must end an object"),
        ("a.json", '[{"id": "u1"},\n]', "line 2, must be one JSON object"),
        ("a.json", '[{"id": "u1"}\n', "line 2, must end .*got the end of the file"),
        ("a.json", '["u1", "u2"]', "line 1, must be one JSON object, got str"),
        ("a.json", "[" * 100_000, "line 1, must be one JSON object"),
        ("a.json", '{\n "u1": "one"\n}', "line 1, must be one JSON object"),
        ("x.trans.txt", "x-1 A B\nx-2 C x-3 D\n", "line 2, names another sound in its text"),
        ("x.trans.txt", "x-1 A Bx-2 C\nx-3 D\n", "line 1, names another sound in its text"),
    ],
)
def test_other_layouts_are_refused_by_line_too(name, content, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        _read(tmp_path, name, content, knows=lambda name: name in ("x-1", "x-2", "x-3"))


def test_a_delimiter_that_is_named_is_taken(tmp_path):
    rows = _rows(tmp_path, "a.csv", "x1,y;z\nx2,y;z\n", delimiter="semicolon")
    assert [row[0] for row in rows] == ["x1,y", "x2,y"]
    rows = _rows(tmp_path, "a.txt", "u1:one two\nu2:three\n", delimiter="colon")  # JSUT
    assert rows == [("u1", [("t", "one two")], {}), ("u2", [("t", "three")], {})]
    with pytest.raises(ValueError, match="--metadata_columns must name the 2 columns"):
        _read(tmp_path, "a.csv", "file,text\nu1,a\n", columns=("file", "text", "speaker"))
    with pytest.raises(ValueError, match="line 1, has 2 columns .* must be 3"):
        _read(tmp_path, "a.csv", "u1,a\nu2,b\n", columns=("file", "text", "speaker"))
