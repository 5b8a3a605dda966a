# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Which run a command uses: the one named, or the one that knows most."""

import json
import shutil

import pytest

from f3tok_jax.inference import model_folder
from f3tok_jax.inference import shipped
from tests.support import tiny_models


@pytest.fixture(autouse=True)
def demo(tmp_path, monkeypatch):
    """Where the demo's runs would be."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("F3TOK_MODEL", raising=False)
    monkeypatch.setattr(shipped, "names", lambda: [])
    return tmp_path / "runs" / "demo"


def _write(folder, stage, *, step: int | None = 4):
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"stage": stage}))
    if step is not None:
        (folder / "checkpoints" / str(step)).mkdir()


def test_the_demos_run_that_knows_most_is_used_for_everything(demo):
    _write(demo / "autoencoder", "autoencoder")
    assert model_folder.find(None, "autoencoder") == "runs/demo/autoencoder"
    _write(demo / "representation", "representation")
    for stage in ("autoencoder", "representation"):
        assert model_folder.find(None, stage) == "runs/demo/representation"
    with pytest.raises(
        ValueError, match="a run of the generation stage, got none, and neither the"
    ):
        model_folder.find(None, "generation")
    _write(demo / "generation", "generation", step=None)  # begun, and nothing kept so far
    assert model_folder.find(None, "autoencoder") == "runs/demo/representation"
    (demo / "generation" / "checkpoints" / "12").mkdir()
    for stage in model_folder.STAGES:
        assert model_folder.find(None, stage) == "runs/demo/generation"


def test_what_is_named_goes_before_the_variable_and_that_before_the_demo(
    demo, tmp_path, monkeypatch
):
    for name in ("one", "two"):
        _write(tmp_path / name, "generation")
    _write(demo / "generation", "generation")
    monkeypatch.setenv("F3TOK_MODEL", "one")
    assert model_folder.find(None, "autoencoder") == "one"
    assert model_folder.find("two", "autoencoder") == "two"


def test_a_bundle_is_the_run_in_it_that_knows_most(demo, tmp_path, monkeypatch):
    for stage in ("autoencoder", "generation"):
        _write(tmp_path / "bundle" / stage, stage)
    assert model_folder.find("bundle/", "autoencoder") == "bundle/generation"
    assert model_folder.inside("bundle") == "bundle/generation"
    shutil.rmtree(tmp_path / "bundle" / "generation")
    assert model_folder.find("bundle", "autoencoder") == "bundle/autoencoder"
    with pytest.raises(ValueError, match="or a bundle, got bundle, which is a folder without conf"):
        model_folder.find("bundle", "representation")
    # A run is a run, whatever lies in its folder.
    _write(tmp_path / "run", "generation")
    _write(tmp_path / "run" / "generation", "generation")
    assert model_folder.find("run", "autoencoder") == model_folder.inside("run") == "run"
    for other in ("nowhere", "gs://bucket/bundle"):
        assert model_folder.inside(other) == other


@pytest.mark.parametrize("variable", [True, False])
@pytest.mark.parametrize(
    "folder, words",
    [
        (
            "nowhere",
            "must be the work folder of a run, or a bundle, got nowhere, which is no folder",
        ),
        ("runs", "got runs, which is a folder without config.json"),
        ("gs://bucket/run", "gs://bucket/run needs the package 'gcsfs', which is not installed"),
        ("s3://bucket/run", "needs the package 's3fs'"),
        ("ae", "ae must be a run of the representation or generation stage, got stage 'autoencode"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, monkeypatch, folder, words, variable):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "runs").mkdir()
    _write(tmp_path / "ae", "autoencoder")
    if variable:
        monkeypatch.setenv("F3TOK_MODEL", folder)
    with pytest.raises(ValueError, match=words):
        model_folder.find(None if variable else folder, "representation")


def test_a_bucket_is_left_to_who_can_read_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: "gcsfs" in name or None)
    assert model_folder.find("gs://bucket/run", "generation") == "gs://bucket/run"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "tensorflow" or None)
    assert model_folder.find("gs://bucket/run", "generation") == "gs://bucket/run"
    assert model_folder.find("memory://run", "generation") == "memory://run"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"stage": 3}', "\xff"])
def test_a_damaged_config_is_left_to_who_reads_it(tmp_path, text):
    _write(tmp_path / "run", "generation")
    (tmp_path / "run" / "config.json").write_bytes(text.encode("latin-1"))
    assert model_folder.find("run", "generation") == "run"


def test_what_a_run_is_is_read_of_the_step_that_is_asked_for(tmp_path):
    tiny_models.write_run(tmp_path / "run")
    tiny_models.add_damaged_step(tmp_path / "run")  # whose files say what they held
    folder = str(tmp_path / "run")
    assert model_folder.describe(model_folder.read(folder))["step"] == 5
    assert model_folder.describe(model_folder.read(folder, 3))["step"] == 3
    with pytest.raises(ValueError, match="must hold a checkpoint of step 4"):
        model_folder.read(folder, 4)
