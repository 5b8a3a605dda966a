# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Where tables lie: a path, a glob, or a folder with the tables of a known data set."""

import pytest

from data_pipelines.inputs import table_paths


@pytest.fixture
def root(tmp_path, monkeypatch):
    for name in ("set/1/1.trans.txt", "set/2/2.trans.txt", "set/texts.csv", "here.csv", "x/a.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    monkeypatch.chdir(tmp_path)
    return str(tmp_path / "set")


@pytest.mark.parametrize(
    "value, found",
    [
        ("here.csv", ["here.csv"]),
        ("texts.csv", ["ROOT/texts.csv"]),
        ("**/*.trans.txt", ["ROOT/1/1.trans.txt", "ROOT/2/2.trans.txt"]),
        ("x/*.csv", ["x/a.csv"]),
        ("set", ["set/1/1.trans.txt", "set/2/2.trans.txt"]),
        ("x", ["x/a.csv"]),
    ],
)
def test_tables_are_found_from_here_or_from_the_input(value, found, root):
    paths = table_paths.named("--metadata", value, root)
    assert paths == [path.replace("ROOT", root) for path in found]


@pytest.mark.parametrize(
    "value, message",
    [
        ("no.csv", "--metadata=no.csv does not exist"),
        ("**/*.tsv", r"\*.tsv fits no file"),
        ("empty", "must hold tables by names that are known, .* got none"),
        ("two", "got two/a.csv, two/b.csv: name the table itself"),
    ],
)
def test_what_is_not_there_is_one_sentence(value, message, root, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "two").mkdir()
    for name in "ab":
        (tmp_path / "two" / f"{name}.csv").touch()
    with pytest.raises(ValueError, match=message):
        table_paths.named("--metadata", value, root)


def test_what_looks_like_a_table_of_texts():
    for name in ("texts.csv", "a.TSV", "metadata.json", "1-2.trans.txt", "text", "x.jsonl"):
        assert table_paths.looks_like_table(name)
    for name in ("refusals.jsonl", "manifest.json", "notes.txt", "a.wav", "text.md"):
        assert not table_paths.looks_like_table(name)
