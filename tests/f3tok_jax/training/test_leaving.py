# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Real signals to real processes, wherever a run is; it ends as one that nobody interrupted."""

import signal
import subprocess

import pytest

from tests.support import metrics
from tests.support import toy_run

_SHORT = (
    *(("SIGTERM:open:1", 42), ("SIGTERM:statistics:2", 42), ("SIGHUP:compile:2", 42)),
    ("SIGKILL:save:1", -signal.SIGKILL),
)
_STARTING = ("flags", "open", "folder", "restore", "compile")
_RUNNING = ("step", "evaluation", "samples", "save")


def _program(shards, workdir, cache, *more: str, **environment) -> subprocess.CompletedProcess:
    command = toy_run.command(shards, workdir, cache, *more, num_devices=2)
    command["env"] |= environment
    return subprocess.run(**command, capture_output=True, text=True, timeout=300, check=False)


def _check_like(workdir, undisturbed, num_steps: int) -> None:
    assert toy_run.fingerprints(workdir, num_steps) == toy_run.fingerprints(undisturbed, num_steps)
    for name in ("train/error", "eval/error"):
        there, here = (
            [(line["step"], line[name]) for line in metrics.read(folder) if name in line]
            for folder in (undisturbed, workdir)
        )
        assert here == there
    assert (workdir / "DONE").read_text() == (undisturbed / "DONE").read_text()


@pytest.mark.reliability("R02", "R04")
def test_left_and_killed_where_it_starts_and_saves(shards, cache, whole, tmp_path):
    for fault, code in _SHORT:
        ended = _program(shards, tmp_path, cache, TOY_SIGNAL=fault)
        assert ended.returncode == code, (fault, ended.stderr)
        if code == 42:
            assert ended.stderr == (
                f"f3tok_jax.train: told to leave by {fault.split(':')[0]}; "
                "run the same command again\n"
            )
    ended = _program(shards, tmp_path, cache)
    assert ended.returncode == 0, ended.stderr
    _check_like(tmp_path, whole, 12)


@pytest.mark.slow
@pytest.mark.reliability("R02", "R04")
def test_every_phase_and_signal(shards, cache, tmp_path):
    steps = ("--config.num_steps=60", "--config.loop.sample_every=8")
    undisturbed, workdir = tmp_path / "undisturbed", tmp_path / "run"
    assert _program(shards, undisturbed, cache, *steps).returncode == 0
    kill = -signal.SIGKILL
    codes = {"SIGTERM": 42, "SIGHUP": 42, "SIGKILL": kill}
    # Some steps first, so that there is something to restore.
    faults = [("SIGTERM:step:5", 42)]
    faults += [(f"{name}:{phase}:1", codes[name]) for phase in _STARTING for name in codes]
    faults += [(f"{name}:{phase}:1", codes[name]) for phase in _RUNNING for name in codes]
    faults += [("SIGKILL:end:1", kill), ("SIGKILL:done:1", kill), ("SIGTERM:done:1", 0)]
    for fault, code in faults:
        ended = _program(shards, workdir, cache, *steps, TOY_SIGNAL=fault)
        assert ended.returncode == code, (fault, ended.stderr)
    _check_like(workdir, undisturbed, 60)


@pytest.mark.reliability("R02")
def test_ctrl_c_says_whether_there_is_something_to_go_on_from(shards, cache, tmp_path):
    ended = _program(shards, tmp_path, cache, TOY_SIGNAL="SIGINT:open:1")
    assert (ended.returncode, ended.stderr) == (130, "f3tok_jax.train: stopped by Ctrl-C\n")
    ended = _program(shards, tmp_path, cache, TOY_SIGNAL="SIGINT:step:2")
    assert ended.returncode == 42, ended.stderr
    ended = _program(shards, tmp_path, cache, TOY_SIGNAL="SIGINT:restore:1")
    assert (ended.returncode, ended.stderr) == (42, "f3tok_jax.train: stopped by Ctrl-C\n")
