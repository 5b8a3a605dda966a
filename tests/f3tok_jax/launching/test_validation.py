# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a launch must have, and what is said about what cannot be seen from here."""

import dataclasses
import pathlib

import pytest

from f3tok_jax.devices import slices
from f3tok_jax.launching import validation
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import places

_CONFIGS = pathlib.Path(__file__).parents[3] / "configs"
_SHARDS = "--config.data.train=/shared/shards"


def _launch(*overrides, recipe="autoencoder.py:base", accelerator="v5e-16", num_slices=1, **more):
    config = config_lib.read(f"{_CONFIGS}/{recipe}", overrides)
    target = slices.parse(accelerator, num_slices)
    more = {"workdir": "gs://bucket/run", "places": places.Places({}, ()), **more}
    return validation.Launch(config=config, target=target, **more)


def _shard_set(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    return folder


@pytest.mark.reliability("R30")
@pytest.mark.parametrize(
    "launch, message",
    [
        (dict(overrides=[]), "--config.data.train must name the shards"),
        (
            dict(overrides=[_SHARDS], workdir="runs/x"),
            "--workdir must be a place that every worker",
        ),
        (dict(overrides=[_SHARDS], workdir=""), "--workdir must be a place that every worker"),
        (dict(overrides=[_SHARDS], accelerator="v5e-256"), "batch_size=128 .* multiple of 256"),
        (dict(overrides=[_SHARDS], num_slices=16), "must be a multiple of 256, the number of"),
        (dict(overrides=[_SHARDS, "--config.mesh.tensor=3"]), "must multiply out to 16 devices"),
        (
            dict(overrides=[_SHARDS, "--config.mesh.replica=3"], accelerator="v5e-8", num_slices=2),
            "must multiply out to 16 devices",
        ),
        (
            dict(overrides=["--config.data.train=here"]),
            "got the local folder 'here': .*--stage=here",
        ),
        (
            dict(overrides=["--config.data.train=/a=0.5,b=0.5"]),
            "config.data.train must be a place .* got the local folder 'b'",
        ),
        (
            dict(overrides=[_SHARDS, "--config.init_from.workdir=runs/a"]),
            "config.init_from.workdir must be a place .* got the local folder 'runs/a'",
        ),
    ],
)
def test_what_would_end_on_the_workers_is_refused(launch, message):
    with pytest.raises(ValueError, match=message):
        validation.check(_launch(*launch.pop("overrides"), **launch))


def test_slices_are_the_replicas_without_a_word_of_them():
    launch = _launch(num_slices=2)
    assert validation.check_mesh(launch.config, launch.target) == {
        "replica": 2,
        "fsdp": 16,
        "tensor": 1,
    }


def test_a_folder_of_this_machine_is_a_matter_of_the_workers(tmp_path):
    (absent,) = validation.check(_launch(_SHARDS))
    assert absent == "config.data.train=/shared/shards is not here: it must lie on every worker"
    there = _shard_set(tmp_path / "set")
    (note,) = validation.check(_launch(f"--config.data.train={there}"))
    assert note == f"config.data.train={there} must lie on every worker, as it does here"
    (tmp_path / "other").mkdir()
    with pytest.raises(
        ValueError, match="must be a finished shard set, got .*/other, which is none"
    ):
        validation.check(_launch(f"--config.data.train={tmp_path}/other"))


def test_what_is_staged_goes_along(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _shard_set(tmp_path / "set")
    assert not validation.check(_launch("--config.data.train=set", staged=["set"]))
    assert not validation.check(_launch("--config.data.train=set", staged=[str(tmp_path)]))
    with pytest.raises(ValueError, match="must be a finished shard set, got none, which is none"):
        validation.check(_launch("--config.data.train=none", staged=["none"]))


def test_a_mapped_place_is_looked_at_where_it_lies_now(tmp_path):
    there = _shard_set(tmp_path / "set")
    mapped = places.Places({"/shared/shards": str(there)}, ())
    (note,) = validation.check(_launch(_SHARDS, places=mapped))
    assert str(there) in note


def test_buckets_are_asked_unless_nothing_may_be(tmp_path, monkeypatch):
    data = "--config.data.train=gs://bucket/shards"
    (note,) = validation.check(_launch(data, is_offline=True))
    assert note == "config.data.train=gs://bucket/shards is not looked into by a dry run"
    program = tmp_path / "gcloud"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def gcloud_says(words: str, code: int) -> None:
        program.write_text(f"#!/bin/sh\necho '{words}' >&2\nexit {code}\n")
        program.chmod(0o755)

    # gcsfs is in the lock of TPU hosts alone: without it gcloud is asked.
    monkeypatch.setattr(validation.remote, "opened", _absent)
    gcloud_says("", 0)
    assert not validation.check(_launch(data))
    gcloud_says("ERROR: One or more URLs matched no objects.", 1)
    with pytest.raises(ValueError, match="config.data.train must be a finished shard set, got gs:"):
        validation.check(_launch(data))
    gcloud_says("ERROR: (gcloud.storage.ls) HTTPError 404: The specified bucket does not exist.", 1)
    with pytest.raises(ValueError, match="config.data.train must be a finished shard set, got gs:"):
        validation.check(_launch(data))
    odd = "gs://bucket/404 not found: 404"  # A path may be of any words.
    gcloud_says(f"ERROR: {odd}/manifest.json: invalid_grant", 1)
    with pytest.raises(ValueError, match="invalid_grant' of gcloud: run gcloud auth"):
        validation.check(_launch(f"--config.data.train={odd}"))
    gcloud_says("ERROR: You do not currently have an active account selected.", 1)
    with pytest.raises(ValueError, match="active account selected.' of gcloud: run gcloud auth"):
        validation.check(_launch(data))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    (note,) = validation.check(_launch(data))
    assert "is not looked into from here: no package" in note


def _absent(path):
    raise ImportError("no package")


def test_models_must_be_there_too(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    overrides = [_SHARDS, f"--config.language_model.folder={model}"]
    launch = _launch(*overrides, recipe="representation.py:tiny", accelerator="v5e-1")
    with pytest.raises(ValueError, match="language_model.folder must be a run or a model's folder"):
        validation.check(launch)
    (model / "config.json").write_text("{}")
    notes = validation.check(launch)
    assert any("language_model.folder" in note for note in notes)
    assert validation.is_reachable(launch)
    gone = _launch(
        _SHARDS,
        "--config.language_model.folder=/elsewhere",
        recipe="representation.py:tiny",
        accelerator="v5e-1",
    )
    assert not validation.is_reachable(gone)


def test_a_bucket_that_nothing_here_reads_is_not_reachable(monkeypatch):
    launch = _launch(
        _SHARDS,
        "--config.language_model.folder=gs://bucket/model",
        recipe="representation.py:tiny",
        accelerator="v5e-1",
    )
    monkeypatch.setattr(validation.remote, "opened", lambda path: ("files", "bucket/model"))
    assert validation.is_reachable(launch)
    assert not validation.is_reachable(dataclasses.replace(launch, is_offline=True))
    monkeypatch.setattr(validation.remote, "opened", _absent)
    assert not validation.is_reachable(launch)


def test_a_tokenizer_must_be_where_the_workers_are(tmp_path):
    tokenizer = tmp_path / "tokenizer.json"
    options = dict(recipe="language_model.py:tiny", accelerator="v5e-1")
    with pytest.raises(ValueError, match="config.tokenizer must be a place .* 'tokenizer.json'"):
        validation.check(_launch(_SHARDS, "--config.tokenizer=tokenizer.json", **options))
    launch = _launch(_SHARDS, f"--config.tokenizer={tokenizer}", **options)
    assert f"config.tokenizer={tokenizer} is not here" in validation.check(launch)[-1]
    tokenizer.touch()
    assert f"config.tokenizer={tokenizer} must lie on every" in validation.check(launch)[-1]
