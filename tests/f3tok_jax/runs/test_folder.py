# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run folder holds besides checkpoints and metrics."""

import errno
import fcntl
import json
import pathlib

import jax.numpy as jnp
import ml_collections
import pytest

from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import saved_states
from tests.support import seals

_CONFIG = ml_collections.ConfigDict(dict(stage="any", seed=0, sizes=(1, 2))).lock()


def test_prepare_writes_config_and_environment_and_reopens_a_finished_run(tmp_path):
    workdir = str(tmp_path / "run")
    run_folder.prepare(_CONFIG, workdir, {"python": "3.11"})
    assert config_lib.load(workdir) == _CONFIG
    assert json.loads((tmp_path / "run" / "logs" / "environment.json").read_text()) == {
        "python": "3.11"
    }
    done = tmp_path / "run" / "DONE"
    assert not done.exists()
    run_folder.mark_done(workdir, 12)
    assert done.exists()
    run_folder.prepare(_CONFIG, workdir, {})
    assert not done.exists()
    assert not list((tmp_path / "run").rglob("*.partial"))


def test_every_session_keeps_its_own_environment_and_the_last_is_the_run_s(tmp_path):
    logs = tmp_path / "run" / "logs"
    git = dict(commit="c", dirty=True)
    for number, diff in enumerate(("+a", ""), 1):
        said = dict(session=number, git=git | dict(diff=diff))
        run_folder.prepare(_CONFIG, str(tmp_path / "run"), said)
    found = {path.name: path.read_text() for path in (logs / "sessions").iterdir()}
    assert found.keys() == {"0001.json", "0001.diff", "0002.json"} and found["0001.diff"] == "+a"
    first, second = (json.loads(found[f"000{number}.json"]) for number in (1, 2))
    assert (first, second) == (dict(session=1, git=git), dict(session=2, git=git))
    assert json.loads((logs / "environment.json").read_text()) == second


@pytest.mark.reliability("R09")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--workdir must be a folder that can be written"):
        run_folder.prepare(_CONFIG, str(tmp_path / "file" / "run"), {})


@pytest.mark.reliability("R13")
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


_ANY_DONE = ['{"step": 12}', '{"step": 92}', '{"stap": 12}', "", "[]", "[" * 50_000]


def _save_states(workdir: pathlib.Path, *steps: int, **files: str) -> None:
    writer = checkpoint.Checkpointer(
        str(workdir), config_json=config_lib.to_json(_CONFIG), data_fingerprint="data"
    )
    writer.files = files
    for step in steps:
        writer.save(step, {"x": jnp.ones(3)})
    writer.close()


@pytest.mark.reliability("R07")
@pytest.mark.parametrize("text", _ANY_DONE)
def test_a_run_is_finished_by_its_checkpoints_and_not_by_what_done_says(tmp_path, text):
    workdir, done = str(tmp_path), tmp_path / "DONE"
    done.write_text(text)
    assert run_folder.done_step(workdir, 12) is None  # No checkpoints.
    _save_states(tmp_path, 8, 12)
    assert run_folder.done_step(workdir, 12) == run_folder.done_step(workdir, 9) == 12
    assert run_folder.done_step(workdir, 16) is None
    state = tmp_path / "checkpoints" / "12" / "state"
    state.rename(tmp_path / "state")
    assert run_folder.done_step(workdir, 12) is None
    (tmp_path / "state").rename(state)
    (tmp_path / "checkpoints" / "12" / "meta" / "metadata").write_text("{")
    assert run_folder.done_step(workdir, 12) is None
    assert run_folder.done_step(workdir, 8) == 8
    run_folder.prepare(_CONFIG, workdir, {})
    assert not done.exists() and run_folder.done_step(workdir, 8) is None


@pytest.mark.reliability("R13")
def test_a_finished_run_that_goes_on_keeps_the_step_where_it_was_finished(tmp_path):
    _save_states(tmp_path, 4, 8)
    run_folder.mark_done(str(tmp_path), 8)
    run_folder.prepare(_CONFIG, str(tmp_path), {})
    _save_states(tmp_path, 12, 16, 20)
    assert saved_states.steps(str(tmp_path)) == [8, 16, 20]


def test_a_run_keeps_what_its_frozen_models_were(tmp_path):
    assert run_folder.frozen(str(tmp_path))["fingerprints"] == {}
    prints = {"autoencoder": "abc"}
    run_folder.settle_frozen(str(tmp_path), prints, dict)
    assert run_folder.frozen(str(tmp_path))["fingerprints"] == prints


_MEASURED = {"mean": [0.125, -3e-7], "matrix": [[1.0, 2.5], [0.0, 1e30]]}


@pytest.mark.reliability("R07")
def test_no_flipped_bit_changes_what_was_measured(tmp_path):
    workdir = str(tmp_path)
    run_folder.settle_frozen(workdir, {"autoencoder": "abc"}, lambda: _MEASURED)
    assert run_folder.frozen(workdir)["measured"] == _MEASURED
    read = lambda: run_folder.frozen(workdir)
    assert seals.count_refusals(tmp_path / run_folder.FROZEN, read) > 0.95


def test_what_an_earlier_version_measured_has_no_seal(tmp_path):
    content = {"fingerprints": {}, "measured": _MEASURED}
    (tmp_path / run_folder.FROZEN).write_text(json.dumps(content))
    assert run_folder.frozen(str(tmp_path)) == content
    assert run_folder.settle_frozen(str(tmp_path), {}, dict) == _MEASURED


def _begin(workdir: pathlib.Path) -> None:
    """A run with a checkpoint that knows its frozen.json."""
    run_folder.settle_frozen(str(workdir), {"autoencoder": "abc"}, lambda: _MEASURED)
    _save_states(workdir, 4, **run_folder.digests(str(workdir)))


@pytest.mark.reliability("R07")
def test_a_run_with_checkpoints_is_held_to_its_config_and_to_what_was_measured(tmp_path):
    workdir, path = str(tmp_path), tmp_path / run_folder.FROZEN
    run_folder.check_kept(_CONFIG, workdir)  # Nothing is there yet.
    _begin(tmp_path)
    run_folder.check_kept(_CONFIG, workdir)
    other = ml_collections.ConfigDict(_CONFIG.to_dict() | {"seed": 1})
    with pytest.raises(ValueError, match="another config: seed is 0 there and 1 here; copy that"):
        run_folder.check_kept(other, workdir)
    seals.change(path, measured=_MEASURED | {"mean": [0.0, 0.0]})
    with pytest.raises(ValueError, match="frozen.json must be what the run's checkpoints were"):
        run_folder.check_kept(_CONFIG, workdir)
    path.unlink()
    with pytest.raises(ValueError, match="must have frozen.json, which says .*, got none: copy it"):
        run_folder.check_kept(_CONFIG, workdir)


def test_frozen_json_of_a_run_of_an_earlier_version_may_not_go_either(tmp_path):
    _save_states(tmp_path, 4)
    with pytest.raises(ValueError, match="must have frozen.json, .*, got none"):
        run_folder.check_kept(_CONFIG, str(tmp_path))
