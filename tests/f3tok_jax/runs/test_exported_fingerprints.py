# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Fingerprints kept beside weights hold for these weights, with this config, and for no others."""

import json

import pytest

from f3tok_jax.runs import exported_fingerprints

_PRINTS = {"ema_params/generator/encoder/stem/bias": "float32[4]:0123456789abcdef"}


@pytest.fixture
def folder(tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes(name.encode())
    exported_fingerprints.write(tmp_path, _PRINTS)
    return tmp_path


def test_what_was_written_holds(folder):
    assert exported_fingerprints.read(folder) == _PRINTS


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_of_changed_files_nothing_is_known(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert exported_fingerprints.read(folder) is None
    path.unlink()
    assert exported_fingerprints.read(folder) is None


def test_weights_that_an_index_leads_elsewhere_are_others(folder):
    index = {"weight_map": {"encoder.stem.bias": "other.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert exported_fingerprints.read(folder) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"0123456789abcdef", b"1123456789abcdef"),
        lambda data: b"[]",
        lambda data: b"{" * 100_000,
        lambda data: b'{"sha256": {}, "fingerprints": {}}',
    ],
    ids=["empty", "torn", "another fingerprint", "a list", "deep", "empty objects"],
)
def test_a_damaged_file_says_nothing(folder, damage):
    path = folder / exported_fingerprints.FILE_NAME
    path.write_bytes(damage(path.read_bytes()))
    assert exported_fingerprints.read(folder) is None
