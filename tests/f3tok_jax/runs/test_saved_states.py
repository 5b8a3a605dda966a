# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run has saved, as others read it: parts of states, what is kept beside them, what is refused."""

import json

import pytest

from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import saved_states
from tests.support import states


def test_restore_params_reads_one_field_of_any_step(tmp_path):
    states.save(tmp_path)
    params, step = saved_states.restore_params(str(tmp_path), states.abstract().ema_params, step=1)
    assert step == 1
    states.assert_equal(params, states.state(1).ema_params)
    sharded, step = saved_states.restore_params(
        str(tmp_path), states.abstract(4).params, field="params"
    )
    assert step == 2
    states.assert_equal(sharded, states.state(2).params)
    assert len(sharded["generator"]["kernel"].sharding.device_set) == 4
    with pytest.raises(ValueError, match=r"checkpoint of step 9, got steps \[1, 2\]"):
        saved_states.restore_params(str(tmp_path), states.abstract().ema_params, step=9)
    with pytest.raises(ValueError, match="got steps"):
        saved_states.restore_params(str(tmp_path / "nothing"), states.abstract().ema_params)


def test_restore_params_refuses_a_flipped_bit(tmp_path):
    states.save(tmp_path)
    for path in (tmp_path / "checkpoints" / "2" / "state").rglob("d/*"):
        # Which leaf lies where is Orbax's choice: a bit in every 500 bytes reaches all large ones.
        data = bytearray(path.read_bytes())
        for position in range(250, len(data), 500):
            data[position] ^= 0x10
        path.write_bytes(data)
    said = []
    params, step = saved_states.restore_params(
        str(tmp_path), states.abstract().ema_params, say=said.append
    )
    assert step == 1 and "step 2 is refused" in said[0]
    states.assert_equal(params, states.state(1).ema_params)
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint asked for"):
        saved_states.restore_params(
            str(tmp_path), states.abstract().ema_params, step=2, say=said.append
        )


def test_meta_says_what_the_state_is(tmp_path):
    checkpointer = states.open_run(tmp_path, config_json='{"seed": 3}')
    checkpointer.save(5, states.state(), {"eval/mel": 1.5})
    checkpointer.close()
    meta = saved_states.read_meta(str(tmp_path), 5)
    assert (
        meta["config"] == {"seed": 3} and meta["data_fingerprint"] == "data" and meta["step"] == 5
    )
    assert meta["metrics"] == {"eval/mel": 1.5} and "jax" in meta["versions"]
    assert json.dumps(meta["fingerprints"]["params/generator/bias"]).startswith('"float32[6]:')
    assert saved_states.latest_step(str(tmp_path)) == 5


def test_the_newest_step_that_is_whole_is_verified(tmp_path):
    states.save(tmp_path)
    said = []
    assert saved_states.verify(str(tmp_path), say=said.append) == 2 and not said
    for path in (tmp_path / "checkpoints" / "2" / "state").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:-9])
    assert saved_states.verify(str(tmp_path), say=said.append) == 1
    assert len(said) == 1 and said[0].startswith("checkpoint of step 2 is refused: ")
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint asked for"):
        saved_states.verify(str(tmp_path), 2, say=said.append)
