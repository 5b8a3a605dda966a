# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A run from its folder to its end: what it leaves, what ends it, and what it refuses."""

import dataclasses
import errno
import pathlib
import re
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import pytest

from f3tok_jax import train
from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import ledger
from f3tok_jax.runs import metric_writer
from f3tok_jax.runs import saved_states
from f3tok_jax.stages import registry
from f3tok_jax.training import session
from tests.support import metrics
from tests.support import run_checks
from tests.support import toy_run

_ROOT = pathlib.Path(__file__).parents[3]
pytestmark = [
    pytest.mark.usefixtures("cache"),
    # A donation that XLA cannot use is only a warning, and doubles the memory of the state.
    pytest.mark.filterwarnings("error:Some donated buffers were not usable"),
]


def _program(shards, workdir, cache, *more: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs the program with the toy stage in a process of its own, on two devices."""
    command = toy_run.command(shards, workdir, cache, *more, num_devices=2)
    command["env"] |= environment
    return subprocess.run(**command, capture_output=True, text=True, timeout=540, check=False)


def test_a_run_leaves_what_its_folder_promises(whole, shards, capsys):
    assert (whole / "DONE").exists() and (whole / "logs" / "environment.json").exists()
    assert config_lib.load(str(whole)) == toy_run.make_config(shards)
    assert len(list((whole / "samples" / "00000012").glob("*.wav"))) == 8
    lines = metrics.read(whole)
    assert [line["step"] for line in lines if "train/error" in line] == list(range(1, 13))
    assert [line["step"] for line in lines if "eval/error" in line] == [4, 8, 12]
    step = next(line for line in lines if "train/error" in line)
    assert {
        "time/seconds",
        "time/audio_seconds_per_second",
        "time/data_wait_seconds",
        "memory/host_gb",
        "data/replaced",
        "data/padding/sound",
        "train/grad_norm",
        "train/nonfinite",
    } <= step.keys()
    assert toy_run.losses(whole)[-1] < toy_run.losses(whole)[0]
    assert toy_run.train(shards, whole) == session.EXIT_DONE
    assert "is done" in capsys.readouterr().out


@pytest.mark.reliability("R04", "R05")
def test_killed_in_the_middle_and_resumed_is_bit_exact(shards, whole, tmp_path, cache):
    began = time.time()
    slow = {"TOY_STEP_SECONDS": "0.6"}
    killed = _program(shards, tmp_path, cache, "--price=2", TOY_KILL_AT="11", **slow)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    saved = saved_states.latest_step(str(tmp_path))
    assert saved in (4, 8)
    resumed = _program(shards, tmp_path, cache, "--price=2")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming this run from its checkpoint of step" in resumed.stdout
    assert toy_run.fingerprints(tmp_path) == toy_run.fingerprints(whole)
    assert toy_run.losses(tmp_path) == toy_run.losses(whole)
    _check_ledger(tmp_path, began, saved)


def _check_ledger(workdir, began: float, saved: int) -> None:
    """That of a run killed once, which went on from `saved`, adds up, from `began` to its end."""
    found = ledger.read(str(workdir))
    killed, resumed = found.sessions
    assert (killed.first, killed.ended, resumed.first, resumed.last) == (0, "", saved, 12)
    assert killed.last > saved and resumed.ended == "done"
    # The steps behind the checkpoint, of which all but the last second had been written.
    assert 0.6 * (killed.last - 1 - saved) < found.seconds["lost"] < killed.seconds["step"]
    wall = (workdir / ledger.NAME).stat().st_mtime - began
    assert found.wall_seconds == pytest.approx(wall, rel=0.02, abs=0.2)
    # Of which nearly all is what the two processes did.
    assert found.seconds["down"] < 2.0 + 0.25 * wall
    assert found.dollars == pytest.approx(2 * found.chip_hours)
    line = [line for line in metrics.read(workdir) if "train/error" in line][-1]
    assert line["time/eta_seconds"] == 0.0 and 0 < line["time/goodput"] < 1


@pytest.mark.reliability("R15")
def test_a_stall_ends_with_stacks_and_exit_124(shards, tmp_path, cache):
    stalled = _program(
        shards, tmp_path, cache, "--config.loop.watchdog_seconds=4", TOY_STALL_AT="2"
    )
    assert stalled.returncode == 124, stalled.stderr
    assert "in phase 'step'" in stalled.stderr and "take_steps" in stalled.stderr
    assert "take_steps" in (tmp_path / "logs" / "stacks_0000.txt").read_text()


@pytest.mark.reliability("R11")
def test_eight_devices_give_the_losses_of_one(shards, tmp_path):
    one, eight = tmp_path / "one", tmp_path / "eight"
    assert toy_run.train(shards, one, "--config.data.heldout=", num_devices=1) == session.EXIT_DONE
    assert (
        toy_run.train(
            shards, eight, "--config.num_steps=8", "--config.data.heldout=", num_devices=8
        )
        == session.EXIT_DONE
    )
    # Sums in another order: float32 rounding over a dozen steps of a small model.
    np.testing.assert_allclose(toy_run.losses(eight), toy_run.losses(one)[:8], rtol=1e-5)
    # What eight devices saved, one continues.
    assert (
        toy_run.train(shards, eight, "--config.data.heldout=", num_devices=1) == session.EXIT_DONE
    )
    np.testing.assert_allclose(toy_run.losses(eight), toy_run.losses(one), rtol=1e-5)


@pytest.mark.reliability("R06")
def test_a_flipped_bit_is_said_and_the_step_before_resumes_bit_exact(
    shards, whole, tmp_path, capsys
):
    assert toy_run.train(shards, tmp_path, "--config.num_steps=8") == session.EXIT_DONE
    largest = max(
        (path for path in (tmp_path / "checkpoints" / "8" / "state").rglob("d/*")),
        key=lambda path: path.stat().st_size,
    )
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    assert toy_run.train(shards, tmp_path) == session.EXIT_DONE
    said = capsys.readouterr().out
    # Orbax decides anew each time which leaf lies in the middle of the file.
    assert re.search(
        r"checkpoint of step 8 is refused: the fingerprint of \w+/(generator|discriminator)/", said
    )
    assert "resuming this run from its checkpoint of step 4" in said
    assert len(toy_run.losses(tmp_path)) == 12
    assert toy_run.fingerprints(tmp_path) == toy_run.fingerprints(whole)
    assert toy_run.losses(tmp_path) == toy_run.losses(whole)
    assert (tmp_path / "refused_checkpoints" / "8_0").is_dir()


@pytest.mark.reliability("R08")
def test_a_full_disk_ends_the_run_with_its_checkpoints_kept(shards, tmp_path, monkeypatch):
    disk_usage = checkpoint.shutil.disk_usage
    saves = []

    def full_at_the_second(path):
        saves.append(path)
        usage = disk_usage(path)
        return usage if len(saves) < 2 else usage._replace(free=10)

    monkeypatch.setattr(checkpoint.shutil, "disk_usage", full_at_the_second)
    with pytest.raises(checkpoint.CheckpointError, match="step 8 needs"):
        toy_run.train(shards, tmp_path)
    monkeypatch.undo()
    assert saved_states.latest_step(str(tmp_path)) == 4
    assert toy_run.train(shards, tmp_path) == session.EXIT_DONE


@pytest.mark.reliability("R08")
@pytest.mark.parametrize("at", [4, 12])
def test_a_folder_that_is_moved_away_is_not_taken_for_a_wrong_flag(
    shards, tmp_path, monkeypatch, at
):
    write = metric_writer.MetricWriter.write

    def moving(self, step, values):
        write(self, step, values)
        if step == at and "train/error" in values:
            (tmp_path / "run").rename(tmp_path / "moved")

    monkeypatch.setattr(metric_writer.MetricWriter, "write", moving)
    with pytest.raises(checkpoint.CheckpointError, match=r"of step \d+ could not be written"):
        toy_run.train(shards, tmp_path / "run")


@pytest.mark.reliability("R08")
def test_done_that_finds_no_disk_is_written_when_the_command_is_run_again(
    shards, whole, tmp_path, monkeypatch
):
    def full(workdir, step, may_write):
        raise OSError(errno.EIO, "Input/output error", f"{workdir}/DONE")

    run = shutil.copytree(whole, tmp_path / "run")
    (run / "DONE").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(run_folder, "mark_done", full)
        with pytest.raises(checkpoint.CheckpointError, match="all 12 steps .*DONE cannot be used"):
            toy_run.train(shards, run)
    assert toy_run.train(shards, run) == session.EXIT_DONE and (run / "DONE").exists()


@pytest.mark.parametrize(
    "error, code, words",
    [
        (OSError(errno.ENOSPC, "No space left on device", "/runs/x"), 4, "/runs/x cannot be used"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 4, "Disk quota exceeded"),
        (OSError(errno.EACCES, "Permission denied", "/runs/x"), 1, "Permission denied"),
        (checkpoint.CheckpointError("none is whole"), 4, "none is whole"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, "a pipe that was closed"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
    ],
)
def test_what_ends_a_run_has_its_exit_code_and_one_sentence(
    shards, tmp_path, monkeypatch, capsys, error, code, words
):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setitem(registry.STAGES, toy_run.STAGE.name, toy_run.STAGE)
    monkeypatch.setattr(session, "_open_inputs", fail)
    recipe = _ROOT / "configs" / "autoencoder.py"
    arguments = [f"--config={recipe}:tiny", f"--workdir={tmp_path / 'run'}"]
    assert train.main([*arguments, "--compilation_cache=", *toy_run.arguments(shards)]) == code
    said = capsys.readouterr().err
    assert said.startswith("f3tok_jax.train: ") and words in said and said.count("\n") == 1


@pytest.mark.reliability("R30")
@pytest.mark.parametrize(
    "override, message",
    [
        (
            "--config.data.batch_size=9",
            r"batch_size=9 .* must be a multiple of 2, the number of data shards on mesh",
        ),
        ("--config.data.train=", "config.data.train must name a folder of shards"),
        ("--config.mesh.fsdp=3", "must multiply out to 2 devices"),
        ("--config.stage=autoencode", None),
    ],
)
def test_what_does_not_fit_is_refused_before_compiling(shards, tmp_path, override, message):
    if message is None:
        config = toy_run.make_config(shards, override)
        with pytest.raises(ValueError, match="config.stage must be one of"):
            run_checks.train(config, str(tmp_path))
    else:
        with pytest.raises(ValueError, match=message):
            toy_run.train(shards, tmp_path, override)
    assert not (tmp_path / "checkpoints").exists()


def test_shards_of_another_rate_are_refused(tmp_path):
    shards = toy_run.build_data(tmp_path, sample_rate=24_000)
    with pytest.raises(ValueError, match="24000"):
        toy_run.train(shards, tmp_path / "run")


def test_a_stage_that_needs_another_batch_is_refused(shards, tmp_path):
    def make_stage(config, run):
        stage = toy_run.make_stage(config, run)
        spec = dict(stage.batch_spec)
        spec["text"] = jax.ShapeDtypeStruct((8, 10), np.int32)
        return dataclasses.replace(stage, batch_spec=spec)

    with pytest.raises(
        ValueError, match=r"what the stage needs, .*'text': \(\(8, 10\), 'int32'\).* got "
    ):
        toy_run.train(shards, tmp_path, stage=dataclasses.replace(toy_run.STAGE, make=make_stage))


@pytest.mark.reliability("R30")
@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["--config={recipe}:tiny", "--workdir={run}", "--config.model.laten_dim=3"],
            "did you mean --config.model.latent_dim?",
        ),
        (["--config={recipe}:tinny", "--workdir={run}"], "preset must be one of"),
        (["--config={recipe}:tiny"], "--workdir must be a folder"),
        (["--workdir={run}"], "arguments are required: --config"),
        (
            ["--config={recipe}:tiny", "--workdir={run}", "--coordinator=localhost:1"],
            "give all three, or none",
        ),
        (
            ["--config={recipe}:tiny", "--workdir={run}", "--compilation_cache=/dev/null/cache"],
            "compilation cache must be a folder",
        ),
    ],
)
def test_the_program_says_what_is_wrong_in_one_sentence(tmp_path, capsys, arguments, message):
    recipe = _ROOT / "configs" / "autoencoder.py"
    arguments = [argument.format(recipe=recipe, run=tmp_path / "run") for argument in arguments]
    assert train.main(arguments) == session.EXIT_REFUSED
    said = capsys.readouterr().err
    assert said.startswith("f3tok_jax.train: ") and message in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_print_config_shows_values_and_what_follows_from_them(capsys):
    recipe = _ROOT / "configs" / "autoencoder.py"
    assert train.main([f"--config={recipe}:tiny", "--print_config"]) == 0
    said = capsys.readouterr().out
    assert "model.latent_dim = 32" in said and "derived: latent_rate_hz = 25" in said
