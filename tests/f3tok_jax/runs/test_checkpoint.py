# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: what is kept, what is refused, and that what is restored is what was saved."""

import collections
import os
import pathlib
import re
import shutil
import stat
import time

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import pytest

from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import saved_states
from tests.support import disks
from tests.support import states


def _largest_file(folder: pathlib.Path) -> pathlib.Path:
    return max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )


def _flip_bit(path: pathlib.Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


@pytest.mark.reliability("R11")
@pytest.mark.parametrize("num_devices", [1, 2, 4, 8])
def test_restores_bit_equal_on_another_number_of_devices(tmp_path, num_devices):
    checkpointer = states.open_run(tmp_path)
    checkpointer.save(3, states.state(num_devices=8))
    checkpointer.close()
    restored = states.open_run(tmp_path).restore_latest(states.abstract(num_devices))
    states.assert_equal(restored, states.state())
    assert len(restored.params["generator"]["kernel"].sharding.device_set) == num_devices
    assert not restored.params["generator"]["kernel"].is_fully_replicated or num_devices == 1


@pytest.mark.reliability("R13")
def test_keeps_the_last_and_the_best_and_the_restored(tmp_path):
    checkpointer = states.open_run(tmp_path, keep_last=2, keep_best=1)
    for step, mel in enumerate([3.0, 1.0, 2.0, 5.0, 4.0], start=1):
        checkpointer.save(step, states.state(), {"eval/mel": mel})
    checkpointer.close()
    assert checkpointer.all_steps() == [2, 4, 5]
    again = states.open_run(tmp_path, keep_last=1, keep_best=1)
    again.restore_latest(states.abstract())
    for step, mel in [(6, 0.5), (7, 6.0)]:
        again.save(step, states.state(), {"eval/mel": mel})
    again.close()
    assert again.all_steps() == [5, 6, 7]  # restored, best, last


def test_what_was_measured_before_all_had_begun_to_learn_is_never_the_best(tmp_path):
    """Discriminators worsen the distance that is measured, and not what is heard."""
    checkpointer = states.open_run(tmp_path, keep_last=1, keep_best=1, best_from=2)
    values = {1: 0.1, 2: 0.2, 3: 0.9, 4: 0.5, 5: 0.7}
    for step, value in values.items():
        checkpointer.save(step, states.state(step), {"eval/mel": value})
    checkpointer.close()
    assert checkpointer.all_steps() == [4, 5]
    again = states.open_run(tmp_path, keep_last=1, keep_best=1, best_from=2)
    again.save(6, states.state(6), {"eval/mel": 0.8})
    again.close()
    assert again.all_steps() == [4, 6]


def test_a_save_without_evaluation_is_not_the_best(tmp_path):
    checkpointer = states.open_run(tmp_path, keep_last=1, keep_best=1)
    for step, metrics in [
        (1, {"eval/mel": 2.0}),
        (2, None),
        (3, {"eval/mel": float("nan")}),
        (4, None),
    ]:
        checkpointer.save(step, states.state(), metrics)
    checkpointer.close()
    assert checkpointer.all_steps() == [1, 4]


@pytest.mark.reliability("R06")
def test_one_flipped_bit_is_refused_by_leaf_and_the_step_before_is_restored(tmp_path):
    states.save(tmp_path)
    damaged = _largest_file(tmp_path / "checkpoints" / "2" / "state")
    _flip_bit(damaged)
    said = []
    checkpointer = states.open_run(tmp_path, said)
    restored = checkpointer.restore_latest(states.abstract())
    states.assert_equal(restored, states.state(1))
    # Which of the arrays in the file lies in its middle is chance.
    refusal = re.compile(r"step 2 is refused: .*/(kernel|bias)\b")
    assert any(refusal.search(line) for line in said), said
    assert any("restored step 1" in line for line in said), said
    # Nothing is deleted, and the number is free again.
    assert (tmp_path / "refused_checkpoints" / "2_0" / "state").is_dir()
    assert checkpointer.save(2, states.state(2))
    checkpointer.close()
    states.assert_equal(
        states.open_run(tmp_path).restore_latest(states.abstract()), states.state(2)
    )


@pytest.mark.reliability("R06")
def test_a_flipped_bit_in_every_array_file_is_noticed(tmp_path):
    states.save(tmp_path / "original", steps=(1,))
    files = [
        path
        for path in (tmp_path / "original" / "checkpoints" / "1" / "state").rglob("d/*")
        if path.stat().st_size > 1000
    ]
    assert files
    for number, path in enumerate(files):
        run = tmp_path / f"run{number}"
        shutil.copytree(tmp_path / "original", run)
        _flip_bit(run / path.relative_to(tmp_path / "original"))
        said = []
        with pytest.raises(checkpoint.CheckpointError, match="none of the checkpoints"):
            states.open_run(run, said).restore_latest(states.abstract())
        assert said and "step 1 is refused" in said[0]


@pytest.mark.reliability("R07")
@pytest.mark.parametrize(
    "damage", ["truncated", "no manifest", "no meta", "damaged meta", "no metadata", "empty"]
)
def test_damaged_steps_are_skipped_with_a_reason(tmp_path, damage):
    states.save(tmp_path)
    step = tmp_path / "checkpoints" / "2"
    if damage == "truncated":
        path = _largest_file(step / "state")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "no manifest":
        for path in step.rglob("manifest.ocdbt"):
            path.unlink()
    elif damage == "no meta":
        shutil.rmtree(step / "meta")
    elif damage == "damaged meta":
        (step / "meta" / "metadata").write_text('{"step": 2, "finger')
    elif damage == "no metadata":
        (step / "state" / "_METADATA").unlink()
    elif damage == "empty":
        shutil.rmtree(step)
        step.mkdir()
    said = []
    states.assert_equal(
        states.open_run(tmp_path, said).restore_latest(states.abstract()), states.state(1)
    )
    assert any("step 2 is refused" in line for line in said), said
    params, found = saved_states.restore_params(
        str(tmp_path), states.abstract().ema_params, say=said.append
    )
    assert found == 1
    states.assert_equal(params, states.state(1).ema_params)


def test_other_data_is_refused_by_fingerprint(tmp_path):
    states.save(tmp_path)
    with pytest.raises(ValueError, match="trained on data with fingerprint data, got other"):
        states.open_run(tmp_path, data_fingerprint="other").restore_latest(states.abstract())


def test_processes_agree_on_a_step_of_other_data_as_they_do_on_a_damaged_one(tmp_path, monkeypatch):
    states.save(tmp_path)
    answers, checkpointer = [], states.open_run(tmp_path, data_fingerprint="other")
    monkeypatch.setattr(
        checkpoint.multihost, "all_agree", lambda here: answers.append(here) or here
    )
    with pytest.raises(ValueError, match="trained on data"):
        checkpointer.restore_latest(states.abstract())
    assert answers == [False, False]


@pytest.mark.reliability("R12")
def test_another_tree_is_refused_by_path(tmp_path):
    states.save(tmp_path)
    abstract = states.abstract()
    params = {
        "generator": {
            "weights": abstract.params["generator"]["kernel"],
            "bias": jax.ShapeDtypeStruct((7,), jnp.float32),
        },
        "discriminator": {"kernel": jax.ShapeDtypeStruct((16, 24), jnp.bfloat16)},
    }
    with pytest.raises(ValueError) as error:
        states.open_run(tmp_path).restore_latest(abstract.replace(params=params))
    text = str(error.value)
    assert "missing: params/generator/weights" in text
    assert "extra: params/generator/kernel" in text
    assert "params/generator/bias is float32[6] there and float32[7] here" in text
    assert "params/discriminator/kernel is float32[16, 24] there and bfloat16[16, 24] here" in text
    assert (tmp_path / "checkpoints" / "2").is_dir()  # the user's mistake moves nothing


@pytest.mark.reliability("R10")
def test_non_finite_states_are_not_saved(tmp_path):
    said = []
    checkpointer = states.open_run(tmp_path, said)
    assert checkpointer.save(1, states.state())
    bad = states.state()
    bad.params["generator"]["bias"] = bad.params["generator"]["bias"].at[2].set(jnp.nan)
    assert not checkpointer.save(2, bad)
    checkpointer.close()
    assert checkpointer.all_steps() == [1]
    assert "params/generator/bias" in said[0]


@pytest.mark.reliability("R02")
def test_a_save_asks_nothing_about_leaving(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", asked.append)
    checkpointer = states.open_run(tmp_path)
    assert checkpointer.save(3, states.state()) and checkpointer.save(4, states.state())
    checkpointer.close()
    # JAX counts whoever asks: the loop, which alone may, would be told the number of a step.
    assert not asked


def test_a_step_that_is_there_is_not_written_twice(tmp_path):
    checkpointer = states.open_run(tmp_path)
    assert checkpointer.save(1, states.state(1))
    assert not checkpointer.save(1, states.state(2))
    checkpointer.close()
    states.assert_equal(
        states.open_run(tmp_path).restore_latest(states.abstract()), states.state(1)
    )


@pytest.mark.reliability("R08")
def test_a_full_disk_is_noticed_before_the_save(tmp_path, monkeypatch):
    checkpointer = states.open_run(tmp_path)
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(checkpoint.CheckpointError, match="step 4 needs .* MB free"):
        checkpointer.save(4, states.state())


@pytest.mark.reliability("R08")
def test_an_error_of_a_background_save_is_raised_by_the_next_poll(tmp_path, caplog, capfd):
    """A disk that fills up during the write: the limit on file sizes stands for it."""
    checkpointer = states.open_run(tmp_path)
    assert checkpointer.save(1, states.state())
    checkpointer.wait()
    with (
        disks.room(20_000),
        pytest.raises(checkpoint.CheckpointError, match="step 2 could not be written"),
    ):
        checkpointer.save(2, states.state())
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            checkpointer.poll()
            time.sleep(0.01)
    # Orbax's threads say the same in a traceback each.
    assert not [record for record in caplog.records if record.exc_info]
    assert "Traceback" not in capfd.readouterr().err
    states.assert_equal(states.open_run(tmp_path).restore_latest(states.abstract()), states.state())


@pytest.mark.reliability("R09")
@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused_at_the_start(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(ValueError, match="must be writable"):
            states.open_run(tmp_path / "run")
    finally:
        tmp_path.chmod(stat.S_IRWXU)


@pytest.mark.reliability("R09")
def test_a_folder_that_cannot_be_made_is_refused_at_the_start(tmp_path):
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises(ValueError, match="must be writable"):
        states.open_run(tmp_path / "run")


def test_what_a_run_has_seen_is_given_back_to_it(tmp_path):
    assert states.open_run(tmp_path).restored == {}
    checkpointer = states.open_run(tmp_path)
    checkpointer.files = {"frozen.json": "0123"}
    checkpointer.save(1, states.state(1), seen={"nonfinite": 2})
    checkpointer.close()
    checkpointer = states.open_run(tmp_path)
    checkpointer.restore_latest(states.abstract())
    assert checkpointer.restored["seen"] == {"nonfinite": 2}
    assert checkpointer.restored["files"] == {"frozen.json": "0123"}


def test_an_evaluation_after_its_save_counts_for_what_is_best(tmp_path):
    checkpointer = states.open_run(tmp_path, keep_last=1, keep_best=1)
    checkpointer.save(1, states.state(1))
    checkpointer.wait()
    checkpointer.add_metrics(1, {"eval/mel": 1.0, "eval/other": float("nan")})
    assert saved_states.read_meta(str(tmp_path))["metrics"] == {"eval/mel": 1.0}
    for step, mel in [(2, 2.0), (3, 3.0)]:
        checkpointer.save(step, states.state(), {"eval/mel": mel})
    checkpointer.close()
    assert checkpointer.all_steps() == [1, 3]
    states.assert_equal(states.open_run(tmp_path).restore_latest(states.abstract()), states.state())
    with pytest.raises(checkpoint.CheckpointError, match="step 2 could not be written"):
        checkpointer.add_metrics(2, {"eval/mel": 0.0})


@pytest.mark.reliability("R10")
def test_weights_that_are_not_finite_are_refused_by_name_whoever_saved_them(tmp_path, monkeypatch):
    of, state = checkpoint.fingerprint.of, states.state(2)
    bias = state.params["generator"]["bias"]
    state.params["generator"]["bias"] = bias.at[3].set(float("nan"))
    states.save(tmp_path, [1])
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.fingerprint, "of", lambda tree: (of(tree)[0], {}))
        checkpointer = states.open_run(tmp_path)
        assert checkpointer.save(2, state)
        checkpointer.close()
    said, message = [], "step 2 is refused: .*params/generator/bias hold non-finite values"
    restored = states.open_run(tmp_path, said).restore_latest(states.abstract())
    states.assert_equal(restored, states.state(1))
    assert any(re.search(message, line) for line in said)
