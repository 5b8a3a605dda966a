# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The training loop: resume, preemption, non-finite steps, damage, and what it refuses."""

import dataclasses
import errno
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess

import jax
from jax.experimental.compilation_cache import compilation_cache
import numpy as np
import pytest

from data_pipelines.reading import pipeline
from f3tok_jax import train
from f3tok_jax.runs import checkpoint
from f3tok_jax.runs import config as config_lib
from f3tok_jax.stages import registry
from f3tok_jax.training import session
from tests.support import metrics
from tests.support import run_checks
from tests.support import seals
from tests.support import sounds
from tests.support import toy_run

_ROOT = pathlib.Path(__file__).parents[3]
# A donation that XLA cannot use is only a warning, and doubles the memory of the state.
pytestmark = pytest.mark.filterwarnings("error:Some donated buffers were not usable")


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> pathlib.Path:
    return toy_run.build_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Every run here compiles the same few programs: once is enough."""
    folder = str(tmp_path_factory.mktemp("cache"))
    names = {"jax_compilation_cache_dir": folder, "jax_persistent_cache_min_compile_time_secs": 0.0}
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in names.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield folder
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory) -> pathlib.Path:
    """An uninterrupted run of 12 steps on two devices."""
    workdir = tmp_path_factory.mktemp("whole")
    assert _train(shards, workdir) == session.EXIT_DONE
    return workdir


def _train(shards, workdir, *more: str, num_devices: int = 2, stage=toy_run.STAGE) -> int:
    return session.run(
        toy_run.make_config(shards, *more),
        str(workdir),
        stage=stage,
        devices=jax.devices()[:num_devices],
    )


def _program(shards, workdir, cache, *more: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs the program with the toy stage in a process of its own, on two devices."""
    command = toy_run.command(shards, workdir, cache, *more, num_devices=2)
    command["env"] |= environment
    return subprocess.run(**command, capture_output=True, text=True, timeout=540, check=False)


def _fingerprints(workdir, step: int = 12) -> dict[str, str]:
    """Fingerprint of every leaf of params, opt_state and ema_params: equal means bit-equal."""
    return checkpoint.read_meta(str(workdir), step)["fingerprints"]


def _losses(workdir) -> list[float]:
    return [line["train/error"] for line in metrics.read(workdir) if "train/error" in line]


def _call_at(monkeypatch, step: int, action, *, training: bool = True) -> None:
    """Calls action(batch) once, when the batch of `step` is made."""
    local_batch = pipeline.Pipeline.local_batch
    calls = []

    def faulty(self, asked):
        batch = local_batch(self, asked)
        if self.options.train == training and asked == step and not calls:
            calls.append(asked)
            action(batch)
        return batch

    monkeypatch.setattr(pipeline.Pipeline, "local_batch", faulty)


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
        "train/grad_norm",
        "train/nonfinite",
    } <= step.keys()
    assert _losses(whole)[-1] < _losses(whole)[0]
    assert _train(shards, whole) == session.EXIT_DONE
    assert "is done" in capsys.readouterr().out


def test_leaving_and_resuming_is_bit_exact(shards, whole, tmp_path, monkeypatch):
    _call_at(monkeypatch, 9, lambda batch: os.kill(os.getpid(), signal.SIGTERM))
    assert _train(shards, tmp_path) == session.EXIT_PREEMPTED
    left_at = checkpoint.latest_step(str(tmp_path))
    assert 0 < left_at < 12 and not (tmp_path / "DONE").exists()
    assert _train(shards, tmp_path) == session.EXIT_DONE
    assert _fingerprints(tmp_path) == _fingerprints(whole)
    assert _losses(tmp_path) == _losses(whole)


@pytest.mark.reliability("R02")
def test_sigterm_during_evaluation_saves_that_step(shards, whole, tmp_path, monkeypatch, capsys):
    _call_at(monkeypatch, 1, lambda batch: os.kill(os.getpid(), signal.SIGTERM), training=False)
    assert _train(shards, tmp_path) == session.EXIT_PREEMPTED
    assert "told to leave: saved step 4" in capsys.readouterr().out
    assert _train(shards, tmp_path) == session.EXIT_DONE
    assert _fingerprints(tmp_path) == _fingerprints(whole)


@pytest.mark.reliability("R04", "R05")
def test_killed_in_the_middle_and_resumed_is_bit_exact(shards, whole, tmp_path, cache):
    killed = _program(shards, tmp_path, cache, TOY_KILL_AT="10")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert checkpoint.latest_step(str(tmp_path)) in (4, 8)
    resumed = _program(shards, tmp_path, cache)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming this run from its checkpoint of step" in resumed.stdout
    assert _fingerprints(tmp_path) == _fingerprints(whole)
    assert _losses(tmp_path) == _losses(whole)


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
    assert _train(shards, one, "--config.data.heldout=", num_devices=1) == session.EXIT_DONE
    assert (
        _train(shards, eight, "--config.num_steps=8", "--config.data.heldout=", num_devices=8)
        == session.EXIT_DONE
    )
    # Sums in another order: float32 rounding over a dozen steps of a small model.
    np.testing.assert_allclose(_losses(eight), _losses(one)[:8], rtol=1e-5)
    # What eight devices saved, one continues.
    assert _train(shards, eight, "--config.data.heldout=", num_devices=1) == session.EXIT_DONE
    np.testing.assert_allclose(_losses(eight), _losses(one), rtol=1e-5)


@pytest.mark.reliability("R06")
def test_a_flipped_bit_is_said_and_the_step_before_resumes_bit_exact(
    shards, whole, tmp_path, capsys
):
    assert _train(shards, tmp_path, "--config.num_steps=8") == session.EXIT_DONE
    largest = max(
        (path for path in (tmp_path / "checkpoints" / "8" / "state").rglob("d/*")),
        key=lambda path: path.stat().st_size,
    )
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    assert _train(shards, tmp_path) == session.EXIT_DONE
    said = capsys.readouterr().out
    # Orbax decides anew each time which leaf lies in the middle of the file.
    assert re.search(
        r"checkpoint of step 8 is refused: the fingerprint of \w+/(generator|discriminator)/", said
    )
    assert "resuming this run from its checkpoint of step 4" in said
    assert len(_losses(tmp_path)) == 12
    assert _fingerprints(tmp_path) == _fingerprints(whole)
    assert _losses(tmp_path) == _losses(whole)
    assert (tmp_path / "refused_checkpoints" / "8_0").is_dir()


@pytest.mark.reliability("R20")
def test_a_nonfinite_batch_is_skipped_counted_and_named(shards, tmp_path, monkeypatch, capsys):
    def spoil(batch):
        batch["waveform"][0, 0] = np.nan
        batch["mask"][0, 0] = True

    _call_at(monkeypatch, 5, spoil)
    assert _train(shards, tmp_path) == session.EXIT_DONE
    entry = json.loads((tmp_path / "logs" / "nonfinite.jsonl").read_text())
    assert entry["step"] == 6
    config = toy_run.make_config(shards)
    data = sounds.open_pipeline(
        shards,
        sample_rate=toy_run.SAMPLE_RATE,
        crop_length=1280,
        batch_size=8,
        seed=config.seed,
        gain_db=config.data.gain_db,
    )
    assert entry["examples"] == data.example_keys(5)
    lines = {line["step"]: line for line in metrics.read(tmp_path) if "train/nonfinite" in line}
    assert [lines[step]["train/nonfinite"] for step in (5, 6, 7)] == [0, 1, 0]
    assert "train/error" not in lines[6] and np.isfinite(lines[12]["train/error"])
    assert "step 6 was not finite" in capsys.readouterr().out


@pytest.mark.reliability("R20")
def test_too_many_nonfinite_steps_stop_the_run(shards, tmp_path, monkeypatch, capsys):
    local_batch = pipeline.Pipeline.local_batch

    def spoiled(self, step):
        batch = local_batch(self, step)
        return (
            batch
            if step < 5
            else {"waveform": batch["waveform"] * np.nan, "mask": batch["mask"] | True}
        )

    monkeypatch.setattr(pipeline.Pipeline, "local_batch", spoiled)
    assert (
        _train(shards, tmp_path, "--config.loop.max_nonfinite=2", "--config.data.heldout=")
        == session.EXIT_NONFINITE
    )
    assert (
        "3 steps were not finite, more than config.loop.max_nonfinite=2" in capsys.readouterr().out
    )
    assert checkpoint.latest_step(str(tmp_path)) in (4, 8)


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
        _train(shards, tmp_path)
    monkeypatch.undo()
    assert checkpoint.latest_step(str(tmp_path)) == 4
    assert _train(shards, tmp_path) == session.EXIT_DONE


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
    monkeypatch.setattr(session, "_open_data", fail)
    recipe = _ROOT / "configs" / "autoencoder.py"
    arguments = [f"--config={recipe}:tiny", f"--workdir={tmp_path / 'run'}"]
    assert train.main([*arguments, "--compilation_cache=", *toy_run.arguments(shards)]) == code
    said = capsys.readouterr().err
    assert said.startswith("f3tok_jax.train: ") and words in said and said.count("\n") == 1


def test_another_config_is_refused_by_key(shards, whole):
    with pytest.raises(ValueError, match="seed is 0 there and 1 here"):
        _train(shards, whole, "--config.seed=1")
    with pytest.raises(ValueError, match=r"model.latent_dim is 32 there and 48 here; seed"):
        _train(shards, whole, "--config.seed=1", "--config.model.latent_dim=48")


def test_more_steps_continue_a_finished_run(shards, whole, tmp_path):
    assert _train(shards, tmp_path, "--config.num_steps=8") == session.EXIT_DONE
    assert _train(shards, tmp_path) == session.EXIT_DONE
    assert checkpoint.latest_step(str(tmp_path)) == 12
    assert json.loads((tmp_path / "DONE").read_text()) == {"step": 12}


@pytest.mark.reliability("R18")
def test_changed_data_is_refused_by_fingerprint(shards, tmp_path):
    other = toy_run.build_data(tmp_path / "data", num_files=20)
    run = tmp_path / "run"
    assert _train(shards, run, "--config.num_steps=4") == session.EXIT_DONE
    # The same path with other shards in it: the config alone cannot tell.
    linked = tmp_path / "linked"
    linked.symlink_to(shards)
    run2 = tmp_path / "run2"
    assert _train(linked, run2, "--config.num_steps=4") == session.EXIT_DONE
    linked.unlink()
    linked.symlink_to(other)
    with pytest.raises(ValueError, match="was begun with data.train of fingerprint"):
        _train(linked, run2)


def _moved(path: pathlib.Path, name: str) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(path, path.parent / name))


def test_equal_shards_in_another_place_are_the_same_run(shards, whole, tmp_path, capsys):
    here, heldout = _moved(shards, "before"), _moved(shards, "heldout_before")
    heldout_flag = "--config.data.heldout="
    assert _train(here, tmp_path, "--config.num_steps=8", f"{heldout_flag}{heldout}") == 0
    said = capsys.readouterr().out
    assert re.search(
        r"data.train: \S+/before, 0.00\d h, weight 1, fingerprint [0-9a-f]{12}\n", said
    )
    assert re.search(r"data.heldout: \S+/heldout_before, 0.00\d h, weight 1", said)
    there, heldout = here.rename(here.parent / "lr=0.1"), heldout.rename(here.parent / "after")
    assert _train(there, tmp_path, f"{heldout_flag}{heldout}") == session.EXIT_DONE
    assert _fingerprints(tmp_path) == _fingerprints(whole)
    assert config_lib.load(str(tmp_path)).data.train == str(there)


def test_other_data_in_another_place_is_refused_and_changes_nothing(shards, tmp_path):
    other = toy_run.build_data(tmp_path / "data", num_files=20)
    run = tmp_path / "run"
    assert _train(shards, run, "--config.num_steps=4") == session.EXIT_DONE
    with pytest.raises(ValueError, match="was begun with data.train of fingerprint"):
        _train(other, run, f"--config.data.heldout={shards}")
    with pytest.raises(ValueError, match="was begun with data.heldout of fingerprint"):
        _train(shards, run, f"--config.data.heldout={other}")
    with pytest.raises(ValueError, match="data.heldout is .* there and '' here"):
        _train(shards, run, "--config.data.heldout=")
    for mixture in (f"{shards}=1,{other}=1", f"{shards}=1,{other}=2", f"{other}=1,{shards}=1"):
        with pytest.raises(ValueError, match="was begun with data.train of fingerprint"):
            _train(shards, run, f"--config.data.train={mixture}")
    assert config_lib.load(str(run)).data.train == str(shards)


def test_weights_and_order_of_a_mixture_are_part_of_the_run(shards, tmp_path):
    other = toy_run.build_data(tmp_path / "data", num_files=20)
    moved = _moved(other, "moved")
    run = tmp_path / "run"
    begin = f"--config.data.train={shards}=2,{other}=1"
    assert _train(shards, run, begin, "--config.num_steps=4") == session.EXIT_DONE
    for mixture in (f"{shards}=1,{other}=1", f"{other}=1,{shards}=2"):
        with pytest.raises(ValueError, match="was begun with data.train of fingerprint"):
            _train(shards, run, f"--config.data.train={mixture}")
    same = f"--config.data.train={shards}=2,{moved}=1"
    assert _train(shards, run, same, "--config.num_steps=8") == session.EXIT_DONE


def test_a_run_that_kept_no_fingerprints_is_held_to_those_of_its_checkpoints(
    shards, tmp_path, capsys
):
    run, other = tmp_path / "run", toy_run.build_data(tmp_path / "data", num_files=20)
    assert _train(shards, run, "--config.num_steps=4") == session.EXIT_DONE
    (run / "frozen.json").write_text('{"fingerprints": {}, "measured": {}}')
    seals.change(run / "checkpoints" / "4" / "meta" / "metadata", files={})
    with pytest.raises(ValueError, match="was begun with data.train of fingerprint"):
        _train(other, run, "--config.num_steps=8")
    moved = _moved(shards, "moved_from_an_old_run")
    assert _train(moved, run, "--config.num_steps=8") == session.EXIT_DONE
    assert "note: data.heldout lies elsewhere than when" in capsys.readouterr().out


def test_the_run_that_gave_the_weights_may_move(shards, whole, tmp_path):
    run, source = tmp_path / "run", _moved(whole, "weights")
    first = f"--config.init_from.workdir={source}"
    assert _train(shards, run, first, "--config.num_steps=4") == session.EXIT_DONE
    moved = source.rename(tmp_path / "moved")
    begin = f"--config.init_from.workdir={moved}"
    assert _train(shards, run, begin, "--config.num_steps=8") == session.EXIT_DONE
    with pytest.raises(ValueError, match="was begun with init_from.workdir of fingerprint"):
        _train(shards, run, begin, "--config.init_from.step=8", "--config.num_steps=12")


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
            _train(shards, tmp_path, override)
    assert not (tmp_path / "checkpoints").exists()


def test_shards_of_another_rate_are_refused(tmp_path):
    shards = toy_run.build_data(tmp_path, sample_rate=24_000)
    with pytest.raises(ValueError, match="24000"):
        _train(shards, tmp_path / "run")


def test_a_stage_that_needs_another_batch_is_refused(shards, tmp_path):
    def make_stage(config, run):
        stage = toy_run.make_stage(config, run)
        spec = dict(stage.batch_spec)
        spec["text"] = jax.ShapeDtypeStruct((8, 10), np.int32)
        return dataclasses.replace(stage, batch_spec=spec)

    with pytest.raises(
        ValueError, match=r"what the stage needs, .*'text': \(\(8, 10\), 'int32'\).* got "
    ):
        _train(shards, tmp_path, stage=dataclasses.replace(toy_run.STAGE, make=make_stage))


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
