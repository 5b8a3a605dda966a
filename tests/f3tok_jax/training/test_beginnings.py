# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run has begun with: it goes on with that alone, wherever it lies now."""

import json
import pathlib
import re
import shutil

import pytest

from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import saved_states
from f3tok_jax.training import session
from tests.support import seals
from tests.support import toy_run

pytestmark = pytest.mark.usefixtures("cache")


def test_another_config_is_refused_by_key(shards, whole):
    with pytest.raises(ValueError, match="seed is 0 there and 1 here"):
        toy_run.train(shards, whole, "--config.seed=1")
    with pytest.raises(ValueError, match=r"model.latent_dim is 32 there and 48 here; seed"):
        toy_run.train(shards, whole, "--config.seed=1", "--config.model.latent_dim=48")


def test_more_steps_continue_a_finished_run(shards, whole, tmp_path):
    assert toy_run.train(shards, tmp_path, "--config.num_steps=8") == session.EXIT_DONE
    assert toy_run.train(shards, tmp_path) == session.EXIT_DONE
    assert saved_states.latest_step(str(tmp_path)) == 12
    assert json.loads((tmp_path / "DONE").read_text()) == {"step": 12}


@pytest.mark.reliability("R18")
def test_changed_data_is_refused_by_fingerprint(shards, tmp_path):
    other = toy_run.build_data(tmp_path / "data", num_files=20)
    run = tmp_path / "run"
    assert toy_run.train(shards, run, "--config.num_steps=4") == session.EXIT_DONE
    # The same path with other shards in it: the config alone cannot tell.
    linked = tmp_path / "linked"
    linked.symlink_to(shards)
    run2 = tmp_path / "run2"
    assert toy_run.train(linked, run2, "--config.num_steps=4") == session.EXIT_DONE
    linked.unlink()
    linked.symlink_to(other)
    with pytest.raises(ValueError, match="was begun with data.train of fingerprint"):
        toy_run.train(linked, run2)


def _moved(path: pathlib.Path, name: str) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(path, path.parent / name))


def test_equal_shards_in_another_place_are_the_same_run(shards, whole, tmp_path, capsys):
    here, heldout = _moved(shards, "before"), _moved(shards, "heldout_before")
    heldout_flag = "--config.data.heldout="
    assert toy_run.train(here, tmp_path, "--config.num_steps=8", f"{heldout_flag}{heldout}") == 0
    said = capsys.readouterr().out
    assert re.search(
        r"data.train: \S+/before, 0.00\d h, weight 1, fingerprint [0-9a-f]{12}\n", said
    )
    assert re.search(r"data.heldout: \S+/heldout_before, 0.00\d h, weight 1", said)
    there, heldout = here.rename(here.parent / "lr=0.1"), heldout.rename(here.parent / "after")
    assert toy_run.train(there, tmp_path, f"{heldout_flag}{heldout}") == session.EXIT_DONE
    assert toy_run.fingerprints(tmp_path) == toy_run.fingerprints(whole)
    assert config_lib.load(str(tmp_path)).data.train == str(there)


def test_other_data_in_another_place_is_refused_and_changes_nothing(shards, tmp_path):
    other = toy_run.build_data(tmp_path / "data", num_files=20)
    run = tmp_path / "run"
    assert toy_run.train(shards, run, "--config.num_steps=4") == session.EXIT_DONE
    with pytest.raises(ValueError, match="was begun with data.train of fingerprint"):
        toy_run.train(other, run, f"--config.data.heldout={shards}")
    with pytest.raises(ValueError, match="was begun with data.train of fingerprint"):
        # With no more steps to take it would otherwise say that it is done.
        toy_run.train(other, run, f"--config.data.heldout={shards}", "--config.num_steps=4")
    with pytest.raises(ValueError, match="was begun with data.heldout of fingerprint"):
        toy_run.train(shards, run, f"--config.data.heldout={other}")
    with pytest.raises(ValueError, match="data.heldout is .* there and '' here"):
        toy_run.train(shards, run, "--config.data.heldout=")
    for mixture in (f"{shards}=1,{other}=1", f"{shards}=1,{other}=2", f"{other}=1,{shards}=1"):
        with pytest.raises(ValueError, match="was begun with data.train of fingerprint"):
            toy_run.train(shards, run, f"--config.data.train={mixture}")
    assert config_lib.load(str(run)).data.train == str(shards)


def test_weights_and_order_of_a_mixture_are_part_of_the_run(shards, tmp_path):
    other = toy_run.build_data(tmp_path / "data", num_files=20)
    moved = _moved(other, "moved")
    run = tmp_path / "run"
    begin = f"--config.data.train={shards}=2,{other}=1"
    assert toy_run.train(shards, run, begin, "--config.num_steps=4") == session.EXIT_DONE
    for mixture in (f"{shards}=1,{other}=1", f"{other}=1,{shards}=2"):
        with pytest.raises(ValueError, match="was begun with data.train of fingerprint"):
            toy_run.train(shards, run, f"--config.data.train={mixture}")
    same = f"--config.data.train={shards}=2,{moved}=1"
    assert toy_run.train(shards, run, same, "--config.num_steps=8") == session.EXIT_DONE


def test_a_run_that_kept_no_fingerprints_is_held_to_those_of_its_checkpoints(
    shards, tmp_path, capsys
):
    run, other = tmp_path / "run", toy_run.build_data(tmp_path / "data", num_files=20)
    assert toy_run.train(shards, run, "--config.num_steps=4") == session.EXIT_DONE
    (run / "frozen.json").write_text('{"fingerprints": {}, "measured": {}}')
    seals.change(run / "checkpoints" / "4" / "meta" / "metadata", files={})
    with pytest.raises(ValueError, match="was trained on data with fingerprint"):
        toy_run.train(other, run, "--config.num_steps=8")
    moved = _moved(shards, "moved_from_an_old_run")
    assert toy_run.train(moved, run, "--config.num_steps=8") == session.EXIT_DONE
    assert "note: data.heldout lies elsewhere than when" in capsys.readouterr().out


def test_the_run_that_gave_the_weights_may_move(shards, whole, tmp_path):
    run, source = tmp_path / "run", _moved(whole, "weights")
    first = f"--config.init_from.workdir={source}"
    assert toy_run.train(shards, run, first, "--config.num_steps=4") == session.EXIT_DONE
    moved = source.rename(tmp_path / "moved")
    begin = f"--config.init_from.workdir={moved}"
    assert toy_run.train(shards, run, begin, "--config.num_steps=8") == session.EXIT_DONE
    with pytest.raises(ValueError, match="was begun with init_from.workdir of fingerprint"):
        toy_run.train(shards, run, begin, "--config.init_from.step=8", "--config.num_steps=12")
