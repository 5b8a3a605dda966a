# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Tar shards: what belongs together, and what is passed over or refused."""

import io
import json
import subprocess
import tarfile

import numpy as np
import pytest
import soundfile

from data_pipelines.inputs import webdataset
from data_pipelines.records import sound as sound_records
from tests.support import builds
from tests.support import tars


def _build(path, output, *, text_kind="", **options):
    return builds.build(webdataset.Tars(str(path), text_kind=text_kind), output, **options)


@pytest.mark.parametrize("in_memory", [0, 2**23])
def test_members_of_one_name_belong_together(in_memory, tmp_path, monkeypatch):
    monkeypatch.setattr(webdataset, "_MAX_BYTES_IN_MEMORY", in_memory)
    about = {"text": "in json", "speaker": "ada", "take": 3, "nested": {"left": "out"}}
    members = [
        ("./one.wav", tars.encoded(0)),
        ("./one.txt", "said\n".encode()),
        ("./one.cls", b"7"),
        ("./one.jpg", b"picture"),
        ("some.folder/two.FLAC", tars.encoded(1, format="FLAC")),
        ("some.folder/two.json", json.dumps(about).encode()),
        ("three.ogg", tars.encoded(2, format="OGG")),
        ("three.caption.txt", b"a tone"),
        ("three.caption_2.txt", b"one more"),
        ("three.normalized.txt", b"said"),
        ("three.original.txt", b"SAID!"),
        ("four.wav", tars.encoded(3)),
        ("four.caption", "\ufeffa tone, \u00e9t\u00e9".encode()),
        ("five.txt", b"nobody says it"),
    ]
    for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        path = tars.write(tmp_path / f"{format}" / "a.tar", members, format=format)
        content = _build(path, path.parent / "out")[""]
        assert content.skipped == {".jpg": 1, "text without sound": 1}
        records = builds.first_records(path.parent / "out")
        assert {key: record.texts for key, record in records.items()} == {
            "a.tar/one.wav": (sound_records.Text("said", "transcript"),),
            "a.tar/some.folder/two.FLAC": (sound_records.Text("in json", "transcript"),),
            "a.tar/three.ogg": (
                sound_records.Text("said", "transcript"),
                sound_records.Text("a tone", "caption"),
                sound_records.Text("one more", "caption"),
            ),
            "a.tar/four.wav": (sound_records.Text("a tone, \u00e9t\u00e9", "caption"),),
        }
        assert records["a.tar/one.wav"].labels == {"cls": "7"}
        assert records["a.tar/some.folder/two.FLAC"].labels == {"speaker": "ada", "take": "3"}
        for key, file in (
            ("one.wav", tars.encoded(0)),
            ("some.folder/two.FLAC", tars.encoded(1, format="FLAC")),
            ("four.wav", tars.encoded(3)),
        ):
            expected, _ = soundfile.read(io.BytesIO(file), dtype="int16")
            np.testing.assert_array_equal(records[f"a.tar/{key}"].waveform, expected[:8_000])


def test_texts_are_captions_where_that_is_said(tmp_path):
    path = tars.write(tmp_path / "a.tar", [("a.wav", tars.encoded(0)), ("a.txt", b"a tone")])
    _build(path, tmp_path / "out", text_kind="caption")
    records = builds.first_records(tmp_path / "out")
    assert records["a.tar/a.wav"].texts == (sound_records.Text("a tone", "caption"),)


def test_a_sound_whose_group_is_unclear_or_whose_text_is_none_is_refused_by_name(tmp_path):
    members = [
        ("good.wav", tars.encoded(0)),
        ("two.wav", tars.encoded(1)),
        ("two.flac", tars.encoded(2, format="FLAC")),
        ("two.txt", b"whose?"),
        ("again.wav", tars.encoded(3)),
        ("again.wav", tars.encoded(4)),
        ("latin.wav", tars.encoded(5)),
        ("latin.txt", "\u00e9t\u00e9".encode("latin1")),
        ("list.wav", tars.encoded(6)),
        ("list.json", b"[1]"),
        ("broken.wav", tars.encoded(7)),
        ("broken.json", b'{"text": '),
        ("both.wav", tars.encoded(8)),
        ("both.txt", b"one"),
        ("both.json", b'{"text": "other"}'),
        ("srt.wav", tars.encoded(10)),
        ("srt.txt", b"1\n00:00:00,000 --> 00:00:01,000\nhey\n"),
        ("empty.wav", b""),
        ("phone.m4a", b"some bytes"),
        ("noise.wav", np.random.default_rng(0).bytes(1000)),
        ("deep.wav", tars.encoded(9)),
        ("deep.json", b"[" * 100_000),
    ]
    content = _build(tars.write(tmp_path / "a.tar", members), tmp_path / "out")[""]
    refused = builds.refusals(tmp_path / "out")
    assert {key.removeprefix("a.tar/"): reason for key, (reason, _) in refused.items()} == {
        "two.wav": "ambiguous",
        "two.flac": "ambiguous",
        "again.wav": "ambiguous",
        "again.wav (2)": "ambiguous",
        "latin.wav": "bad_text",
        "list.wav": "bad_text",
        "broken.wav": "bad_text",
        "both.wav": "bad_text",
        "srt.wav": "bad_text",
        "empty.wav": "empty",
        "phone.m4a": "unsupported",
        "noise.wav": "undecodable",
        "deep.wav": "bad_text",
    }
    assert "two.wav and two.flac" in refused["a.tar/two.wav"][1]
    assert "latin.txt is not UTF-8" in refused["a.tar/latin.wav"][1]
    assert "both.json and another member differ in text" in refused["a.tar/both.wav"][1]
    assert (content.num_used, content.num_sources) == (1, 14)


def test_what_is_no_file_is_counted(tmp_path):
    special = []
    for name, kind in (("folder", tarfile.DIRTYPE), ("pipe.wav", tarfile.FIFOTYPE)):
        special.append(tarfile.TarInfo(name))
        special[-1].type = kind
    for name, kind in (("soft.wav", tarfile.SYMTYPE), ("hard.wav", tarfile.LNKTYPE)):
        special.append(tarfile.TarInfo(name))
        special[-1].type, special[-1].linkname = kind, "a.wav"
    hidden = [(f"{name}", b"x") for name in ("._a.wav", ".git/a.wav", "PaxHeaders.1/a.wav")]
    path = tars.write(tmp_path / "a.tar", [("a.wav", tars.encoded(0)), *special, *hidden])
    content = _build(path, tmp_path / "out")[""]
    assert content.skipped == {"device": 1, "folder": 1, "hidden": 3, "link": 2}
    assert content.num_sources == content.num_used == 1


def test_a_sparse_member_is_counted(tmp_path):
    sound = tmp_path / "hole.wav"
    with open(sound, "wb") as file:
        file.write(b"RIFF")
        file.truncate(2**20)
    sound = sound.name
    (tmp_path / "a.wav").write_bytes(tars.encoded(0))
    command = ["tar", "--sparse", "-cf", "a.tar", sound, "a.wav"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert _build(tmp_path / "a.tar", tmp_path / "out")[""].skipped == {"sparse": 1}


def test_the_same_bytes_with_any_number_of_workers_and_whole_speakers(tmp_path):
    for shard in range(2):
        members = []
        for index in range(8):
            members.append((f"{index}.wav", tars.encoded(8 * shard + index)))
            members.append((f"{index}.json", json.dumps({"speaker": f"s{index // 2}"}).encode()))
        tars.write(tmp_path / "in" / f"{shard}.tar", members)
    builds.check_workers(webdataset.Tars(str(tmp_path / "in")), tmp_path / "out")


def test_copies_in_two_tars_lie_on_one_side(tmp_path):
    for shard in range(2):
        members = [(f"{index}.wav", tars.encoded(index)) for index in range(8)]
        tars.write(tmp_path / "in" / f"{shard}.tar", members)
    manifests = _build(tmp_path / "in", tmp_path / "out", fraction=0.4)
    for content in manifests.values():
        assert not content.refused and content.duplicates * 2 == content.num_used


def test_the_command_says_what_it_does(tmp_path, capsys):
    tars.write(tmp_path / "in" / "s-0.tar", [("a.wav", tars.encoded(0)), ("b.txt", b"alone")])
    arguments = [f"--input={tmp_path}/in/s-{{0..0}}.tar", f"--output={tmp_path}/out"]
    arguments = ["--source=webdataset", *arguments]
    code, said, _ = builds.run(arguments, capsys)
    assert code == 0 and "1 texts in tars have no sound, such as s-0.tar/b.txt" in said
    code, _, error = builds.run([*arguments, "--seed=1"], capsys)
    assert code == 1 and "--seed is not for --source=webdataset: leave it out" in error
