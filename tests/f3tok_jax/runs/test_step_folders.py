# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Folders of steps: what is none among them is named, passed over and never deleted."""

import os
import pathlib

from etils import epath
import pytest

from f3tok_jax.runs import saved_states
from f3tok_jax.runs import step_folders
from tests.support import states


def _add_strangers(checkpoints: pathlib.Path) -> list[str]:
    """Puts what is no checkpoint among them; returns the names."""
    for name in ("notes", "99", "2 (copy)", "007", "9" * 30, "\u0663"):
        (checkpoints / name).mkdir()
        (checkpoints / name / "a.txt").write_text("mine")
    (checkpoints / "4").write_text("mine")
    (checkpoints / "5").symlink_to(checkpoints / "2")
    (checkpoints / "6").symlink_to("nowhere")
    return sorted(path.name for path in checkpoints.iterdir() if path.name not in ("1", "2"))


@pytest.mark.reliability("R07", "R13")
def test_what_is_no_checkpoint_is_named_once_and_passed_over(tmp_path):
    states.save(tmp_path)
    checkpoints, said = tmp_path / "checkpoints", []
    names = _add_strangers(checkpoints)
    assert saved_states.latest_step(str(tmp_path)) == 2
    assert saved_states.restore_params(str(tmp_path), states.abstract().ema_params)[1] == 2
    checkpointer = states.open_run(tmp_path, said, keep_last=1, keep_best=0)
    states.assert_equal(checkpointer.restore_latest(states.abstract()), states.state(2))
    assert len(said) == 1 and said[0].startswith("passing over " + ", ".join(names)), said
    # Newer steps are saved, and what is not ours neither counts nor goes.
    for step in (3, 7):
        assert checkpointer.save(step, states.state(step))
    checkpointer.close()
    assert saved_states.steps(str(tmp_path)) == checkpointer.all_steps() == [2, 7]
    assert sorted(path.name for path in checkpoints.iterdir()) == sorted([*names, "2", "7"])
    assert (checkpoints / "99" / "a.txt").read_text() == "mine"


def test_a_step_that_was_moved_and_left_a_link_is_used_and_stays(tmp_path):
    states.save(tmp_path / "run")
    place = tmp_path / "large_disk" / "2"
    (tmp_path / "large_disk").mkdir()
    link = tmp_path / "run" / "checkpoints" / "2"
    link.rename(place)
    link.symlink_to(place)
    checkpointer = states.open_run(tmp_path / "run", keep_last=1, keep_best=0)
    for step in (3, 4):
        assert checkpointer.save(step, states.state(step))
    checkpointer.close()
    assert saved_states.steps(str(tmp_path / "run")) == [2, 4]
    states.assert_equal(
        saved_states.restore_params(str(tmp_path / "run"), states.abstract().ema_params, step=2)[0],
        states.state(2).ema_params,
    )


@pytest.mark.reliability("R07")
@pytest.mark.parametrize("step", [4, 5, 6, 99])
def test_what_has_the_name_of_a_step_is_moved_when_that_is_saved(tmp_path, step):
    states.save(tmp_path)
    said = []
    _add_strangers(tmp_path / "checkpoints")
    checkpointer = states.open_run(tmp_path, said)
    assert checkpointer.save(step, states.state(step))
    checkpointer.close()
    moved = tmp_path / "refused_checkpoints" / f"{step}_0"
    assert f"it is now {moved}" in said[-1]
    states.assert_equal(
        states.open_run(tmp_path).restore_latest(states.abstract()), states.state(step)
    )
    if step == 99:
        assert (moved / "a.txt").read_text() == "mine"
    elif step == 4:
        assert moved.read_text() == "mine"
    else:
        assert moved.is_symlink() and (tmp_path / "checkpoints" / "2" / "meta").is_dir()


def test_what_a_killed_save_left_is_swept_and_said(tmp_path):
    states.save(tmp_path)
    (tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp" / "part").write_text("x")
    said = []
    checkpointer = states.open_run(tmp_path, said)
    assert not (tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp").exists()
    assert "3.orbax-checkpoint-tmp" in said[0]
    states.assert_equal(checkpointer.restore_latest(states.abstract()), states.state(2))


@pytest.mark.reliability("R08")
def test_a_failed_save_is_removed_though_a_writer_of_it_is_not_done(tmp_path, monkeypatch):
    """Orbax awaits none of the others once one has failed: they write into what is being emptied."""
    failed = tmp_path / "2.orbax-checkpoint-tmp"
    failed.mkdir()
    (failed / "written").write_text("in time")
    rmdir, late = os.rmdir, ["first", "second"]

    def rmdir_of_what_is_written_to(path, **kwargs):
        if late:
            (failed / late.pop()).write_text("late")
        rmdir(path, **kwargs)

    monkeypatch.setattr(os, "rmdir", rmdir_of_what_is_written_to)
    step_folders.prepare(epath.Path(tmp_path), [].append)
    assert not late and not failed.exists()
