# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is kept beside a state: sealed, and where it is damaged the step before is taken."""

import json
import pathlib

import pytest

from f3tok_jax.runs import saved_states
from tests.support import seals
from tests.support import states


def _metadata(workdir, step: int) -> pathlib.Path:
    return workdir / "checkpoints" / str(step) / "meta" / "metadata"


@pytest.mark.reliability("R07")
def test_no_flipped_bit_changes_what_is_kept_beside_a_state(tmp_path):
    checkpointer = states.open_run(tmp_path, config_json='{"seed": 3, "sizes": [1, 2]}')
    checkpointer.files = {"frozen.json": "0123"}
    checkpointer.save(5, states.state(), {"eval/mel": 1.5}, seen={"nonfinite": 2})
    checkpointer.close()
    read = lambda: saved_states.read_meta(str(tmp_path))
    assert seals.count_refusals(_metadata(tmp_path, 5), read, stride=3) > 0.95


def _change(path: pathlib.Path, **changes) -> None:
    """Gives metadata of a step other values, by key, as an earlier version would have kept them."""
    meta = json.loads(path.read_text())
    for key in ("seal", "files", "seen"):
        meta.pop(key, None)
    path.write_text(json.dumps(meta | changes))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text(path.read_text().replace('"data"', '"date"')),
        lambda path: path.write_text(path.read_text().replace("float32[6]", "float32[7]")),
        lambda path: path.write_text(path.read_text().replace('"seal"', '"seam"')),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_bytes(b"\xff" + path.read_bytes()),
        lambda path: path.write_text("[]"),
        lambda path: _change(path, fingerprints={"params": 3}),
        lambda path: _change(path, fingerprints={}),
        lambda path: _change(path, metrics=[]),
        lambda path: _change(path, step=1),
    ],
)
@pytest.mark.reliability("R07")
def test_damaged_metadata_falls_back_to_the_step_before(tmp_path, damage):
    states.save(tmp_path)
    damage(_metadata(tmp_path, 2))
    said = []
    params, found = saved_states.restore_params(
        str(tmp_path), states.abstract().params, field="params"
    )
    assert found == 1
    states.assert_equal(params, states.state(1).params)
    checkpointer = states.open_run(tmp_path, said)
    states.assert_equal(checkpointer.restore_latest(states.abstract()), states.state(1))
    assert checkpointer.restored["step"] == 1
    assert sum("step 2 is refused" in line for line in said) == 1, said
    assert (tmp_path / "refused_checkpoints" / "2_0" / "state").is_dir()
    assert saved_states.read_meta(str(tmp_path))["step"] == 1


def test_another_run_s_checkpoint_above_this_one_s_is_set_aside(tmp_path):
    states.save(tmp_path)
    _change(_metadata(tmp_path, 2), data_fingerprint="date")
    said = []
    states.assert_equal(
        states.open_run(tmp_path, said).restore_latest(states.abstract()), states.state(1)
    )
    assert "step 2 is refused: the checkpoint of step 2 was trained on data with" in said[0]


def test_metadata_of_earlier_versions_has_no_seal_and_is_read(tmp_path):
    states.save(tmp_path)
    _change(_metadata(tmp_path, 2))
    meta = saved_states.read_meta(str(tmp_path))
    assert (meta["step"], meta["files"], meta["seen"]) == (2, {}, {})
    states.assert_equal(
        states.open_run(tmp_path).restore_latest(states.abstract()), states.state(2)
    )


@pytest.mark.parametrize("value", ["x", [1], None, True, float("nan")])
def test_metrics_without_a_seal_that_cannot_be_compared_are_refused_with_their_step(
    tmp_path, value
):
    states.save(tmp_path)
    _change(_metadata(tmp_path, 2), metrics={"eval/mel": value})
    said = []
    states.assert_equal(
        states.open_run(tmp_path, said).restore_latest(states.abstract()), states.state(1)
    )
    assert any("holds metrics that are no numbers" in line for line in said)
