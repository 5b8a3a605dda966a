# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Rehearsals of whole courses against a gcloud made of folders."""

import os
import re
import shutil
import subprocess
import time

import pytest

from tests.support import launching


@pytest.mark.reliability("R29")
def test_whole_course_hands_over_arguments_exactly(cloud):
    awkward = ['--config.note=it\'s "two words" $HOME `x` \\', "--config.list=(1, 2)"]
    result = cloud.launch(*launching.SLICE, *launching.RUN, *awkward)
    assert result.returncode == 0, result.stdout
    assert "2 workers, all with the same packages and code" in result.stdout
    assert "finished: gs://bucket/a run" in result.stdout
    assert "delete --tpu demo --zone zone-a" in result.stdout
    for worker in (0, 1):
        words = (cloud.home(worker) / "train_arguments").read_text().split("\0")[:-1]
        assert words == [
            "-m",
            "f3tok_jax.train",
            "--config=configs/autoencoder.py:base",
            "--workdir=gs://bucket/a run",
            "--accelerator=v4-16",
            "--num_slices=1",
            *awkward,
            "--compilation_cache=gs://bucket/a run/compiled",
        ]
        log = (
            cloud.home(worker)
            / "f3tok_jobs"
            / "bucket_a_run-c05262a5"
            / f"slice_0000_worker_000{worker}.log"
        )
        assert "ends with 0" in log.read_text()


def test_steps_are_idempotent(cloud):
    for _ in range(2):
        result = cloud.launch("create", *launching.SLICE)
        assert result.returncode == 0, result.stdout
    assert "demo exists already: ACTIVE" in result.stdout
    assert len(cloud.calls("create")) == 1
    for _ in range(2):
        assert cloud.launch("delete", *launching.SLICE).returncode == 0
    assert len(cloud.calls("delete")) == 1


@pytest.mark.reliability("R29")
def test_quota_error_is_passed_on(cloud):
    (cloud.folder / "quota").touch()
    result = cloud.launch(*launching.SLICE, *launching.RUN)
    assert result.returncode == 1
    assert "Quota limit 'TPUS' has been exceeded" in result.stdout
    assert "could not create demo" in result.stdout
    assert not cloud.calls("ssh")


def test_suspended_slice_is_asked_for_again(cloud):
    (cloud.folder / "state").write_text("SUSPENDED")
    result = cloud.launch("create", *launching.SLICE, "--spot")
    assert result.returncode == 0, result.stdout
    assert len(cloud.calls("delete")) == 1
    assert "--spot" in cloud.calls("create")[0]


@pytest.mark.reliability("R29")
def test_failed_slice_ends_the_waiting(cloud):
    (cloud.folder / "state").write_text("FAILED")
    result = cloud.launch("wait", *launching.SLICE)
    assert result.returncode == 1
    assert "demo is FAILED and will not become active" in result.stdout


@pytest.mark.reliability("R29")
def test_copying_is_tried_again(cloud):
    (cloud.folder / "state").write_text("ACTIVE")
    (cloud.folder / "scp_failures").write_text("2")
    result = cloud.launch("setup", *launching.SLICE)
    assert result.returncode == 0, result.stdout
    assert len(cloud.calls("scp")) == 3


def test_workers_with_other_packages_are_refused(cloud):
    (cloud.folder / "state").write_text("ACTIVE")
    (cloud.home(1) / "packages").write_text("jax==0.1")
    result = cloud.launch("setup", *launching.SLICE)
    assert result.returncode == 1
    assert "do not have the same packages" in result.stdout


def _ready(cloud):
    (cloud.folder / "state").write_text("ACTIVE")
    assert cloud.launch("setup", *launching.SLICE).returncode == 0


@pytest.mark.reliability("R29")
def test_a_mistake_is_not_repeated(cloud):
    _ready(cloud)
    (cloud.home(0) / "exit_codes").write_text("134\n")
    (cloud.home(1) / "exit_codes").write_text("3\n")
    end = cloud.home(1) / "f3tok_jobs" / "bucket_a_run-c05262a5" / "slice_0000_worker_0001.exit"
    (cloud.home(0) / "waits_for").write_text(str(end))
    result = cloud.launch("run", *launching.SLICE, *launching.RUN)
    assert result.returncode == 3
    # The worker that was the cause is named, not the one that lost its peer.
    assert "slice_0000_worker_0001 ended with exit code 3" in result.stdout
    logs = result.stdout[result.stdout.index("ended with exit code 3") :]
    assert 0 < logs.index("ends with 3") < logs.index("ends with 134")
    assert "restart 1" not in result.stdout


@pytest.mark.reliability("R03", "R29")
def test_accidents_are_restarted(cloud):
    accidents = {
        42: "preempted and saved",
        124: "watchdog",
        134: "worker died",
        137: "out of memory",
        143: "told to leave",
    }
    _ready(cloud)
    (cloud.home(1) / "exit_codes").write_text("".join(f"{code}\n" for code in accidents))
    result = cloud.launch("run", *launching.SLICE, *launching.RUN)
    assert result.returncode == 0, result.stdout
    *attempts, last = re.split(r"restart \d of at most 20", result.stdout)
    for attempt, words in zip(attempts, accidents.values(), strict=True):
        assert words in attempt
    assert "finished" in last


@pytest.mark.reliability("R03")
def test_restarts_have_a_budget(cloud):
    _ready(cloud)
    (cloud.home(0) / "exit_codes").write_text("137\n" * 9)
    result = cloud.launch("run", *launching.SLICE, *launching.RUN, "--max_restarts=2")
    assert result.returncode == 137
    assert "2 restarts are used up" in result.stdout


@pytest.mark.reliability("R29")
def test_a_slice_that_is_preempted_twice_is_replaced_twice_and_the_run_resumed(cloud):
    _ready(cloud)
    (cloud.folder / "preemptions").write_text("2")
    (cloud.folder / "states").write_text("WAITING_FOR_RESOURCES,PROVISIONING,ACTIVE\nACTIVE")
    result = cloud.launch("run", *launching.SLICE, *launching.RUN, "--spot")
    assert result.returncode == 0, result.stdout
    assert "demo is WAITING_FOR_RESOURCES" in result.stdout
    assert "demo is PROVISIONING" in result.stdout
    assert len(cloud.calls("delete")) == 2 and len(cloud.calls("create")) == 2
    assert result.stdout.count("2 workers, all with the same packages and code") == 2
    assert "restart 2 of at most 20" in result.stdout and "finished" in result.stdout
    # What each of the three slices said stays, though two are gone.
    logs = cloud.bucket() / "logs"
    # Copied by the workers after the end, when the launcher may have gone.
    deadline = time.monotonic() + 60
    while len(list(logs.glob("*/slice_0000_worker_0001.exit"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.2)
    first, *_, last = sorted(logs.iterdir())
    assert "ends with 0" in (last / "slice_0000_worker_0001.log").read_text()
    assert (last / "slice_0000_worker_0001.exit").read_text().split()[0] == "0"
    assert "step 1" in (first / "slice_0000_worker_0001.log").read_text()


@pytest.mark.reliability("R29")
def test_after_a_preemption_capacity_is_asked_for_until_it_is_there(cloud):
    _ready(cloud)
    (cloud.folder / "preemptions").write_text("1")
    (cloud.folder / "quota").write_text("1")
    (cloud.folder / "states").write_text("FAILED\nACTIVE")
    result = cloud.launch("run", *launching.SLICE, *launching.RUN, "--spot")
    assert result.returncode == 0, result.stdout
    assert "Quota limit 'TPUS' has been exceeded" in result.stdout
    assert "demo is FAILED and will not become active" in result.stdout
    assert result.stdout.count("there are no workers to go on with; asking again") == 2
    assert "restart 3 of at most 20" in result.stdout and "finished" in result.stdout


@pytest.mark.reliability("R29")
def test_a_worker_that_was_replaced_is_set_up_again(cloud):
    _ready(cloud)
    (cloud.home(0) / "exit_codes").write_text("134\n")
    shutil.rmtree(cloud.home(1) / "f3tok_jax")
    result = cloud.launch("run", *launching.SLICE, *launching.RUN)
    assert result.returncode == 0, result.stdout
    assert "2 workers, all with the same packages and code" in result.stdout
    assert not cloud.calls("create")
    assert "finished" in result.stdout


@pytest.mark.reliability("R03")
def test_stop_saves_and_is_not_restarted(cloud):
    _ready(cloud)
    for worker in (0, 1):
        (cloud.home(worker) / "sleep").touch()
    launcher = subprocess.Popen(
        ["bash", str(launching.SCRIPT), "run", *launching.SLICE, *launching.RUN],
        env={**os.environ, **cloud.environment, "DEVICE": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
    )
    logs = [
        cloud.home(worker)
        / "f3tok_jobs"
        / "bucket_a_run-c05262a5"
        / f"slice_0000_worker_000{worker}.log"
        for worker in (0, 1)
    ]
    launching.until(lambda: all(log.exists() and "step 1" in log.read_text() for log in logs))
    status = cloud.launch("status", *launching.SLICE, *launching.RUN)
    assert status.stdout.count("running") == 2
    assert cloud.launch("stop", *launching.SLICE, *launching.RUN).returncode == 0
    printed, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 43, printed
    assert all("saved" in log.read_text() for log in logs)
    assert "step 1" in cloud.launch("logs", *launching.SLICE, *launching.RUN).stdout


def test_two_slices_know_their_numbers(cloud):
    result = cloud.launch(*launching.SLICE, *launching.RUN, "--num_slices=2")
    assert result.returncode == 0, result.stdout
    create = cloud.calls("create")[0]
    assert create[create.index("--node-count") + 1] == "2"
    for number in (0, 1):
        log = (
            cloud.home(1, f"demo-{number}")
            / "f3tok_jobs"
            / "bucket_a_run-c05262a5"
            / f"slice_000{number}_worker_0001.log"
        )
        assert "ends with 0" in log.read_text()


@pytest.mark.reliability("R29")
def test_dropped_connections_are_no_end(cloud):
    _ready(cloud)
    (cloud.folder / "status_failures").write_text("3")
    (cloud.folder / "describe_failures").write_text("1")
    result = cloud.launch("run", *launching.SLICE, *launching.RUN)
    assert result.returncode == 0, result.stdout
    assert "no answer from the workers (3 of 5)" in result.stdout
    assert "restart 1" not in result.stdout
    assert "finished" in result.stdout


def test_a_slice_is_awaited_while_the_network_is_gone(cloud):
    (cloud.folder / "state").write_text("ACTIVE")
    (cloud.folder / "describe_failures").write_text("3")
    result = cloud.launch("wait", *launching.SLICE)
    assert result.returncode == 0, result.stdout
    (cloud.folder / "describe_failures").write_text("99")
    result = cloud.launch("wait", *launching.SLICE)
    assert result.returncode == 1
    assert "gcloud has failed 5 times in a row" in result.stdout
    result = cloud.launch("create", *launching.SLICE)
    assert result.returncode == 1
    assert "demo is not asked for while gcloud cannot tell" in result.stdout
    assert not cloud.calls("create")


def _decided(*answers: str) -> tuple[int, str]:
    """Exit code and words of the supervisor for the status lines of workers 0, 1, ..."""
    lines = [f"job slice_0000_worker_000{i} {answer}" for i, answer in enumerate(answers)]
    program = (
        f'source "{launching.ROOT}/launch/common.sh"; source "{launching.ROOT}/launch/record.sh"; '
        f'source "{launching.ROOT}/launch/supervise.sh"; '
        'on_workers() { :; }; GRACE_SECONDS=1; decide "$1"'
    )
    result = subprocess.run(
        ["bash", "-c", program, "_", "\n".join(["Warning: a key was added.", *lines])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not result.stderr
    return result.returncode, result.stdout


@pytest.mark.parametrize(
    "answers, code, worker",
    [
        (["running", "exit=0"], 0, None),
        (["absent", "running"], 255, None),
        (["exit=134", "exit=1"], 1, 1),
        (["exit=137", "exit=4"], 4, 1),
        (["exit=124", "exit=3", "exit=134"], 3, 1),
        (["exit=134", "exit=137"], 137, 1),
        (["exit=137", "exit=143"], 143, 1),
        (["exit=42", "exit=43"], 43, 1),
        (["exit=0", "exit=134"], 134, 1),
        (["exit=3 1200", "exit=1 1100"], 1, 1),
        (["exit=3 1100", "exit=1 1200"], 3, 0),
        (["exit=1", "exit=3 1200"], 3, 1),
        (["exit=134 1000", "exit=1 1200"], 1, 1),
        (["exit=137 1200", "exit=124 08"], 137, 0),
    ],
)
def test_the_worker_that_was_the_cause_decides(answers, code, worker):
    got, words = _decided(*answers)
    assert got == code
    assert worker is None or f"slice_0000_worker_000{worker} ended with exit code {code}" in words


@pytest.mark.parametrize("code", ["unreadable", "", "256", "-1", "x[$(touch${IFS}CANARY)0]", "007"])
def test_an_exit_code_that_is_none_is_a_failure_in_words(code, tmp_path):
    code = code.replace("CANARY", str(tmp_path / "canary"))
    got, words = _decided("exit=137", f"exit={code}")
    assert got == 1
    assert f"worker_0001 ended, but its exit code cannot be read (got '{code}')" in words
    assert not (tmp_path / "canary").exists()
