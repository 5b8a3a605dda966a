# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A training in a pod: signals reach it, and its exit code tells the cluster what to do."""

import signal
import subprocess
import sys

import pytest

from tests.support import launching


def _start(cloud) -> subprocess.Popen:
    home = cloud.home(0)
    return subprocess.Popen(
        ["bash", str(launching.ROOT / "launch" / "pod.sh"), *launching.RUN],
        env={**cloud.environment, "HOME": str(home), "VENV": str(home / "venv"), "DEVICE": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


# A cluster starts again after 42 and all from 127 on, and after what it is told.
@pytest.mark.parametrize(
    "code, of_the_pod",
    [
        *((code, code) for code in (0, 1, 4, 42, 43, 124, 134, 137, 143)),
        (127, 1),
        (139, 1),
        (255, 1),
    ],
)
def test_exit_codes_are_those_that_a_cluster_can_act_on(cloud, code, of_the_pod):
    (cloud.home(0) / "exit_codes").write_text(f"{code}\n")
    pod = _start(cloud)
    output, _ = pod.communicate(timeout=60)
    assert pod.returncode == of_the_pod, output
    assert (f"exit code {code}," in output) == (code != of_the_pod)


def test_a_training_that_is_told_to_leave_saves_before_its_pod_ends(cloud):
    (cloud.home(0) / "sleep").touch()
    pod = _start(cloud)
    launching.until((cloud.home(0) / "train_arguments").exists)
    pod.send_signal(signal.SIGTERM)
    output, _ = pod.communicate(timeout=60)
    assert "saved" in output
    assert pod.returncode == 42, output


def test_what_a_pod_prints_is_kept_in_the_work_folder(cloud, tmp_path):
    home, workdir = cloud.home(0), tmp_path / "a run"
    venv = launching.make_venv(tmp_path)
    (home / "exit_codes").write_text("3\n")
    run = ["--config=configs/autoencoder.py:base", f"--workdir={workdir}"]
    done = subprocess.run(
        ["bash", str(launching.ROOT / "launch" / "pod.sh"), *run],
        env={**cloud.environment, "HOME": str(home), "VENV": str(venv), "DEVICE": "cpu"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3, done.stderr
    assert "ends with 3" in done.stdout
    (log,) = (workdir / "logs" / "pods").iterdir()
    assert log.name.endswith(".log") and "ends with 3" in log.read_text()


def test_a_log_that_cannot_be_kept_stops_nothing(tmp_path):
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, launching.ROOT / "launch" / "keep_log.py", tmp_path / "file" / "x.log"],
        input="line\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and done.stdout == "line\n"
    assert done.stderr.count("the log is not kept in") == 1
