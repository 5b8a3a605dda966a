# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Pinned steps stay, whatever else is kept."""

import os

import jax.numpy as jnp
import pytest

from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import pins
from f3tok_jax.runs import saved_states


@pytest.mark.reliability("R13")
def test_a_pinned_step_stays_while_the_run_goes_on(tmp_path):
    open_run = lambda: checkpoint.Checkpointer(
        str(tmp_path), config_json="{}", data_fingerprint="", keep_last=1, keep_best=0
    )
    run = open_run()
    for step in (1, 2):
        run.save(step, {"x": jnp.ones(3)})
    run.close()
    pins.add(str(tmp_path), 2, "runs/generation")  # while nothing of the run is at work, or is
    run = open_run()
    for step in (3, 4, 5):
        run.save(step, {"x": jnp.ones(3)})
    run.close()
    assert saved_states.steps(str(tmp_path)) == [2, 5]


def test_every_step_stays_where_nobody_can_tell_which_are_pinned(tmp_path):
    (tmp_path / "pins").write_text("")
    said = []
    run = checkpoint.Checkpointer(
        str(tmp_path), config_json="{}", data_fingerprint="", keep_last=1, say=said.append
    )
    for step in (1, 2, 3):
        run.save(step, {"x": jnp.ones(3)})
    run.close()
    assert saved_states.steps(str(tmp_path)) == [1, 2, 3]
    assert "every checkpoint stays, as it cannot be read which are pinned: NotADir" in said[0]
    with pytest.raises(OSError):
        pins.add(str(tmp_path), 3, "a")


def test_a_damaged_pin_pins_and_is_written_anew(tmp_path):
    (tmp_path / "pins").mkdir()
    (tmp_path / "pins" / "3").write_bytes(b"\xff")
    os.mkfifo(tmp_path / "pins" / "4")
    assert pins.of(str(tmp_path)) == {3, 4}
    for step in (3, 4):
        pins.add(str(tmp_path), step, "a")
        assert (tmp_path / "pins" / str(step)).read_text() == "a\n"


def test_a_pin_says_who_depends_on_it_once(tmp_path):
    assert pins.of(str(tmp_path)) == set()
    for step, by in ((3, "a"), (3, "b"), (3, "a"), (12, "a")):
        pins.add(str(tmp_path), step, by)
    (tmp_path / "pins" / "notes.txt").write_text("")
    assert pins.of(str(tmp_path)) == {3, 12}
    assert (tmp_path / "pins" / "3").read_text() == "a\nb\n"
    (tmp_path / "pins" / "12").unlink()
    assert pins.of(str(tmp_path)) == {3}
