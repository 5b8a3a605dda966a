# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The account of a build adds up, whatever became of the sounds, and does not depend on shards."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from data_pipelines.building import account
from data_pipelines.building import builder
from data_pipelines.building import plan as build_plan
from data_pipelines.inputs import folders
from data_pipelines.reading import sources
from data_pipelines.records import manifest
from data_pipelines.records import sound as sound_records
from data_pipelines.sound import levels
from tests.support import cases
from tests.support import sounds

_TEXTS = (
    sound_records.Text("said", "transcript"),
    sound_records.Text("a tone", "caption"),
    sound_records.Text("a long tone", "caption"),
)


def _noise(seconds, *, rms=0.1, channels=1, rate=16_000):
    samples = np.random.default_rng(round(seconds * 1000)).standard_normal(
        (round(seconds * rate), channels)
    )
    return (rms * samples).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """Eight tones of 0.3 to 1.07 s, noise of several kinds, and what is no sound."""
    folder = sounds.write_folder(tmp_path / "sounds")
    opposite = _noise(0.4) * np.array([1.0, -0.98], np.float32)
    kinds = {
        "0_eve_opposite": opposite,
        "0_eve_quiet": _noise(0.45, rms=10 ** (-70 / 20)),
        "0_eve_clipped": np.clip(_noise(0.46, rms=1.0), -1.0, 32767 / 32768),
        "0_eve_offset": _noise(0.47) + 0.1,
        "0_eve_fine": _noise(0.48),
        "0_eve_enormous": _noise(0.49) * 1e30,
        "0_eve_silent": np.zeros((8000, 1), np.float32),
    }
    for name, samples in kinds.items():
        soundfile.write(folder / f"{name}.wav", samples, 16_000, subtype="FLOAT")
    (folder / "notes.txt").write_text("no sound")
    (folder / "broken.flac").write_bytes(b"no sound either")
    return folder


def _source(folder, **changes):
    fields = dict(label_pattern=r"^(?P<digit>\d)_(?P<speaker>[a-z]+)_", texts=_TEXTS)
    return sounds.TextsBesides(str(folder), **(fields | changes))


def _build(folder, output, *, source=None, holdout=None, say=lambda line: None, **changes):
    options = {"holdout": holdout} if holdout else {}
    conversion = sounds.conversion(**changes)
    return builder.build(source or _source(folder), output, conversion, say=say, **options)


def test_every_entry_and_every_text_is_accounted_for(folder, tmp_path):
    content = _build(folder, tmp_path / "out")[""]
    assert content == manifest.read(tmp_path / "out")
    num_entries = len(list(folder.iterdir()))
    assert content.num_sources + sum(content.skipped.values()) == num_entries == 17
    assert content.num_used + sum(content.refused.values()) == content.num_sources == 16
    assert content.refused == {"out_of_range": 1, "silent": 1, "not_sound": 1}
    records = [sources.ShardSet(tmp_path / "out")[index] for index in range(content.num_records)]
    # Six tones are longer than the half second of a record.
    assert content.texts == {
        "caption": {"records": content.num_records, "sounds": 13, "texts": 26},
        "transcript": {"records": 7, "sounds": 13, "texts": 13},
    }
    assert content.num_texts == sum(len(record.texts) for record in records)
    assert content.lost_transcripts == 6 and content.lost_seconds == pytest.approx(1.07)
    for name, values in content.labels.items():
        assert list(content.hours[name]) == values
        assert sum(content.hours[name].values()) * 3600 == pytest.approx(content.seconds)
    seconds = sum(r.num_samples for r in records if r.labels["speaker"] == "eve") / 16_000
    assert content.hours["speaker"]["eve"] * 3600 == pytest.approx(seconds)
    assert content.noteworthy == {
        "clipped": 1, "quiet": 1, "dc_offset": 1, "narrow": 8, "mix_loss": 1
    }  # fmt: skip


def test_levels_of_records_and_their_distribution(folder, tmp_path):
    content = _build(folder, tmp_path / "out")[""]
    found = sources.ShardSet(tmp_path / "out")
    records = [found[index] for index in range(len(found))]
    assert all(list(record.levels) == list(levels.FIGURES) for record in records)
    for record in records:
        rms = 20 * np.log10(np.sqrt(np.mean((record.waveform / 32768.0) ** 2)))
        assert record.levels["rms_db"] == pytest.approx(rms, abs=0.051)
        assert record.levels["dc"] == pytest.approx(np.mean(record.waveform / 32768.0), abs=6e-5)
    for name, distribution in content.levels.items():
        values = sorted(record.levels[name] for record in records)
        assert distribution["min"] == values[0] and distribution["max"] == values[-1]
        for percent in account.PERCENTILES:
            # The least value that so many are not above.
            wanted = np.percentile(values, percent, method="inverted_cdf")
            assert distribution[f"p{percent}"] == wanted
    assert list(content.levels) == list(levels.FIGURES)


def test_the_account_does_not_depend_on_shards(folder, tmp_path, monkeypatch):
    whole = _build(folder, tmp_path / "one")[""]
    monkeypatch.setattr(build_plan, "_MIN_SHARD_BYTES", 30_000)
    parts = _build(folder, tmp_path / "several")[""]
    assert len(parts.shards) > len(whole.shards)
    for name in "texts labels hours levels noteworthy lost_seconds refused num_samples".split():
        assert getattr(parts, name) == getattr(whole, name), name


def test_limits_refuse_by_name_and_are_part_of_the_settings(folder, tmp_path):
    limits = levels.Limits(0.1, -60.0, 0.05, 6000.0, 10.0)
    content = _build(folder, tmp_path / "out", limits=limits)[""]
    assert content.refused == {
        "clipped": 1, "dc_offset": 1, "mix_loss": 1, "narrow": 8, "not_sound": 1, "out_of_range": 1,
        "quiet": 1, "silent": 1,
    }  # fmt: skip
    assert content.num_used == 1 and not content.noteworthy and content.clipped_samples == 0
    lines = (tmp_path / "out" / manifest.REFUSALS_NAME).read_text().splitlines()
    details = {one["path"]: one["detail"] for one in map(json.loads, lines)}
    assert "--max_mix_loss_db=10" in details["0_eve_opposite.wav"]
    with pytest.raises(ValueError, match="limits is .*'max_clipped': 0.1.* there and"):
        _build(folder, tmp_path / "out")


def test_transcripts_stay_where_the_longest_fits(folder, tmp_path):
    content = _build(folder, tmp_path / "cut")[""]
    length = round(content.lost_seconds * 16_000)
    whole = _build(folder, tmp_path / "whole", segment_length=length)[""]
    assert whole.lost_transcripts == 0 == whole.lost_seconds
    assert whole.texts["transcript"]["records"] == whole.num_used
    assert _build(folder, tmp_path / "shorter", segment_length=length - 1)[""].lost_transcripts == 1


def test_a_record_more_than_stretches_has_the_figures_of_the_last(tmp_path):
    """Rounding of rates: 8,001 samples at 7,999 Hz make one more than two segments hold."""
    for rate, num in ((7_999, 8_001), (44_101, 44_102), (12_001, 12_002), (11_025, 11_026)):
        folder = tmp_path / str(rate)
        folder.mkdir()
        soundfile.write(folder / "a.wav", _noise(num / rate, rate=rate), rate)
        content = _build(folder, tmp_path / f"out{rate}", source=folders.Folder(str(folder)))[""]
        assert content.num_records >= 2 and content.levels["clipped"]["max"] == 0.0


def test_kept_fronts_are_counted_and_have_no_transcript_and_no_end(tmp_path):
    folder = tmp_path / "sounds"
    folder.mkdir()
    for name in ("cut", "whole"):
        soundfile.write(folder / f"0_eve_{name}.wav", _noise(0.4), 16_000, subtype="PCM_16")
    content = (folder / "0_eve_cut.wav").read_bytes()
    (folder / "0_eve_cut.wav").write_bytes(content[: len(content) // 2])
    refused = _build(folder, tmp_path / "refused")[""]
    assert refused.refused == {"truncated": 1} and refused.kept == {} and refused.num_used == 1
    said = []
    kept = _build(folder, tmp_path / "kept", keep_damaged=True, say=said.append)[""]
    assert kept.refused == {} and kept.kept == {"truncated": 1} and kept.num_used == 2
    assert kept.lost_transcripts == 0 and kept == manifest.read(tmp_path / "kept")
    assert "kept as far as they are whole, without transcripts: 1 truncated" in "\n".join(said)
    cut, whole = (sources.ShardSet(tmp_path / "kept")[index] for index in range(2))
    assert (cut.ends, whole.ends) == (False, True)
    assert [text.kind for text in cut.texts] == ["caption", "caption"] and whole.texts == _TEXTS
    assert 3_000 < cut.waveform.size < 3_200


def test_the_cases_of_levels_are_refused_or_said(tmp_path):
    folder = tmp_path / "sounds"
    folder.mkdir()
    for name in ("one_sample_1e30.wav", "stereo_nearly_opposite.wav"):
        shutil.copy(cases.folder("sounds") / name, folder)
    content = _build(folder, tmp_path / "out", source=folders.Folder(str(folder)))[""]
    assert content.refused == {"out_of_range": 1} and content.noteworthy["mix_loss"] == 1
    assert content.levels["mix_loss_db"]["max"] > 35.0
