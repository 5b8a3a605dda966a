# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Runs that lie elsewhere than others say: found by what was written down, mapped or searched."""

import pathlib
import shutil

import pytest

from f3tok_jax.runs import lineage
from f3tok_jax.runs import places as places_lib
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
