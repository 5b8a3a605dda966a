# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The identity of a language model's folder: every byte that is used counts, and nothing else."""

import os
import pathlib
import shutil

import pytest

from f3tok_jax.runs import language_model_folder
from tests.support import tiny_models

_FILES = ("config.json", "tokenizer.json", "model.safetensors")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> pathlib.Path:
    return pathlib.Path(tiny_models.write_language_model(tmp_path_factory.mktemp("text")))


@pytest.fixture
def folder(model, tmp_path) -> pathlib.Path:
    """A copy, to be spoiled."""
    return shutil.copytree(model, tmp_path / "model")


def _flip(path: pathlib.Path, place: int) -> None:
    with open(path, "r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("name", _FILES)
@pytest.mark.parametrize("place", [0.0, 0.37, 0.999])
def test_any_bit_of_any_file_makes_another_model(folder, name, place):
    before = language_model_folder.fingerprint(folder)
    assert list(language_model_folder.parts(before)) == ["config", "tokenizer", "weights"]
    _flip(folder / name, int(place * (folder / name).stat().st_size))
    now = language_model_folder.fingerprint(folder)
    said = "weights" if name == "model.safetensors" else name
    assert language_model_folder.differing(before, now) == [said]


def test_a_large_file_counts_to_its_last_byte_and_is_read_once(folder, monkeypatch):
    """Earlier versions looked at 1,025 places of what is above 64 MB."""
    weights = folder / "model.safetensors"
    os.truncate(weights, 2**26 + 2**20)
    before, old = (language_model_folder.fingerprint(folder, like) for like in ("", "1dfa"))
    with open(weights, "r+b") as file:
        file.seek(2**25 + 5_000)
        file.write(b"\1" * 20_000)
    assert language_model_folder.fingerprint(folder, "1dfa") == old
    now = language_model_folder.fingerprint(folder)
    assert language_model_folder.differing(before, now) == ["weights"]
    with monkeypatch.context() as patched:
        patched.setattr("hashlib.file_digest", None)
        assert language_model_folder.fingerprint(folder) == now


def test_the_end_of_a_text_is_of_the_tokenizer_and_other_settings_are_not(folder):
    beside = folder / "tokenizer_config.json"
    beside.write_text('{"eos_token": "a"}')
    before = language_model_folder.fingerprint(folder)
    beside.write_text('{"eos_token": "a", "chat_template": "none"}')
    assert language_model_folder.fingerprint(folder) == before
    beside.write_text('{"eos_token": "b"}')
    now = language_model_folder.fingerprint(folder)
    assert language_model_folder.differing(before, now) == ["tokenizer.json"]
    tokenizer = language_model_folder.parts(now)["tokenizer"]
    for path in (folder, folder / "tokenizer.json"):
        assert language_model_folder.tokenizer_fingerprint(path) == tokenizer


def test_a_fingerprint_of_an_earlier_version_is_compared_as_it_was_taken(folder):
    old = language_model_folder.fingerprint(folder, "0123456789abcdef")
    assert len(old) == 16 and not language_model_folder.parts(old)
    assert language_model_folder.fingerprint(folder, old) == old
    _flip(folder / "model.safetensors", 2_000)
    assert language_model_folder.fingerprint(folder, old) != old
    new = language_model_folder.fingerprint(folder)
    assert language_model_folder.fingerprint(folder, new) == new
    assert language_model_folder.differing(old, new) == []
