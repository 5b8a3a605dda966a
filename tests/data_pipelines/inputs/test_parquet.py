# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Parquet files as Hugging Face's datasets write them: columns, rows, and files that are none."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from data_pipelines.inputs import parquet
from data_pipelines.records import sound as sound_records
from tests.support import builds
from tests.support import sounds

_FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def _encoded(index: int) -> bytes:
    stream = io.BytesIO()
    tone = sounds.tone(0.3 + 0.05 * index, hertz=200.0 + 30 * index)
    soundfile.write(stream, tone, 16_000, format="WAV" if index % 2 else "FLAC")
    return stream.getvalue()


def _sounds(count: int, *, first: int = 0) -> pa.Array:
    rows = [{"bytes": _encoded(first + i), "path": f"{i}.wav"} for i in range(count)]
    return pa.array(rows, _FILE)


def _write(path, columns, *, features=None, **options):
    """Writes a file; features are what Hugging Face says about columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if features:
        about = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": about})
    pq.write_table(table, path, **options)
    return path


def _build(path, output, *, audio_feature="", text_kind="", **options):
    source = parquet.Parquet(str(path), audio_feature=audio_feature, text_kind=text_kind)
    return builds.build(source, output, **options)


@pytest.mark.parametrize("row_group_size", [1, 3, 100])
def test_rows_become_records_with_their_texts_and_labels(row_group_size, tmp_path):
    columns = {
        "audio": _sounds(7),
        "text": [f"sentence {index}" for index in range(6)] + [None],
        "label": pa.array([0, 1, 0, 1, 0, 1, -1], pa.int64()),
        "speaker_id": pa.array(range(7), pa.int32()),
        "city": pa.array(["here", "there"] * 3 + ["here"]).dictionary_encode(),
        "scores": pa.array([[0.5, 0.5]] * 7),
        "embedding": pa.array([b"bytes"] * 7),
    }
    features = {
        "audio": {"_type": "Audio", "sampling_rate": 16000},
        "label": {"_type": "ClassLabel", "names": ["dog", "cat"]},
    }
    path = _write(
        tmp_path / "train-0.parquet", columns, features=features, row_group_size=row_group_size
    )
    content = _build(path, tmp_path / "out")[""]
    assert content.num_used == 7 and content.labels["label"] == ["cat", "dog"]
    for index, (key, record) in enumerate(sorted(builds.first_records(tmp_path / "out").items())):
        assert key == f"train-0/{index:08d}"
        expected, _ = soundfile.read(io.BytesIO(_encoded(index)), dtype="int16")
        np.testing.assert_array_equal(record.waveform, expected[:8_000])
        assert record.labels["speaker_id"] == str(index)
        assert record.labels["city"] == ("here", "there")[index % 2]
        assert record.labels.get("label") == ([*"dog cat".split()] * 3 + [None])[index]
        assert not {"scores", "embedding", "audio"} & record.labels.keys()
        said = (sound_records.Text(f"sentence {index}", "transcript"),)
        assert record.texts == (said if record.ends and index < 6 else ())


def test_several_captions_are_kept_in_columns_or_in_a_list(tmp_path):
    two = {"audio": _sounds(2), "caption_1": ["a", "b"], "caption_2": ["c", None]}
    _build(_write(tmp_path / "two.parquet", two), tmp_path / "a")
    listed = {"audio": _sounds(2), "captions": pa.array([["a", "c"], ["b"]])}
    _build(_write(tmp_path / "listed.parquet", listed), tmp_path / "b")
    for folder in ("a", "b"):
        texts = [record.texts for record in builds.first_records(tmp_path / folder).values()]
        contents = [[(text.content, text.kind) for text in group] for group in texts]
        assert contents == [[("a", "caption"), ("c", "caption")], [("b", "caption")]]
    path = _write(tmp_path / "text.parquet", {"audio": _sounds(1), "text": ["a tone"]})
    _build(path, tmp_path / "c", text_kind="caption")
    (record,) = builds.first_records(tmp_path / "c").values()
    assert record.texts == (sound_records.Text("a tone", "caption"),)


def test_a_column_of_bytes_will_do_and_of_several_one_must_be_said(tmp_path):
    encoded = pa.array([_encoded(0), _encoded(1)])
    _build(_write(tmp_path / "plain.parquet", {"wav": encoded}), tmp_path / "plain")
    assert len(builds.first_records(tmp_path / "plain")) == 2
    large = {"wav": encoded.cast(pa.large_binary())}
    _build(_write(tmp_path / "large.parquet", large), tmp_path / "large")
    columns = {"audio": _sounds(2), "image": _sounds(2), "first": encoded}
    path = _write(tmp_path / "several.parquet", columns)
    with pytest.raises(ValueError, match=r"got \['audio', 'image'\] of .*: say --audio_feature"):
        _build(path, tmp_path / "out")
    _build(path, tmp_path / "said", audio_feature="audio")
    # What Hugging Face says of them decides.
    for features in ({"audio": {"_type": "Audio"}}, {"image": {"_type": "Image"}}):
        path = _write(tmp_path / f"{len(features)}" / "told.parquet", columns, features=features)
        assert len(parquet.Parquet(str(path)).listed().items) == 2
    with pytest.raises(ValueError, match="--audio_feature=sound must be a column of"):
        _build(path, tmp_path / "out", audio_feature="sound")
    path = _write(tmp_path / "none.parquet", {"path": ["a.wav"], "text": ["x"]})
    with pytest.raises(ValueError, match=r"got none of path \(string\), .*: embed the sound"):
        _build(path, tmp_path / "out")


def test_paths_without_bytes_are_refused_and_a_row_without_is_counted(tmp_path):
    rows = [{"bytes": None, "path": f"{index}.wav"} for index in range(3)]
    path = _write(tmp_path / "paths.parquet", {"audio": pa.array(rows, _FILE)})
    with pytest.raises(ValueError, match="its column 'audio' has none in 3 rows, perhaps paths"):
        _build(path, tmp_path / "out")
    rows = [{"bytes": _encoded(0), "path": ""}, None, {"bytes": None, "path": "x"}]
    rows += [{"bytes": b"", "path": ""}, {"bytes": b"noise" * 99, "path": ""}]
    path = _write(tmp_path / "some.parquet", {"audio": pa.array(rows, _FILE)})
    assert _build(path, tmp_path / "out")[""].num_used == 1
    assert builds.reasons(tmp_path / "out") == {
        "some/00000001": "empty",
        "some/00000002": "empty",
        "some/00000003": "empty",
        "some/00000004": "not_sound",
    }


def test_texts_that_contradict_each_other_are_refused_by_row(tmp_path):
    columns = {"audio": _sounds(2), "text": ["a", "b"], "sentence": ["a", "other"]}
    path = _write(tmp_path / "a.parquet", columns)
    with pytest.raises(ValueError, match="row 1 of .*a.parquet says different words in text and"):
        _build(path, tmp_path / "out")


def test_files_that_are_not_whole_are_named(tmp_path):
    data = _write(tmp_path / "a.parquet", {"audio": _sounds(3)}).read_bytes()
    for name, content in (
        ("cut.parquet", data[:-100]),
        ("head.parquet", data[:100]),
        ("none.parquet", b"not parquet" * 100),
        ("empty.parquet", b""),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} must be a whole Parquet file, got one that"):
            _build(tmp_path / name, tmp_path / "out")


def test_damaged_bytes_are_found_where_there_are_checksums(tmp_path):
    path = _write(
        tmp_path / "a.parquet",
        {"audio": pa.array([np.random.default_rng(0).bytes(9_000)])},
        compression="none",
        use_dictionary=False,
        write_page_checksum=True,
    )
    data = bytearray(path.read_bytes())
    data[4_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="a.parquet must be a whole Parquet file.*CRC"):
        _build(path, tmp_path / "out")


def test_what_save_to_disk_writes_is_refused_with_how_to_convert_it(tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{}")
    (tmp_path / "saved" / "data-00000-of-00001.arrow").touch()
    for name in ("saved", "saved/data-00000-of-00001.arrow"):
        with pytest.raises(ValueError, match=r"save_to_disk writes: .*to_parquet\('sound.parquet'"):
            parquet.Parquet(str(tmp_path / name))
    with pytest.raises(ValueError, match="--input=.*no_such.parquet must name files"):
        parquet.Parquet(str(tmp_path / "no_such.parquet"))


def test_rows_are_read_forward_whatever_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_ROWS_AT_A_TIME", 4)
    path = _write(tmp_path / "a.parquet", {"audio": _sounds(30)}, row_group_size=11)
    source = parquet.Parquet(str(path))
    items = source.listed().items
    for index in np.random.default_rng(0).permutation(30):
        with source.encoded(items[index]) as file:
            assert file.read() == _encoded(index)
    assert [item.num_bytes for item in items] == [len(_encoded(index)) for index in range(30)]


def test_a_row_group_is_not_read_at_once(tmp_path):
    rng = np.random.default_rng(0)
    columns = {"audio": pa.array([rng.bytes(500_000) for _ in range(100)])}
    # Pages are read whole, and Parquet's writers end them only after so many rows.
    path = _write(tmp_path / "a.parquet", columns, use_dictionary=False, write_batch_size=8)
    del columns
    before = pa.total_allocated_bytes()
    source = parquet.Parquet(str(path))
    items = source.listed().items
    with source.encoded(items[50]) as file:
        assert len(file.read()) == 500_000
    assert pa.total_allocated_bytes() - before < 20_000_000


def test_the_same_bytes_with_any_number_of_workers_and_whole_speakers(tmp_path):
    for part in range(2):
        speakers = [f"s{index // 2}" for index in range(8)]
        columns = {"audio": _sounds(8, first=8 * part), "speaker": speakers}
        _write(tmp_path / "in" / f"{part}.parquet", columns, row_group_size=3)
    builds.check_workers(parquet.Parquet(str(tmp_path / "in")), tmp_path / "out")


def test_copies_in_two_files_lie_on_one_side(tmp_path):
    for part in range(2):
        _write(tmp_path / "in" / f"{part}.parquet", {"audio": _sounds(8)})
    manifests = _build(tmp_path / "in", tmp_path / "out", fraction=0.4)
    for content in manifests.values():
        assert not content.refused and content.duplicates * 2 == content.num_used


def test_the_command_builds_a_folder(tmp_path, capsys):
    _write(tmp_path / "in" / "data" / "train-00000.parquet", {"audio": _sounds(2)})
    (tmp_path / "in" / "README.md").touch()
    arguments = ["--source=parquet", f"--input={tmp_path}/in", f"--output={tmp_path}/out"]
    code, said, _ = builds.run(arguments, capsys)
    assert code == 0 and "2 of 2 sounds used" in said and "1 passed over (1 .md)" in said
    assert set(builds.first_records(tmp_path / "out")) == {
        "data/train-00000/00000000",
        "data/train-00000/00000001",
    }
