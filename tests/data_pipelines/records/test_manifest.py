# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Manifests: read back as written, and refused when damaged."""

import dataclasses
import json

import pytest

from data_pipelines.records import manifest
from tests.support import seals
from tests.support import sounds


@pytest.fixture
def shard_set(tmp_path):
    return sounds.shard_set(tmp_path, num_files=3)


def _edit(shard_set, change):
    """Changes a manifest, which is sealed anew."""
    path = shard_set / manifest.FILE_NAME
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))
    seals.change(path)


def test_read_returns_what_was_written(shard_set, tmp_path):
    content = manifest.read(shard_set)
    (tmp_path / "copy").mkdir()
    manifest.write(content, tmp_path / "copy")
    assert manifest.read(tmp_path / "copy") == content
    assert content.num_records == sum(shard.num_records for shard in content.shards) > 3
    assert content.seconds == pytest.approx(0.3 + 0.41 + 0.52)


def test_licences_stand_in_a_manifest_that_has_some(shard_set, tmp_path):
    content = manifest.read(shard_set)
    assert content.licences == {}
    assert "licences" not in json.loads((shard_set / manifest.FILE_NAME).read_text())
    content = dataclasses.replace(content, licences={"festvox-ru": {"licence": "BSD-like"}})
    manifest.write(content, tmp_path)
    assert manifest.read(tmp_path) == content


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda fields: fields.update(format="other"), "format"),
        (lambda fields: fields.pop("shards"), "shards"),
        (lambda fields: fields.update(extra=1), "extra"),
        (lambda fields: fields.update(sample_rate=0), "sample_rate"),
        (lambda fields: fields.update(num_records=99), "99"),
        (lambda fields: fields["shards"].append(fields["shards"][0]), "named twice"),
        (lambda fields: fields["shards"][0].update(num_records=-1), "-1 records"),
        (lambda fields: fields.update(num_used=-1), "num_used is -1"),
        (lambda fields: fields.update(num_texts="3"), "num_texts is 3"),
        (lambda fields: fields.update(refused={"silent": 1.5}), "refused is"),
        (lambda fields: fields.update(settings=[]), "settings is"),
        (lambda fields: fields.update(labels={"speaker": [1]}), "values of label 'speaker'"),
        (lambda fields: fields.update(texts={"caption": 3}), "texts is"),
        (lambda fields: fields.update(hours={"speaker": {"ada": "1"}}), "hours is"),
        (lambda fields: fields.update(licences={"a": {"licence": 1}}), "licences is"),
        (lambda fields: fields.update(levels=None), "levels is None"),
        (lambda fields: fields.update(lost_transcripts=True), "lost_transcripts is True"),
        (
            lambda fields: fields["shards"][0].update(name="../../x.array_record"),
            "no name for a shard",
        ),
        (
            lambda fields: fields["shards"][0].update(name="/tmp/x.array_record"),
            "no name for a shard",
        ),
    ],
)
def test_damaged_manifests_are_refused(change, message, shard_set):
    _edit(shard_set, change)
    with pytest.raises(ValueError, match=message):
        manifest.read(shard_set)


@pytest.mark.reliability("R07", "R23")
def test_no_flipped_bit_changes_what_a_manifest_says(shard_set):
    path = shard_set / manifest.FILE_NAME
    read = lambda: manifest.read(shard_set)
    # The rest are spaces between values.
    assert seals.count_refusals(path, read, stride=5) > 0.85


def test_a_manifest_of_an_earlier_version_has_no_seal(shard_set):
    path, content = shard_set / manifest.FILE_NAME, manifest.read(shard_set)
    seals.remove(path)
    with pytest.raises(ValueError, match="must have the seal that it was written with, got none"):
        manifest.read(shard_set)
    seals.remove(path, format="f3tok shard set 1")
    assert manifest.read(shard_set) == content
    seals.change(path)
    with pytest.raises(ValueError, match="is not a whole manifest .*seal"):
        manifest.read(shard_set)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_what_is_no_manifest_is_refused(text, tmp_path):
    (tmp_path / manifest.FILE_NAME).write_text(text)
    with pytest.raises(ValueError, match="not a whole manifest"):
        manifest.read(tmp_path)


def test_folder_without_a_manifest_names_the_sets_below_it(shard_set):
    with pytest.raises(ValueError, match="not a finished shard set.*its sets are shards: name one"):
        manifest.read(shard_set.parent)
    with pytest.raises(ValueError, match="build_shards"):
        manifest.read(shard_set / "nothing")


def test_fingerprint_is_of_the_sound_alone(tmp_path):
    first = manifest.read(sounds.shard_set(tmp_path / "a", num_files=3))
    elsewhere = manifest.read(sounds.shard_set(tmp_path / "b", num_files=3))
    other = manifest.read(sounds.shard_set(tmp_path / "c", num_files=4))
    assert first.settings != elsewhere.settings  # the folder's name
    assert first.fingerprint == elsewhere.fingerprint != other.fingerprint
