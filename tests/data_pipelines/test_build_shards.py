# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Builds: what they contain and refuse, that they repeat bit by bit and survive being killed."""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import subprocess
import time

import numpy as np
import pytest
import soundfile

from data_pipelines import build_shards
from data_pipelines.building import builder
from data_pipelines.building import split
from data_pipelines.inputs import folders
from data_pipelines.inputs import listing
from data_pipelines.reading import sources
from data_pipelines.records import manifest
from data_pipelines.records import sound as sound_records
from data_pipelines.sound import refusals
from tests.support import builds
from tests.support import deadly
from tests.support import sounds

ROOT = pathlib.Path(__file__).resolve().parents[2]


def _build(source, output, *, say=lambda line: None, holdout=0.0, num_workers=0, **changes):
    if isinstance(source, pathlib.Path):
        source = folders.Folder(str(source))
    return builder.build(
        source,
        output,
        sounds.conversion(**changes),
        holdout=split.Holdout(holdout),
        num_workers=num_workers,
        say=say,
    )


@pytest.fixture
def folder(tmp_path):
    return sounds.write_folder(tmp_path / "sounds")


@pytest.fixture
def many_shards(monkeypatch):
    """Shards of about two of the small test files, so that a build has several."""
    monkeypatch.setattr(builder.build_plan, "_MIN_SHARD_BYTES", 30_000)


def test_segments_put_together_are_the_file(folder, tmp_path):
    content = _build(folder, tmp_path / "out")[""]
    shard_set = sources.ShardSet(tmp_path / "out")
    by_source = {}
    for index in range(len(shard_set)):
        by_source.setdefault(shard_set[index].source, []).append(shard_set[index])
    assert len(by_source) == content.num_used == 8
    for name, segments in by_source.items():
        expected, _ = soundfile.read(folder / name, dtype="int16")
        np.testing.assert_array_equal(
            np.concatenate([segment.waveform for segment in segments]), expected
        )
        assert [segment.offset for segment in segments] == list(range(0, len(expected), 8_000))
        assert [segment.key for segment in segments] == [
            f"{name}#{index:05d}" for index in range(len(segments))
        ]
        # The remainder is kept, at its own length.
        assert [segment.waveform.size for segment in segments[:-1]] == [8_000] * (len(segments) - 1)
    assert content.num_samples == sum(soundfile.info(folder / name).frames for name in by_source)


def test_bad_files_among_good_ones_are_named_and_nothing_more(folder, tmp_path):
    (folder / "empty.wav").touch()
    (folder / "noise.flac").write_bytes(os.urandom(3000))
    (folder / "notes.txt").write_text("not sound")
    soundfile.write(folder / "short.wav", sounds.tone(0.01), 16_000)
    soundfile.write(folder / "silent.wav", np.zeros(9000), 16_000)
    content = _build(folder, tmp_path / "out")[""]
    assert builds.reasons(tmp_path / "out") == {
        "empty.wav": "empty",
        "noise.flac": "undecodable",
        "short.wav": "too_short",
        "silent.wav": "silent",
    }
    assert content.refused == {"empty": 1, "silent": 1, "too_short": 1, "undecodable": 1}
    assert content.skipped == {".txt": 1}
    assert (content.num_sources, content.num_used) == (12, 8)


def test_nothing_usable_is_an_error_with_the_counts(tmp_path):
    folder = tmp_path / "sounds"
    folder.mkdir()
    for index in range(3):
        (folder / f"{index}.wav").touch()
    soundfile.write(folder / "silent.wav", np.zeros(9000), 16_000)
    with pytest.raises(ValueError, match="nothing usable .* among 4 sounds: 3 empty, 1 silent"):
        _build(folder, tmp_path / "out")
    assert len(builds.reasons(tmp_path / "out")) == 4
    with pytest.raises(ValueError, match="not a finished shard set"):
        sources.ShardSet(tmp_path / "out")
    # Mended, the same command works.
    soundfile.write(folder / "0.wav", sounds.tone(), 16_000)
    assert _build(folder, tmp_path / "out")[""].num_used == 1


def test_folder_without_sound_says_what_it_passed_over(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match="passed over 1 .txt"):
        _build(tmp_path, tmp_path / "out")
    (tmp_path / "a.tar").touch()
    with pytest.raises(ValueError, match="1 .tar.*--source=webdataset"):
        _build(tmp_path, tmp_path / "out")


def test_builds_repeat_bit_by_bit_with_any_number_of_workers(folder, tmp_path, many_shards):
    (folder / "empty.wav").touch()
    _build(folder, tmp_path / "a")
    _build(folder, tmp_path / "b", num_workers=2)
    assert builds.files(tmp_path / "a") == builds.files(tmp_path / "b")
    assert len(list((tmp_path / "a").glob("*.array_record"))) > 2
    assert not (tmp_path / "a" / manifest.STAGING_NAME).exists()


def test_a_finished_build_is_recognised(folder, tmp_path):
    _build(folder, tmp_path / "out")
    before = builds.files(tmp_path / "out")
    said = []
    _build(folder, tmp_path / "out", say=said.append)
    assert len(said) == 1 and "already built" in said[0]
    assert builds.files(tmp_path / "out") == before


def test_a_damaged_build_is_built_again(folder, tmp_path, many_shards):
    _build(folder, tmp_path / "out")
    before = builds.files(tmp_path / "out")
    next((tmp_path / "out").glob("*.array_record")).write_bytes(b"")
    _build(folder, tmp_path / "out")
    assert builds.files(tmp_path / "out") == before


def test_shards_may_lie_below_the_sound(folder):
    _build(folder, folder / "shards", holdout=0.3)
    said = []
    manifests = _build(folder, folder / "shards", holdout=0.3, say=said.append)
    assert "folders that builds have written" in said[0] and "already built" in said[1]
    (folder / "shards" / "train" / manifest.FILE_NAME).unlink()
    (folder / "shards" / manifest.STAGING_NAME).mkdir()
    assert _build(folder, folder / "shards", holdout=0.3) == manifests


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(segment_length=4_000), "segment_length is 8000 there and 4000 now"),
        (dict(mono="left"), "mono is 'mean' there"),
        (dict(holdout=0.5), "holdout is 0.0 there and 0.5 now"),
    ],
)
def test_a_folder_with_another_build_is_refused_by_name(changes, message, folder, tmp_path):
    _build(folder, tmp_path / "out")
    before = builds.files(tmp_path / "out")
    with pytest.raises(ValueError, match=message):
        _build(folder, tmp_path / "out", **changes)
    assert builds.files(tmp_path / "out") == before


def test_other_files_than_those_built_are_refused(folder, tmp_path):
    _build(folder, tmp_path / "out")
    soundfile.write(folder / "new.wav", sounds.tone(), 16_000)
    with pytest.raises(ValueError, match="other sounds than the input has now"):
        _build(folder, tmp_path / "out")


def test_two_builders_do_not_share_an_output(folder, tmp_path):
    (tmp_path / "out" / manifest.STAGING_NAME).mkdir(parents=True)
    with open(tmp_path / "out" / manifest.STAGING_NAME / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another build is writing"):
            _build(folder, tmp_path / "out")
    # What a killed builder left unfinished is cleared away.
    (tmp_path / "out" / manifest.STAGING_NAME / "shard.123.partial").touch()
    _build(folder, tmp_path / "out")
    assert not (tmp_path / "out" / manifest.STAGING_NAME).exists()


def test_holdout_keeps_whole_files_on_one_side_and_does_not_wander(tmp_path):
    folder = sounds.write_folder(tmp_path / "sounds", num_files=20)
    _build(folder, tmp_path / "out", holdout=0.3)
    parts = {}
    for part in ("train", "test"):
        shard_set = sources.ShardSet(tmp_path / "out" / part)
        parts[part] = {shard_set[index].source for index in range(len(shard_set))}
    assert not parts["train"] & parts["test"] and len(parts["train"] | parts["test"]) == 20
    assert parts["test"]
    # A file more moves no other file to the other side.
    soundfile.write(folder / "more.wav", sounds.tone(), 16_000)
    _build(folder, tmp_path / "again", holdout=0.3)
    shard_set = sources.ShardSet(tmp_path / "again" / "test")
    again = {shard_set[index].source for index in range(len(shard_set))}
    assert again - {"more.wav"} == parts["test"]


@pytest.mark.parametrize("holdout", [0.0001, 0.9999])
def test_neither_part_of_a_holdout_is_empty(holdout, folder, tmp_path):
    manifests = _build(folder, tmp_path / "out", holdout=holdout)
    assert manifests["train"].num_used + manifests["test"].num_used == 8
    assert min(manifests["train"].num_used, manifests["test"].num_used) == 1


def test_labels_are_listed_unless_they_are_identifiers(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(builder.account, "MAX_LABEL_VALUES", 4)
    source = folders.Folder(str(folder), label_pattern=r"^\d_(?P<speaker>[a-z]+)_(?P<index>\d+)")
    content = _build(source, tmp_path / "out")[""]
    assert content.labels == {"index": None, "speaker": ["ada", "bob"]}
    assert sources.ShardSet(tmp_path / "out")[0].labels == {"speaker": "ada", "index": "0"}


@dataclasses.dataclass(frozen=True)
class _Described:
    """A folder whose listing has texts, labels, rows and a remark."""

    folder: str
    text: str = "one"

    def settings(self):
        return {"source": "described"}

    def listed(self):
        found = folders.Folder(self.folder).listed()
        texts = (sound_records.Text(self.text, sound_records.CAPTION),)
        items = [dataclasses.replace(item, texts=texts, labels={"a": "b"}) for item in found.items]
        return listing.Listing(tuple(items), {}, {"matched": 8}, ("8 rows were read",))

    @contextlib.contextmanager
    def opened(self, item):
        with folders.Folder(self.folder).opened(item) as sound:
            yield sound


def test_what_a_listing_knows_is_said_written_and_part_of_what_was_built(folder, tmp_path):
    said = []
    content = _build(_Described(str(folder)), tmp_path / "out", say=said.append)[""]
    assert said[0] == "8 rows were read" and "rows of tables: 8 matched" in said[-1]
    assert content.rows == {"matched": 8}
    assert manifest.read(tmp_path / "out") == content
    assert sources.ShardSet(tmp_path / "out")[0].labels == {"a": "b"}
    _build(_Described(str(folder)), tmp_path / "out")
    with pytest.raises(ValueError, match="texts or labels differ"):
        _build(_Described(str(folder), "two"), tmp_path / "out")


def test_a_file_that_crashes_the_decoder_does_not_end_the_build(folder, tmp_path):
    content = _build(deadly.Deadly(str(folder)), tmp_path / "out", num_workers=1)[""]
    assert content.num_used == 6
    crashed, raised = builds.refusals(tmp_path / "out").values()
    assert crashed[0] == "crashed" and "SIGSEGV" in crashed[1]
    assert raised[0] == "undecodable" and "KeyError: 'surprise'" in raised[1]


@pytest.mark.reliability("R27")
def test_a_killed_build_leaves_no_set_and_is_continued(tmp_path):
    folder = tmp_path / "sounds"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(16):  # 1.1 MB each, a shard of its own from the second on
        soundfile.write(folder / f"{index:02d}.wav", rng.uniform(-0.5, 0.5, 550_000), 44_100)
    output = tmp_path / "killed"
    with subprocess.Popen(
        builds.PROGRAM + builds.flags(folder, output), cwd=ROOT, stdout=subprocess.DEVNULL
    ) as process:
        # Killed as soon as the first shard is there, with most of the work to do.
        while not list(output.glob("*.array_record")):
            assert process.poll() is None
            time.sleep(0.001)
        process.kill()
    with pytest.raises(ValueError, match="not a finished shard set"):
        sources.ShardSet(output)
    num_done = len(list(output.glob("*.array_record")))
    rerun = subprocess.run(
        builds.PROGRAM + builds.flags(folder, output),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert num_done < 16 and f"continuing: {num_done} of " in rerun.stdout
    _build(
        folders.Folder(str(folder)),
        tmp_path / "undisturbed",
        segment_length=320_000,
        min_seconds=0.1,
        max_seconds=6 * 3600.0,
    )
    assert builds.files(output) == builds.files(tmp_path / "undisturbed")


def test_user_errors_are_one_line(folder, tmp_path, capsys):
    for more, message in (
        (["--input=no/such"], "--input=no/such does not exist"),
        (["--metadata=/no/such.csv"], "--metadata=/no/such.csv does not exist"),
        (["--holdout=2"], "--holdout=2.0 must be a fraction"),
        (["--source=embedded"], "either --num_clips or --hours"),
        (["--source=tfds", "--input="], "--source=tfds needs --input"),
    ):
        code, _, error = builds.run(builds.flags(folder, tmp_path / "out", *more), capsys)
        assert code == 1
        assert error.strip().count("\n") == 0 and message in error


def test_real_recordings_are_built(shared_data, tmp_path):
    folder = shared_data / "read_speech"
    source = folders.Folder(
        str(folder), metadata=(str(folder / "metadata.csv"),), metadata_columns=("id", "_", "text")
    )
    content = _build(source, tmp_path / "out", sample_rate=24_000, segment_length=480_000)[""]
    assert content.num_used == 8 and not content.refused and content.skipped == {"table": 1}
    record = sources.ShardSet(tmp_path / "out")[0]
    assert record.texts and record.source.endswith(".flac")
    assert refusals.REASONS.keys() >= content.refused.keys()


def test_names_that_are_not_utf_8_are_built_and_refused_by_name(folder, tmp_path):
    place = os.fsencode(folder)
    os.rename(place + b"/0_ada_0.wav", place + b"/0_ad\xe9_0.wav")
    with open(place + b"/\xff.wav", "wb"):
        pass
    run = subprocess.run(
        builds.PROGRAM + builds.flags(folder, tmp_path / "out"), cwd=ROOT, capture_output=True
    )
    assert run.returncode == 0, run.stderr
    assert list(builds.reasons(tmp_path / "out")) == ["\udcff.wav"]
    found = {
        record.source for record in map(sources.ShardSet(tmp_path / "out").__getitem__, range(8))
    }
    assert "0_ad\udce9_0.wav" in found


def test_texts_of_tables_and_sidecars_are_in_the_records(folder, tmp_path, capsys):
    names = sorted(path.stem for path in folder.iterdir())
    rows = [f"{name}.wav,a sound of {name}" for name in (*names[:6], "x")]
    (folder / "texts.csv").write_text("\n".join(["file,text", *rows]))
    (folder / f"{names[7]}.lab").write_text("a tone")
    more = ["--segment_seconds=2", "--metadata=texts.csv", "--sidecars=.lab", "--text_kind=caption"]
    arguments = builds.flags(folder, tmp_path / "out", *more)
    code, said, _ = builds.run(arguments, capsys)
    assert code == 0
    assert "texts.csv: 6 of 7 rows matched (85 %), 1 without sound such as x.wav; 2 of 8" in said
    assert "8 rows of tables: 7 matched" in said
    content = manifest.read(tmp_path / "out")
    assert content.rows == {"matched": 7, "without sound": 1, "sounds without row": 1}
    assert content.skipped == {"sidecar": 1, "table": 1}
    shard_set = sources.ShardSet(tmp_path / "out")
    texts = {record.source: record.texts for record in map(shard_set.__getitem__, range(8))}
    caption = sound_records.Text(f"a sound of {names[0]}", sound_records.CAPTION)
    assert texts[f"{names[0]}.wav"] == (caption,) and texts[f"{names[6]}.wav"] == ()
    (folder / "texts.csv").write_text("file,text\n" + rows[0] + " and more\n")
    code, _, error = builds.run(arguments, capsys)
    assert code == 1 and "names, sizes, texts or labels differ" in error


def test_by_default_sounds_as_long_as_recipes_hear_keep_their_transcripts(tmp_path):
    (tmp_path / "sounds").mkdir()
    rows = ["file,text"]
    for seconds in (2, 15, 20):
        soundfile.write(
            tmp_path / "sounds" / f"{seconds}.wav", sounds.tone(seconds, rate=8000), 8000
        )
        rows.append(f"{seconds}.wav,said")
    (tmp_path / "texts.csv").write_text("\n".join(rows))
    arguments = [f"--input={tmp_path / 'sounds'}", f"--output={tmp_path / 'out'}"]
    arguments += ["--source=folder", "--sample_rate=8000", f"--metadata={tmp_path / 'texts.csv'}"]
    assert build_shards.main(arguments) == 0
    content = manifest.read(tmp_path / "out")
    assert content.lost_transcripts == 0 and content.num_records == content.num_texts == 3
