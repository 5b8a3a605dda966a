# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What README.md says of builds is so: its commands, the flags of layouts, reasons of refusals."""

import pathlib
import re
import shlex

import pytest

from data_pipelines import build_shards
from data_pipelines.inputs.debian import catalogue
from data_pipelines.sound import refusals

_README = pathlib.Path(build_shards.__file__).with_name("README.md").read_text(encoding="utf-8")
_SECTION = _README.partition("**Texts and labels.**")[2].partition("\n- ")[0]
# First words of a row -> its files, and the sounds where they are not ann_1.wav and ben_2.wav.
_FILES = {
    "LJSpeech": {"metadata.csv": "ann_1|1|one\nben_2|2|two\n"},
    "LibriSpeech": {"1/2/1-2.trans.txt": "ann_1 ONE\nben_2 TWO\n"},
    "LibriTTS": {
        **{f"ann_1{ending}": "one" for ending in (".normalized.txt", ".txt", ".lab")},
        **{f"ben_2{ending}": "two" for ending in (".normalized.txt", ".txt", ".lab")},
    },
    "NeMo": {
        "manifest.json": '{"audio_filepath": "/x/ann_1.wav", "text": "one"}\n'
        '{"audio_filepath": "/x/ben_2.wav", "text": "two"}\n'
    },
    "Common Voice": {
        "validated.tsv": 'client_id\tpath\tsentence\n1\tann_1.mp3\t"one\n2\tben_2.mp3\ttwo\n',
        "train.tsv": "client_id\tpath\tsentence\n1\tann_1.mp3\tother\n",
    },
    "AudioFolder": {"metadata.csv": "file_name,text\nann_1.wav,one\nben_2.wav,two\n"},
    "Clotho": {"clotho_captions.csv": "file_name,caption_1,caption_2\nann_1,a,b\nben_2,c,d\n"},
    "CSV": {"texts.csv": "path,text\nann_1.wav,a dog\nben_2.wav,a cat\n"},
    "no header": {"list.txt": "ann_1|0|one two|ann\nben_2|0|three four|ben\n"},
    "VCTK": {
        **{f"wav/{name}_mic1.wav": "x" for name in ("ann_1", "ben_2")},
        **{f"txt/{name}.txt": "one" for name in ("ann_1", "ben_2")},
    },
    "labels": {},
}


def _flags() -> list[tuple[str, str]]:
    rows = [row.strip("| ").split(" | ") for row in _SECTION.splitlines() if row.startswith("| ")]
    return [(what, flags) for what, cell in rows[2:] for flags in re.findall(r"`(--[^`]+)`", cell)]


@pytest.mark.parametrize("what, flags", _flags())
def test_the_flags_of_a_layout_find_its_texts(what, flags, tmp_path):
    files = next(files for name, files in _FILES.items() if what.startswith(name))
    is_whole = any(name.endswith(".wav") for name in files)
    sounds = {} if is_whole else {"ann_1.wav": "x", "ben_2.wav": "x"}
    for name, content in (files | sounds).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    given = [part.replace("DIR", str(tmp_path)) for part in shlex.split(flags)]
    required = ["--source=folder", f"--input={tmp_path}", "--output=OUT"]
    values = build_shards._parser().parse_args([*required, *given])
    found = build_shards._input_from_flags(values).listed()
    if what.startswith("labels"):
        assert [item.labels for item in found.items] == [{"speaker": "ann"}, {"speaker": "ben"}]
        return
    assert found.rows["matched"] == 2 and "sounds without row" not in found.rows
    kinds = {text.kind for item in found.items for text in item.texts}
    assert kinds == {"caption" if what.startswith(("Clotho", "CSV")) else "transcript"}
    if what.startswith("no header"):
        assert [item.labels for item in found.items] == [{"speaker": "ann"}, {"speaker": "ben"}]


def test_every_layout_has_its_row():
    assert len({what for what, _ in _flags()}) == len(_FILES)


def test_every_reason_of_a_refusal_has_its_row():
    table = _README.partition("| reason | |\n")[2].partition("\n\n")[0]
    rows = [row.split("|")[1] for row in table.splitlines()]
    assert sorted(re.findall("`(.*?)`", "".join(rows))) == sorted(refusals.REASONS)


def test_there_is_a_command_for_every_kind_of_input_and_all_parse():
    commands = _README.partition("## Build shards\n")[2].partition("\n- ")[0].replace("\\\n", "")
    lines = [shlex.split(line) for line in commands.splitlines() if line]
    given = [build_shards._parser().parse_args(line[3:]) for line in lines]
    assert [values.source for values in given] == [
        *("embedded", "folder", "webdataset", "parquet", "tfds", "debian")
    ]


def test_the_commands_for_debian_name_what_is_known():
    section = _README.partition("**Debian.**")[2].partition("\n- ")[0]
    lines = [shlex.split(line) for line in section.splitlines() if line.startswith("    python")]
    given = [build_shards._parser().parse_args(line[3:]) for line in lines]
    assert len(given) == 5
    for values in given:
        assert values.source == "debian" and catalogue.choices(values.input.split(","))
    sets = re.search(r"takes sets \((.*?)\)", section)[1]
    assert re.findall("`(.*?)`", sets) == list(catalogue.SETS)
    in_sets = [package for package in catalogue.packages().values() if not package.same_as]
    assert f"out of {len(in_sets)} packages" in section
