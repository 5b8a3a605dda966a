# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""job.sh by hand: what it takes for a name and a number, whom it stops, what it says of an end."""

import os
import pathlib
import signal
import subprocess

import pytest

from tests.support import launching


class _Worker:
    """A home in which job.sh runs."""

    def __init__(self, home: pathlib.Path):
        self.home = home

    def job(self, *arguments, **more):
        return subprocess.run(
            ["bash", str(launching.ROOT / "launch" / "job.sh"), *arguments],
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), **more},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, program: str) -> int:
        """Starts a bash program as job "run"; returns the number of its group."""
        assert self.job("start", "run", "0", "bash", "-c", program).returncode == 0
        return int(self.file("pid").read_text())

    def file(self, kind: str) -> pathlib.Path:
        return self.home / "f3tok_jobs" / "run" / f"slice_0000_worker_0000.{kind}"

    def status(self) -> str:
        """ "running", "absent" or "exit=CODE", without the time of the end."""
        return self.job("status", "run", "0").stdout.split()[2]


@pytest.fixture
def worker(tmp_path):
    worker = _Worker(tmp_path)
    yield worker
    if worker.file("pid").exists():
        worker.job("stop", "run", "0", "1")


def _waits(*, deaf: int, log: str = "asked") -> str:
    """A program that ends at the SIGTERM after `deaf` of them."""
    return (
        f"n=0; trap 'echo {log}; n=$((n + 1)); if ((n > {deaf})); then exit 42; fi' TERM; "
        "echo begun; while :; do sleep 0.1; done"
    )


def _processes(group: int) -> str:
    command = ["pgrep", "--runstates", "RSD", "-g", str(group)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _log(worker) -> str:
    return worker.file("log").read_text() if worker.file("log").exists() else ""


@pytest.mark.parametrize(
    "arguments",
    [
        *(["start", name, "0", "true"] for name in ("..", ".", "a/b", "-n", "a b", "$(x)", "a\nb")),
        *(["start", "run", slice_, "true"] for slice_ in ("x", "-1", "99999", "1e1", "0 0")),
        ["stop", "run", "0", "BASH_VERSINFO[$(touch canary)0]"],
        ["stop", "run", "0", "0"],
        ["tail", "run", "0", "-5"],
        ["tail", "run", "BASH_VERSINFO[$(touch canary)0]"],
        ["start", "", "0", "true"],
    ],
)
def test_names_and_numbers_are_nothing_else(arguments, worker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = worker.job(*arguments)
    assert result.returncode == 1
    assert "job.sh: " in result.stderr and len(result.stderr.strip().splitlines()) <= 2
    assert not list(tmp_path.iterdir())


def test_slices_with_leading_zeros_are_decimal(worker):
    assert "slice_0008_worker_0000" in worker.job("status", "run", "08").stdout


def test_a_strangers_process_is_never_stopped(worker):
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        worker.file("pid").parent.mkdir(parents=True)
        worker.file("pid").write_text(f"{stranger.pid}\n")  # as after a restart of the machine
        assert worker.status() == "exit=137"
        assert worker.job("stop", "run", "0", "1").returncode == 0
        worker.start("echo ours")
        launching.until(lambda: "ours" in _log(worker))
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("number", ["", "0", "-1", "1 2", "x[$(touch canary)0]", "999999999"])
def test_a_pid_file_with_rubbish_stops_nobody(number, worker, tmp_path):
    worker.file("pid").parent.mkdir(parents=True)
    worker.file("pid").write_text(number)
    assert worker.status() == "exit=137"
    assert worker.job("stop", "run", "0", "1").returncode == 0
    assert not list(tmp_path.rglob("canary"))


@pytest.mark.reliability("R03")
@pytest.mark.parametrize("deaf, asked", [(0, 1), (1, 2), (9, 2)])
def test_stop_asks_twice_then_kills(deaf, asked, worker):
    group = worker.start(_waits(deaf=deaf))
    launching.until(lambda: "begun" in _log(worker))
    assert worker.status() == "running"
    assert worker.job("stop", "run", "0", "4").returncode == 0
    assert _log(worker).count("asked") == asked
    assert worker.status() == "exit=43"
    assert not _processes(group)


def test_the_exit_code_survives_a_signal_to_the_whole_group(worker):
    group = worker.start(_waits(deaf=0))
    launching.until(lambda: "begun" in _log(worker))
    os.killpg(group, signal.SIGTERM)  # as a machine that shuts down does
    launching.until(lambda: worker.status() != "running")
    assert worker.status() == "exit=42"


def test_what_outlives_its_shell_is_still_the_job(worker):
    group = worker.start(_waits(deaf=0))
    launching.until(lambda: "begun" in _log(worker))
    os.kill(group, signal.SIGKILL)
    assert worker.status() == "running"
    assert "runs already" in worker.job("start", "run", "0", "true").stderr  # and another does not
    assert worker.job("stop", "run", "0", "4").returncode == 0
    assert "asked" in _log(worker)
    assert worker.status() == "exit=43"


def test_what_outlives_its_job_makes_room_for_the_next(worker):
    group = worker.start("sleep 60 & echo begun")
    launching.until(lambda: worker.status() == "exit=0")
    assert _processes(group)
    worker.start("echo next")
    launching.until(lambda: "next" in _log(worker))
    assert not _processes(group)


@pytest.mark.parametrize("content", ["", "abc", "-1", "1000", "0\n0", "x[$(touch canary)0]"])
def test_an_unreadable_exit_code_is_called_so(content, worker):
    worker.file("exit").parent.mkdir(parents=True)
    worker.file("exit").write_text(content)
    assert worker.status() == "exit=unreadable"


def test_the_log_and_the_end_are_copied_while_the_job_runs_and_after(worker, tmp_path):
    copies = tmp_path / "run" / "logs" / "launched"
    log, end = (copies / f"slice_0000_worker_0000.{kind}" for kind in ("log", "exit"))
    go = tmp_path / "go"
    program = f"echo begun; until [[ -e {go} ]]; do sleep 0.1; done; echo over; exit 3"
    result = worker.job(
        *("start", "run", "0", f"--logs={copies}", "bash", "-c", program), COPY_SECONDS="1"
    )
    assert result.returncode == 0
    launching.until(lambda: log.exists() and log.read_text() == "begun\n")
    assert not end.exists()
    go.touch()
    launching.until(end.exists)
    assert log.read_text() == "begun\nover\n"
    assert end.read_text().split()[0] == "3"
    assert worker.status() == "exit=3"


def test_a_job_that_is_killed_leaves_a_copy_of_its_log(worker, tmp_path):
    """As when a machine shuts down: every process is asked, then killed."""
    copies = tmp_path / "copies"
    worker.job("start", "run", "0", f"--logs={copies}", "bash", "-c", _waits(deaf=9))
    launching.until(lambda: "begun" in _log(worker))
    copier = int(worker.file("copier").read_text())
    os.kill(copier, signal.SIGTERM)
    os.killpg(int(worker.file("pid").read_text()), signal.SIGKILL)
    launching.until((copies / "slice_0000_worker_0000.exit").exists)
    assert (copies / "slice_0000_worker_0000.exit").read_text() == "137\n"
    assert "begun" in (copies / "slice_0000_worker_0000.log").read_text()


def test_a_folder_that_cannot_be_written_is_no_concern_of_the_job(worker, tmp_path):
    (tmp_path / "file").touch()
    worker.job("start", "run", "0", f"--logs={tmp_path}/file/logs", "bash", "-c", "echo done")
    launching.until(lambda: worker.status() == "exit=0")
    assert _log(worker) == "done\n"


def test_copies_are_made_every_so_many_seconds_and_no_others(worker, tmp_path):
    arguments = ("start", "run", "0", f"--logs={tmp_path}/copies", "true")
    for number in ("0", "x", "1e1"):
        result = worker.job(*arguments, COPY_SECONDS=number)
        assert result.returncode == 1 and "COPY_SECONDS must be a whole number" in result.stderr
    assert not worker.file("pid").exists()


def test_a_job_that_is_not_there_is_not_stopped(worker):
    assert worker.job("stop", "run", "0", "1").stdout == "job slice_0000_worker_0000 absent\n"
