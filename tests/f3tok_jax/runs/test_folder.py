# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run folder holds besides checkpoints and metrics."""

import errno
import fcntl
import json

import ml_collections
import pytest

from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import folder as run_folder

_CONFIG = ml_collections.ConfigDict(dict(stage="any", seed=0, sizes=(1, 2))).lock()


def test_prepare_writes_config_and_environment_and_reopens_a_finished_run(tmp_path):
    workdir = str(tmp_path / "run")
    run_folder.prepare(_CONFIG, workdir, {"python": "3.11"})
    assert config_lib.load(workdir) == _CONFIG
    assert json.loads((tmp_path / "run" / "logs" / "environment.json").read_text()) == {
        "python": "3.11"
    }
    assert run_folder.done_step(workdir) is None
    run_folder.mark_done(workdir, 12)
    assert run_folder.done_step(workdir) == 12
    run_folder.prepare(_CONFIG, workdir, {})
    assert run_folder.done_step(workdir) is None
    assert not list((tmp_path / "run").rglob("*.partial"))


@pytest.mark.reliability("R09")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--workdir must be a folder that can be written"):
        run_folder.prepare(_CONFIG, str(tmp_path / "file" / "run"), {})


def test_a_second_run_in_the_folder_is_refused_while_the_first_lasts(tmp_path):
    with run_folder.locked(str(tmp_path)):
        with pytest.raises(ValueError, match="must not be in use"):
            with run_folder.locked(str(tmp_path)):
                pass
    with run_folder.locked(str(tmp_path)):
        pass


def test_a_file_system_without_locks_is_trained_on(tmp_path, monkeypatch, caplog):
    def none(handle, operation):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    with run_folder.locked(str(tmp_path)), run_folder.locked(str(tmp_path)):
        assert "lock cannot be locked (Operation not supported)" in caplog.text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"step": "12"}'])
def test_a_done_that_train_did_not_write_is_refused(tmp_path, text):
    (tmp_path / "DONE").write_text(text)
    with pytest.raises(ValueError, match="DONE must be the JSON with step that train wrote"):
        run_folder.done_step(str(tmp_path))


def test_a_run_keeps_what_its_frozen_models_were(tmp_path):
    assert run_folder.frozen(str(tmp_path))["fingerprints"] == {}
    prints = {"autoencoder": "abc"}
    run_folder.settle_frozen(str(tmp_path), prints, dict)
    assert run_folder.frozen(str(tmp_path))["fingerprints"] == prints
