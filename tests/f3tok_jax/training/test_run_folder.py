# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Runs whose folders were damaged, changed or added to since: they go on as they were, or say why not."""

import json
import pathlib
import shutil

import jax
import pytest

from f3tok_jax.runs import saved_states
from f3tok_jax.training import session
from tests.support import seals
from tests.support import toy_run

_FEW = "--config.num_steps=4"


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> pathlib.Path:
    return toy_run.build_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def begun(shards, tmp_path_factory) -> pathlib.Path:
    """A finished run of four steps."""
    workdir = tmp_path_factory.mktemp("begun")
    assert _train(shards, workdir, _FEW) == session.EXIT_DONE
    return workdir


@pytest.fixture
def run(begun, tmp_path) -> pathlib.Path:
    """A copy of it, to be spoiled."""
    return pathlib.Path(shutil.copytree(begun, tmp_path / "run"))


def _train(shards, workdir, *more: str) -> int:
    config = toy_run.make_config(shards, "--config.loop.sample_every=1000", *more)
    devices = jax.devices()[:1]
    return session.run(config, str(workdir), stage=toy_run.STAGE, devices=devices)


@pytest.mark.reliability("R07")
@pytest.mark.parametrize("text", ['{"step": 92}', '{"stap": 12}', "", None])
def test_done_of_another_step_does_not_end_a_run_too_early(run, shards, text):
    (run / "DONE").unlink() if text is None else (run / "DONE").write_text(text)
    assert _train(shards, run, "--config.num_steps=6") == session.EXIT_DONE
    assert saved_states.latest_step(str(run)) == 6
    assert json.loads((run / "DONE").read_text()) == {"step": 6}


@pytest.mark.reliability("R07")
def test_small_files_that_changed_are_refused_by_name_before_anything_is_written(run, shards):
    frozen, config = run / "frozen.json", run / "config.json"
    written, more = config.stat().st_mtime_ns, "--config.num_steps=6"
    seals.change(frozen, measured={"mean": [1.0]})
    with pytest.raises(ValueError, match="frozen.json must be what the run's checkpoints were mad"):
        _train(shards, run, more)
    frozen.unlink()
    with pytest.raises(ValueError, match="must have frozen.json, .*, got none: copy it from where"):
        _train(shards, run, more)
    assert config.stat().st_mtime_ns == written and not frozen.exists()


@pytest.mark.reliability("R07")
def test_a_state_of_another_run_is_not_gone_on_from_nor_taken_for_the_end(run, shards, tmp_path):
    other, steps = tmp_path / "other", run / "checkpoints"
    rate, more = "--config.optimizer.generator.learning_rate=0.5", "--config.num_steps=6"
    assert _train(shards, other, _FEW, rate) == session.EXIT_DONE
    assert _train(shards, run, more) == session.EXIT_DONE
    before = toy_run.fingerprints(run, 6)
    shutil.rmtree(steps / "4")
    shutil.copytree(other / "checkpoints" / "4", steps / "4")
    shutil.rmtree(steps / "6" / "state")
    (run / "DONE").unlink()
    with pytest.raises(ValueError, match="step 4 is of another run: .*learning_rate is 0.5 there"):
        _train(shards, run, more)
    shutil.rmtree(steps / "4")
    shutil.rmtree(steps / "6")
    assert _train(shards, run, more) == session.EXIT_DONE
    assert toy_run.fingerprints(run, 6) == before
    assert _train(shards, other, more, rate) == session.EXIT_DONE
    shutil.rmtree(steps / "6")
    shutil.copytree(other / "checkpoints" / "6", steps / "6")
    with pytest.raises(ValueError, match="another config: optimizer.generator.learning_rate is"):
        _train(shards, run, more)  # It says that it is done.


@pytest.mark.reliability("R07")
def test_another_config_than_that_of_the_checkpoints_is_refused(run, shards):
    config = run / "config.json"
    rate, more = "--config.optimizer.generator.learning_rate=0.5", "--config.num_steps=6"
    config.unlink()
    with pytest.raises(ValueError, match="another config: optimizer.generator.learning_rate is"):
        _train(shards, run, rate, more)
    assert not config.exists()
    assert _train(shards, run, more) == session.EXIT_DONE
    optimizer = json.loads(config.read_text())["optimizer"]
    optimizer["generator"]["learning_rate"] = 0.5
    seals.change(config, optimizer=optimizer)
    with pytest.raises(ValueError, match="another config: optimizer.generator.learning_rate is"):
        _train(shards, run, rate, "--config.num_steps=8")


@pytest.mark.reliability("R07")
def test_a_stranger_among_the_checkpoints_changes_nothing(run, shards, capsys):
    stranger = run / "checkpoints" / "99"
    stranger.mkdir()
    (stranger / "a.txt").write_text("mine")
    assert _train(shards, run, "--config.num_steps=6") == session.EXIT_DONE
    assert capsys.readouterr().out.count("passing over 99 in") == 1
    assert saved_states.latest_step(str(run)) == 6 and (stranger / "a.txt").read_text() == "mine"


@pytest.mark.reliability("R07")
def test_damaged_metadata_takes_a_run_back_to_the_step_before(run, shards, capsys):
    assert _train(shards, run, "--config.num_steps=6") == session.EXIT_DONE
    wanted = saved_states.read_meta(str(run))["fingerprints"]
    metadata = run / "checkpoints" / "6" / "meta" / "metadata"
    metadata.write_text(metadata.read_text().replace("data_fingerprint", "data_fingerprinT"))
    assert _train(shards, run, "--config.num_steps=6") == session.EXIT_DONE
    assert "resuming this run from its checkpoint of step 4" in capsys.readouterr().out
    assert saved_states.read_meta(str(run), 6)["fingerprints"] == wanted


def test_other_libraries_than_those_of_the_checkpoint_are_said_in_one_line(run, shards, capsys):
    metadata = run / "checkpoints" / "4" / "meta" / "metadata"
    versions = json.loads(metadata.read_text())["versions"]
    seals.change(metadata, versions=versions | {"jax": "0.1", "optax": "0.2", "old": "1"})
    assert _train(shards, run, "--config.num_steps=6") == session.EXIT_DONE
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "jax 0.1" in line]
    assert f"jax 0.1 -> {versions['jax']}, optax 0.2 -> {versions['optax']}" in said
    assert "old" not in said
