# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Bundles: what is in them, that they stand alone, and what is refused before one appears."""

import pathlib
import shutil

import pytest

from data_pipelines.records import atomic
from f3tok_jax import export
from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.runs import bundle
from f3tok_jax.runs import lineage
from f3tok_jax.runs import pins
from f3tok_jax.runs import places as places_lib
from tests.support import tiny_models
from tests.support import tiny_runs


@pytest.fixture
def hidden(chain):
    """While it lasts the chain is not where its runs say."""
    place = chain.rename(chain.with_name("hidden"))
    yield place
    place.rename(chain)


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> pathlib.Path:
    """The folder of an autoencoder with a newer, damaged step, and of runs on its older one."""
    root = tmp_path_factory.mktemp("chain")
    tiny_runs.write_chain(root)
    tiny_models.add_damaged_step(root / "generation")
    return root


def _files(folder: pathlib.Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_bundle_holds_what_is_needed_and_stands_alone(chain, tmp_path, capsys):
    source = shutil.copytree(chain, tmp_path / "chain")
    before = lineage.Lineage.read(str(chain / "generation"), 3)
    moved = f"--map={chain}={source}"
    arguments = [f"--workdir={source}/generation", "--bundle", f"--output={tmp_path}/b/all"]
    assert export.main([*arguments, moved]) == 0
    said = capsys.readouterr().out
    assert "checkpoint of step 5 is refused" in said
    last = "b/all: generation at step 3, representation at step 3, autoencoder at step 3"
    assert said.strip().endswith(last)
    shutil.rmtree(source)
    root = (tmp_path / "b").rename(tmp_path / "c") / "all"
    assert _files(root / "generation" / "checkpoints" / "3")
    assert [path.name for path in (root / "generation" / "checkpoints").iterdir()] == ["3"]
    assert {path.name for path in root.iterdir()} == {
        *("generation", "representation", "autoencoder", "language_model")
    }
    run = lineage.Lineage.read(str(root / "generation"), places=places_lib.Places({}, ()))
    run.check(language_model=True)
    assert run.fingerprint == before.fingerprint
    assert run.language_model_folder == str(root / "language_model")
    for name in ("representation", "autoencoder"):
        assert run.ancestor(name).workdir == str(root / name)
        assert pins.of(str(root / name)) == {3}
    tokenizer = tokenizer_lib.F3Tokenizer.from_pretrained(str(root / "generation"))
    assert tokenizer.codec.step == tokenizer.text_to_sound.step == 3
    # It is a run like any other.
    bundle.write(str(root / "representation"), tmp_path / "again")
    assert _files(tmp_path / "again" / "autoencoder") == _files(root / "autoencoder")


def test_nothing_is_replaced_and_nothing_half_is_left(chain, hidden, tmp_path, capsys):
    taken = tmp_path / "taken"
    taken.mkdir()
    arguments = ["--workdir=x", "--bundle", f"--output={taken}"]
    assert export.main(arguments) == 1
    assert "--output must be a local folder that is not there yet" in capsys.readouterr().err
    source = shutil.copytree(hidden, tmp_path / "chain")
    weights = source / "text" / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-4] ^= 1
    weights.write_bytes(content)
    places = places_lib.Places({str(chain): str(source)}, ())
    with pytest.raises(ValueError, match="was trained on language model .*, weights differing in"):
        bundle.write(str(source / "generation"), tmp_path / "out", places=places)
    # A flipped bit in a checkpoint that has to be the one.
    state = source / "autoencoder" / "checkpoints" / "3" / "state"
    data = max(
        (path for path in state.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 16
    data.write_bytes(content)
    weights.write_bytes((hidden / "text" / "model" / "model.safetensors").read_bytes())
    with pytest.raises(OSError, match="no checkpoint asked for in .*autoencoder.* is whole"):
        bundle.write(str(source / "generation"), tmp_path / "out", places=places)
    assert {path.name for path in tmp_path.iterdir()} == {"taken", "chain"}


@pytest.mark.parametrize("stage", ["autoencoder", "representation", "generation"])
def test_what_a_run_could_not_be_resumed_without_is_not_copied_damaged(hidden, tmp_path, stage):
    source = shutil.copytree(hidden, tmp_path / "chain")
    (source / stage / "frozen.json").write_text("{")
    with pytest.raises(ValueError, match=f"{stage}/frozen.json must be the JSON with finger"):
        bundle.write(str(source / "generation"), tmp_path / "out")


def test_one_that_is_told_to_leave_leaves_nothing_half(chain, tmp_path, monkeypatch):
    made = []

    def leave(*arguments):
        made.extend(path.name for path in tmp_path.iterdir())
        atomic.remove_partials()
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle, "_connect", leave)
    for _ in range(2):  # One name, so that what a kill leaves is gone after the next attempt.
        with pytest.raises(KeyboardInterrupt):
            bundle.write(str(chain / "autoencoder"), tmp_path / "out")
        assert made[-1] == ".out.partial" and not list(tmp_path.iterdir())


def test_a_disk_that_gives_other_bytes_back_is_noticed(chain, tmp_path, monkeypatch):
    def spoil(path):
        with open(path, "r+b") as file:
            file.write(b"\0")

    monkeypatch.setattr("data_pipelines.records.atomic.sync", spoil)
    with pytest.raises(ValueError, match="config.json must be a copy of .*, got other bytes back"):
        bundle.write(str(chain / "autoencoder"), tmp_path / "out")
    assert not list(tmp_path.iterdir())
