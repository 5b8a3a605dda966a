# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Runs that lie elsewhere than others say: found by what was written down, mapped or searched."""

import pathlib
import shutil

import pytest

from data_pipelines.reading import remote
from f3tok_jax.pretrained import autoencoder as pretrained_autoencoder
from f3tok_jax.runs import lineage
from f3tok_jax.runs import places as places_lib
from tests.support import bucket
from tests.support import seals
from tests.support import tiny_models
from tests.support import tiny_runs


@pytest.fixture
def elsewhere(moved, tmp_path) -> pathlib.Path:
    """What the chain's folder was renamed to, while every config names the old one; nothing tells
    where its runs lay as seen from each other."""
    for stage in ("representation", "generation"):
        (tmp_path / "chain" / stage / "places.json").unlink()
    return (tmp_path / "chain").rename(tmp_path / "elsewhere")


def test_runs_that_moved_together_find_each_other(elsewhere, tmp_path):
    # By their names alone.
    assert lineage.Lineage.read(f"{elsewhere}/generation").sound.latent_dim == 8
    with pytest.raises(ValueError, match="trained on language model .*, got nothing in .*--map="):
        tiny_runs.read_whole(f"{elsewhere}/generation")
    (elsewhere / "text").rename(tmp_path / "chain")
    (tmp_path / "chain" / "model").rename(tmp_path / "model")
    run = lineage.Lineage.read(f"{elsewhere}/representation", places=_places(path=[tmp_path]))
    # By what was written down when they began, or began again.
    run.keep_places(f"{elsewhere}/representation")
    shutil.copytree(elsewhere, tmp_path / "a" / "b")
    shutil.copytree(tmp_path / "model", tmp_path / "a" / "model")
    shutil.rmtree(elsewhere)
    shutil.rmtree(tmp_path / "model")
    found = tiny_runs.read_whole(f"{tmp_path}/a/b/generation")
    assert found.language_model_folder == f"{tmp_path}/a/model"
    # What travels with a run comes first.
    (tmp_path / "a").rename(tmp_path / "c")
    shutil.copytree(tmp_path / "c" / "b", tmp_path / "chain", dirs_exist_ok=True)
    found = tiny_runs.read_whole(f"{tmp_path}/c/b/representation")
    assert found.parents["autoencoder"].workdir == f"{tmp_path}/c/b/autoencoder"


def _places(moved=None, path=()):
    return places_lib.Places(moved or {}, tuple(map(str, path)))


def test_runs_that_went_apart_are_found_by_mapping_or_search_path(elsewhere, tmp_path, monkeypatch):
    for name in ("autoencoder", "representation", "text"):
        (tmp_path / f"of_{name}").mkdir()
        (elsewhere / name).rename(tmp_path / f"of_{name}" / "v1")
    # Another, in which nothing fits.
    tiny_models.write_run(tmp_path / "of_autoencoder" / "v0", seed=2)
    old = {name: f"{tmp_path}/chain/{name}" for name in ("autoencoder", "representation", "text")}
    new = {name: f"{tmp_path}/of_{name}/v1" for name in old}
    moved = {old[name]: new[name] for name in old}
    generation = f"{elsewhere}/generation"
    run = tiny_runs.read_whole(generation, places=_places(moved))
    assert run.ancestor("autoencoder").workdir == new["autoencoder"]
    assert run.at(run.step).language_model_folder == f"{new['text']}/model"
    path = [tmp_path / f"of_{name}" for name in ("autoencoder", "representation")]
    path.append(tmp_path / "of_text" / "v1")
    monkeypatch.setenv("F3TOK_PATH", ":".join(map(str, path)))
    assert tiny_runs.read_whole(generation).ancestor("autoencoder").workdir == new["autoencoder"]
    monkeypatch.delenv("F3TOK_PATH")
    # Never by its name alone.
    wrong = moved | {old["autoencoder"]: f"{tmp_path}/of_autoencoder/v0"}
    with pytest.raises(ValueError) as refused:
        tiny_runs.read_whole(generation, places=_places(wrong, [tmp_path / "of_text"]))
    said = str(refused.value)
    assert f"at step 3 in {tmp_path}/of_autoencoder/v0; no run in {old['autoencoder']}; " in said
    assert f"no run in {tmp_path}/of_text/autoencoder" in said
    assert f"--map={old['autoencoder']}=PLACE" in said and "$F3TOK_PATH" in said


@pytest.fixture
def in_bucket(chain, tmp_path, monkeypatch) -> str:
    """The URL of a chain of runs that know each other by their URLs."""
    monkeypatch.setenv(remote.VARIABLE, str(tmp_path / "cache"))
    root, there = pathlib.Path(chain["autoencoder"]).parent, bucket.serve() / tmp_path.name
    shutil.copytree(root, there)
    url = f"{bucket.URL}/{tmp_path.name}"
    for stage in chain:
        seals.replace(there / stage / "config.json", str(root), url)
        (there / stage / "places.json").unlink(missing_ok=True)
    return url


def test_runs_in_a_bucket_read_their_parents_and_language_model_there(in_bucket, tmp_path):
    run = tiny_runs.read_whole(f"{in_bucket}/generation")
    parent = run.parents["representation"]
    assert parent.workdir == f"{in_bucket}/representation"
    assert parent.named["language_model"] == f"{in_bucket}/text/model"
    folder = pathlib.Path(run.language_model_folder)
    assert folder.is_relative_to(tmp_path / "cache") and (folder / "model.safetensors").is_file()
    # The weights are read where they are, and only those that are wanted.
    pretrained_autoencoder.load(run.ancestor("autoencoder"))
    copies = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert copies == {path.name for path in folder.iterdir()} | {"lock"}


def test_a_language_model_in_a_bucket_is_held_to_its_fingerprint(in_bucket):
    path = bucket.serve() / in_bucket.rsplit("/", 1)[-1] / "text" / "model" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        ValueError, match="was trained on language model .*, weights differing in gs:"
    ):
        tiny_runs.read_whole(f"{in_bucket}/representation")


def test_what_lies_elsewhere_in_a_bucket_is_found_by_mapping(in_bucket):
    root = bucket.serve() / in_bucket.rsplit("/", 1)[-1]
    (root / "text").rename(root / "words")
    with pytest.raises(ValueError, match="--map="):
        tiny_runs.read_whole(f"{in_bucket}/representation")
    places = places_lib.Places({f"{in_bucket}/text": f"{in_bucket}/words"}, ())
    run = tiny_runs.read_whole(f"{in_bucket}/representation", places=places)
    assert run.named["language_model"] == f"{in_bucket}/words/model"
