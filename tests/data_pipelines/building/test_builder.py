# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Whole builds in two parts: no sound on both sides, whoever stored it twice and however."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess

import numpy as np
import pytest
import soundfile

from data_pipelines.building import plan as build_plan
from data_pipelines.inputs import folders
from data_pipelines.reading import sources
from data_pipelines.records import manifest
from tests.support import builds
from tests.support import sounds

ROOT = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture
def many_shards(monkeypatch):
    """Shards of about two of the small test files, so that a build has several."""
    monkeypatch.setattr(build_plan, "_MIN_SHARD_BYTES", 30_000)


def _build(folder, output, *, fraction=0.3, pattern="", **options):
    source = folders.Folder(str(folder), label_pattern=pattern)
    return builds.build(source, output, fraction=fraction, **options)


def _sounds(folder: pathlib.Path) -> dict[bytes, set[str]]:
    """Samples of a source of a set -> the sources that have them."""
    shard_set = sources.ShardSet(folder)
    samples = {}
    for record in (shard_set[index] for index in range(len(shard_set))):
        samples[record.source] = samples.get(record.source, b"") + record.waveform.tobytes()
    found = {}
    for source, content in samples.items():
        found.setdefault(content, set()).add(source)
    return found


def _stored_twice(folder: pathlib.Path, *, num_files: int = 10) -> pathlib.Path:
    sounds.write_folder(folder, num_files=num_files)
    for path in list(folder.iterdir()):
        shutil.copyfile(path, folder / f"copy_of_{path.name}")
    return folder


def _in_two_containers(folder: pathlib.Path, *, num_files: int = 10) -> pathlib.Path:
    """Every sound as wav and as flac: other bytes, the same samples."""
    sounds.write_folder(folder, num_files=num_files)
    for path in list(folder.iterdir()):
        samples, rate = soundfile.read(path, dtype="int16")
        soundfile.write(folder / f"again_{path.stem}.flac", samples, rate)
    return folder


def test_sounds_that_are_stored_twice_lie_on_one_side(tmp_path, capsys):
    folder = _stored_twice(tmp_path / "sounds")
    code, said, _ = builds.run(builds.flags(folder, tmp_path / "out", "--holdout=0.3"), capsys)
    assert code == 0
    train, test = (_sounds(tmp_path / "out" / part) for part in ("train", "test"))
    assert train and test and not train.keys() & test.keys()
    # None was lost, and the copies are counted where they are.
    assert all(len(names) == 2 for names in (*train.values(), *test.values()))
    for part, found in (("train", train), ("test", test)):
        assert manifest.read(tmp_path / "out" / part).duplicates == len(found)
        assert not manifest.read(tmp_path / "out" / part).refused
    assert f"used sounds that have the samples of another one: {len(train)}" in said


def test_copies_in_an_undivided_set_are_used_and_counted(tmp_path):
    content = _build(_stored_twice(tmp_path / "sounds", num_files=3), tmp_path / "out", fraction=0)
    assert (content[""].num_used, content[""].duplicates) == (6, 3)


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_the_same_sound_in_another_container_is_left_out_of_the_other_part(
    num_workers, tmp_path, many_shards
):
    folder = _in_two_containers(tmp_path / "sounds")
    manifests = _build(folder, tmp_path / "out", num_workers=num_workers)
    train, test = (_sounds(tmp_path / "out" / part) for part in ("train", "test"))
    assert train and test and not train.keys() & test.keys()
    assert len(train.keys() | test.keys()) == 10
    for part, other in (("train", "test"), ("test", "train")):
        left_out, content = builds.refusals(tmp_path / "out" / part), manifests[part]
        assert content.refused == {"duplicate": len(left_out)} and left_out
        assert content.num_used + len(left_out) == content.num_sources
        for path, (reason, detail) in left_out.items():
            # The flac is named "again_..." and comes after the wav's digits.
            twin = path.removeprefix("again_").replace(".flac", ".wav")
            assert (
                path != twin and detail == f"the same sound as {twin} in {other}, in another file"
            )
    _build(folder, tmp_path / "alone")
    assert builds.files(tmp_path / "out") == builds.files(tmp_path / "alone")


def test_one_click_at_different_places_is_not_the_same_sound(tmp_path):
    (tmp_path / "sounds").mkdir()
    for place in range(12):
        waveform = np.zeros(24_000, np.int16)
        waveform[6_500 + 100 * place : 6_600 + 100 * place] = np.arange(100) * 50
        name = f"{place:02d}.{('wav', 'flac')[place % 2]}"
        soundfile.write(tmp_path / "sounds" / name, waveform, 16_000)
    manifests = _build(tmp_path / "sounds", tmp_path / "out")
    assert [content.duplicates for content in manifests.values()] == [0, 0]
    assert not any(content.refused for content in manifests.values())


def test_what_is_left_of_a_shard_after_its_copies_is_all_that_stands(tmp_path, monkeypatch):
    monkeypatch.setattr(build_plan, "_MIN_SHARD_BYTES", 1)  # a sound per shard
    manifests = _build(_in_two_containers(tmp_path / "sounds"), tmp_path / "out")
    for part, content in manifests.items():
        names = {path.name for path in (tmp_path / "out" / part).glob("*.array_record")}
        assert names == {shard.name for shard in content.shards}


class _Killed(BaseException):
    """Stands for a kill: nothing of the build's own runs after it, but `finally`."""


@pytest.mark.reliability("R27")
def test_a_build_that_is_killed_anywhere_ends_with_the_same_bytes(
    tmp_path, many_shards, monkeypatch
):
    folder = _in_two_containers(tmp_path / "sounds", num_files=6)
    replace, calls, last = os.replace, [], []

    def replace_or_die(source, target):
        calls.append(target)
        if len(calls) in last:
            raise _Killed
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_or_die)
    undisturbed = _build(folder, tmp_path / "undisturbed")
    assert undisturbed["train"].refused  # So there is a second pass to be killed in.
    for place in range(1, len(calls) - 1):  # The last two are the manifests.
        output = tmp_path / f"{place}"
        calls.clear()
        last[:] = [place]
        with pytest.raises(_Killed):
            _build(folder, output)
        last.clear()
        assert not list(output.rglob(manifest.FILE_NAME))
        _build(folder, output)
        assert builds.files(output) == builds.files(tmp_path / "undisturbed")


@pytest.mark.reliability("R27")
def test_a_process_that_is_killed_while_copies_are_left_out_is_continued(tmp_path):
    folder = tmp_path / "sounds"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(12):  # 1.1 MB each as wav: several shards
        samples = rng.integers(-9_000, 9_000, 550_000, np.int16)
        soundfile.write(folder / f"{index:02d}.wav", samples, 44_100)
        soundfile.write(folder / f"again_{index:02d}.flac", samples, 44_100)
    command = builds.PROGRAM + builds.flags(folder, tmp_path / "out", "--holdout=0.4")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if "written again" in line:
                process.send_signal(signal.SIGKILL)
                break
        else:
            raise AssertionError("no copy was left out")
    with pytest.raises(ValueError, match="not a finished shard set"):
        sources.ShardSet(tmp_path / "out" / "test")
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    undisturbed = builds.PROGRAM + builds.flags(folder, tmp_path / "undisturbed", "--holdout=0.4")
    subprocess.run(undisturbed, cwd=ROOT, capture_output=True, check=True)
    assert builds.files(tmp_path / "out") == builds.files(tmp_path / "undisturbed")


def test_whole_speakers_are_held_out(tmp_path, capsys):
    folder = tmp_path / "sounds"
    folder.mkdir()
    for speaker in range(10):
        for take in range(4):
            tone = sounds.tone(0.3, hertz=200.0 + 10 * (4 * speaker + take))
            soundfile.write(folder / f"s{speaker}_{take}.wav", tone, 16_000)
    more = ("--holdout=0.2", "--holdout_by=speaker", "--label_pattern=^(?P<speaker>s[0-9]+)_")
    code, said, _ = builds.run(builds.flags(folder, tmp_path / "out", *more), capsys)
    assert code == 0
    content = {part: manifest.read(tmp_path / "out" / part) for part in ("train", "test")}
    speakers = {part: set(content[part].labels["speaker"]) for part in content}
    assert not speakers["train"] & speakers["test"]
    assert (len(speakers["train"]), len(speakers["test"])) == (8, 2)
    assert content["test"].settings["holdout_by"] == "speaker"
    assert "8 values of 'speaker' lie in train, 2 in test" in said
    assert "opening" not in said  # A folder knows its labels before.
    assert content["test"].sides == {"speaker": {"train": 8, "test": 2}} == content["train"].sides
    assert "  held out by speaker: 8 in train, 2 in test, none in both" in said
    # Another label is another build.
    code, _, error = builds.run(builds.flags(folder, tmp_path / "out", *more[::2]), capsys)
    assert code == 1 and "holdout_by is 'speaker' there" in error


def _spoken(folder, texts):
    """A sound for each (voice, text), by their place, and a table of them."""
    folder.mkdir()
    lines = ["file,text,voice"]
    for place, (voice, text) in enumerate(texts):
        tone = sounds.tone(0.3, hertz=200.0 + 10 * place)
        soundfile.write(folder / f"{place}.wav", tone, 16_000)
        lines.append(f"{place}.wav,{text},{voice}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return (f"--metadata={folder / 'table.csv'}", "--holdout=0.3", "--holdout_by=voice,transcript")


def test_whole_voices_and_texts_are_held_out_and_what_mixes_them_is_counted(tmp_path, capsys):
    texts = [(f"v{voice}", f"words {5 * voice + take}") for voice in range(6) for take in range(5)]
    texts += [(f"v{voice}", "Yes") for voice in range(6)]
    more = _spoken(tmp_path / "sounds", texts)
    code, said, _ = builds.run(builds.flags(tmp_path / "sounds", tmp_path / "out", *more), capsys)
    assert code == 0
    content = {part: manifest.read(tmp_path / "out" / part) for part in ("train", "test")}
    sides = {"voice": {"train": 4, "test": 2}, "transcript": {"train": 21, "test": 10}}
    assert content["train"].sides == content["test"].sides == sides
    assert content["test"].settings["holdout_by"] == "voice,transcript"
    assert (content["train"].num_used, content["test"].num_used) == (24, 10)
    # Two held-out voices say "yes", as those in train do.
    mixed = {"sound on two sides by voice and transcript": 2}
    assert content["train"].skipped.items() >= mixed.items()
    assert "2 sound on two sides by voice and transcript" in said
    assert "  held out by transcript: 21 in train, 10 in test, none in both" in said


def test_a_value_that_is_read_on_both_sides_ends_the_build(tmp_path, capsys, monkeypatch):
    texts = [(f"v{voice}", f"words {5 * voice + take}") for voice in range(6) for take in range(5)]
    more = _spoken(tmp_path / "sounds", texts)
    opened = folders.Folder.opened

    @contextlib.contextmanager
    def otherwise(self, item):
        with opened(self, item) as sound:
            sound.labels["voice"] = "v0"
            yield sound

    monkeypatch.setattr(folders.Folder, "opened", otherwise)
    code, _, error = builds.run(builds.flags(tmp_path / "sounds", tmp_path / "out", *more), capsys)
    assert code == 1 and "--holdout_by=voice must keep each value on one side, got 1 of 1" in error
    assert not list((tmp_path / "out").glob("*/manifest.json"))
