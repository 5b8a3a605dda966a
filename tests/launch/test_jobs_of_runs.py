# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Which job is which run's, who is asked to stop, and that all workers are counted."""

import hashlib
import os
import signal
import subprocess

import pytest

from tests.support import launching

_CONFIG = ["--config", "configs/autoencoder.py:base"]


def _job_name(workdir: str) -> str:
    program = (
        f'for name in common stage supervise; do source "{launching.ROOT}/launch/$name.sh"; done; '
        'WORKDIR="$1"; job_name'
    )
    command = ["bash", "-c", program, "test", workdir]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_job_has_a_short_name_of_its_own():
    folders = ["gs://a/b_c", "gs://a/b/c", "gs://bucket/" + "x" * 137, "gs://bucket/" + "x" * 138]
    names = [_job_name(folder) for folder in folders]
    assert len(set(names)) == len(folders)
    assert all(len(name) <= 49 for name in names)
    assert names[0] == "a_b_c-" + hashlib.sha256(b"gs://a/b_c").hexdigest()[:8]


def test_a_work_folder_is_one_with_and_without_a_slash(cloud):
    result = cloud.launch(*launching.SLICE, *_CONFIG, "--workdir=gs://bucket/run/")
    assert result.returncode == 0, result.stdout
    assert "finished: gs://bucket/run\n" in result.stdout
    again = cloud.launch("resume", "--workdir", "gs://bucket/run//")
    assert again.stdout.startswith("checking") and "finished: gs://bucket/run\n" in again.stdout


def test_a_run_that_is_given_something_new_is_not_finished(cloud):
    arguments = [*launching.SLICE, *launching.RUN]
    assert cloud.launch(*arguments, "--config.num_steps=1").returncode == 0
    workdir = ["resume", *launching.RUN[2:]]
    assert "restart" not in cloud.launch(*workdir, "--config.num_steps=1").stdout
    before = len(cloud.calls("ssh"))
    assert cloud.launch(*workdir, "--config.num_steps=1").returncode == 0
    assert len(cloud.calls("ssh")) == before
    assert cloud.launch(*workdir, "--config.num_steps=2").returncode == 0
    text = (cloud.home(0) / "train_arguments").read_text()
    assert "--config.num_steps=2" in text and "--config.num_steps=1" not in text


def _begin(cloud, *arguments):
    return subprocess.Popen(
        ["bash", str(launching.SCRIPT), *arguments],
        env={**cloud.environment, "HOME": "/", "DEVICE": "cpu", "REHEARSE": "no"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_a_job_that_runs_with_other_arguments_is_not_followed(cloud):
    for worker in (0, 1):
        (cloud.home(worker) / "sleep").touch()
    launcher = _begin(cloud, *launching.SLICE, *launching.RUN, "--config.num_steps=1")
    while "step 1" not in launcher.stdout.readline():
        assert launcher.poll() is None
    os.killpg(launcher.pid, signal.SIGKILL)
    launcher.communicate()
    other = cloud.launch("resume", *launching.RUN[2:], "--config.num_steps=2")
    assert other.returncode == 64, other.stdout
    assert "runs already with other arguments: stop it first" in other.stdout
    assert "restart 1" not in other.stdout
    assert cloud.launch("stop", *launching.RUN[2:]).returncode == 0


def test_a_run_is_stopped_before_it_has_begun(cloud):
    (cloud.folder / "states").write_text("PROVISIONING")
    launcher = _begin(cloud, *launching.SLICE, *launching.RUN)
    while "PROVISIONING" not in launcher.stdout.readline():
        assert launcher.poll() is None
    result = cloud.launch("stop", *launching.RUN[2:])
    assert result.returncode == 0 and "will start none" in result.stdout, result.stdout
    printed = launcher.communicate(timeout=60)[0]
    assert launcher.returncode == 43 and "stopped before it began" in printed, printed
    # Nobody is left who could, but the next launch is another wish.
    assert cloud.launch("stop", *launching.RUN[2:]).returncode == 1
    (cloud.folder / "state").write_text("ACTIVE")
    result = cloud.launch(*launching.SLICE, *launching.RUN)
    assert result.returncode == 0 and "finished" in result.stdout


@pytest.mark.parametrize("command", ["stop", "logs"])
def test_a_job_without_a_run_is_not_guessed(command, cloud):
    (cloud.folder / "state").write_text("ACTIVE")
    result = cloud.launch(command, *launching.SLICE)
    assert result.returncode == 1 and "--workdir is missing" in result.stdout
    assert "demo: ACTIVE" in cloud.launch("status", *launching.SLICE).stdout
    assert not cloud.calls("ssh")


def test_stopping_what_is_not_there_is_said(cloud):
    (cloud.folder / "state").write_text("ACTIVE")
    assert cloud.launch("setup", *launching.SLICE).returncode == 0
    result = cloud.launch("stop", *launching.SLICE, *launching.RUN)
    assert result.returncode == 1 and result.stdout.count("absent") == 2
    assert "there is nothing to stop" in result.stdout


def test_workers_are_counted(cloud):
    (cloud.folder / "state").write_text("ACTIVE")
    result = cloud.launch("setup", *launching.SLICE[:4], "--accelerator=v4-32")
    assert result.returncode == 1
    assert "of 4 workers of demo 2 have answered" in result.stdout


def test_a_file_that_is_sent_no_more_goes(cloud):
    (cloud.folder / "state").write_text("ACTIVE")
    for _ in range(2):
        assert cloud.launch("setup", *launching.SLICE).returncode == 0
        stale = cloud.home(0) / "f3tok_jax" / "configs" / "stale.py"
        assert not stale.exists()
        stale.touch()
    assert (cloud.home(0) / "f3tok_jax" / ".venv" / "installed").exists()
    assert not (cloud.home(0) / "f3tok_jax.old").exists()
