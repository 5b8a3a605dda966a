# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a launcher leaves in the work folder, and going on from there with nothing else."""

import json
import os
import pathlib
import shutil
import subprocess
import time

import pytest

from tests.support import launching

_WORKDIR = ["--workdir", "gs://bucket/a run"]


def _record(folder: pathlib.Path) -> dict:
    return json.loads((folder / "launch" / "run.json").read_text())


@pytest.mark.reliability("R29")
def test_a_bucket_that_cannot_be_used_is_said_before_anything_is_asked_for(cloud):
    (cloud.folder / "no_account").touch()
    result = cloud.launch(*launching.SLICE, *launching.RUN)
    assert result.returncode == 1
    assert "active account" in result.stdout and "gcloud auth login" in result.stdout
    assert not cloud.calls("create")


def test_the_record_says_what_was_asked_for(cloud):
    (cloud.folder / "quota").touch()
    awkward = ['--config.note=it\'s "two words" $HOME `x` \\\n', "--config.list=(1, 2)"]
    cloud.launch(*launching.SLICE, *launching.RUN, *awkward, "--flex", "--max_restarts=07")
    record = _record(cloud.bucket())
    assert record["train_arguments"] == awkward
    wanted = dict(tpu="demo", zone="zone-a", num_slices="1", capacity="flex", max_restarts="7")
    assert wanted.items() <= record.items()
    assert record["config"] == "configs/autoencoder.py:base" and record["restarts"] == "0"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"train_arguments": [1]}', '{"tpu": "a\\u0000b", "train_arguments": []}'],
)
def test_a_record_that_is_none_is_refused(text, cloud, tmp_path):
    (tmp_path / "run" / "launch").mkdir(parents=True)
    (tmp_path / "run" / "launch" / "run.json").write_text(text)
    result = cloud.launch("status", "--workdir", str(tmp_path / "run"))
    assert result.returncode == 1
    assert "run.json is no record of a run" in result.stdout
    assert not cloud.calls("describe")


@pytest.mark.parametrize("name", ["TPU", "ZONE", "NUM_SLICES", "CAPACITY", "RESTARTS", "RUNTIME"])
def test_a_record_is_checked_like_a_command_line(name, cloud, tmp_path):
    record = dict(tpu="demo", zone="zone-a", accelerator="v4-16", num_slices="1")
    record |= {
        "capacity": "spot",
        "train_arguments": [],
        name.lower(): f"x[$(touch {tmp_path}/canary)0]",
    }
    (tmp_path / "run" / "launch").mkdir(parents=True)
    (tmp_path / "run" / "launch" / "run.json").write_text(json.dumps(record))
    result = cloud.launch("status", "--workdir", str(tmp_path / "run"))
    assert result.returncode == 1 and "canary" in result.stdout
    assert not (tmp_path / "canary").exists() and not cloud.calls("describe")


def test_without_a_record_or_a_name_nothing_is_guessed(cloud, tmp_path):
    result = cloud.launch("resume", "--workdir", str(tmp_path))
    assert result.returncode == 1 and "there is no launch/run.json" in result.stdout
    result = cloud.launch("resume", *launching.SLICE)
    assert result.returncode == 1 and "--workdir is missing" in result.stdout


class _Launcher:
    """One that runs on "another machine" of that name, in a group of its own."""

    def __init__(self, cloud, machine: str, *arguments, script=launching.SCRIPT, **more):
        self.process = subprocess.Popen(
            ["bash", str(script), *arguments],
            env={**cloud.environment, "HOME": "/", "FAKE_HOSTNAME": machine, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.printed = ""

    def read_until(self, words: str) -> None:
        while words not in self.printed:
            line = self.process.stdout.readline()
            assert line, self.printed
            self.printed += line

    def end(self) -> int:
        """Waits for the end, for which everything is there."""
        self.printed += self.process.communicate(timeout=120)[0]
        return self.process.returncode


def _other_checkout(folder: pathlib.Path) -> pathlib.Path:
    """The project again, in another place."""
    names = ("launch", "configs", "f3tok_jax", "data_pipelines", "setup.py", "README.md", "LICENSE")
    for name in (*names, "pytest.ini", "ruff.toml"):
        source = launching.ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    return folder / "launch" / "tpu_train.sh"


def _kill(launcher: _Launcher) -> None:
    os.killpg(launcher.process.pid, 9)
    launcher.end()


@pytest.mark.reliability("R29")
def test_a_run_is_taken_over_from_another_directory_with_its_work_folder_alone(cloud, tmp_path):
    """Figure 6: the launcher's machine is lost; later the slice, too. A folder stands for the bucket."""
    run, other = tmp_path / "bucket" / "a run", tmp_path / "other"
    other.mkdir()
    script = _other_checkout(other)
    for worker in (0, 1):
        (cloud.home(worker) / "sleep").touch()
    note = '--config.note=it\'s "two words"'
    arguments = [*launching.SLICE, "--config=configs/autoencoder.py:base", f"--workdir={run}", note]
    first = _Launcher(
        cloud, "first", *arguments, "--spot", HEARTBEAT_SECONDS="1000", POLL_SECONDS="1"
    )
    first.read_until("step 1")
    _kill(first)
    elsewhere = dict(script=script, FAKE_HOSTNAME="x-w-2", GIT_CEILING_DIRECTORIES=str(tmp_path))
    status = cloud.launch("status", "--workdir", str(run), **elsewhere).stdout
    assert status.count("running") == 2 and "looked after by root@t1v-n-0123-w-first" in status
    assert "step 1" in cloud.launch("logs", f"--workdir={run}", **elsewhere).stdout
    # It may be alive for all that the other machine can know: `run` is refused, `resume` is not.
    refused = cloud.launch("run", *arguments, **elsewhere)
    assert refused.returncode == 1 and "w-first (process" in refused.stdout
    second = _Launcher(
        cloud,
        "second",
        "resume",
        f"--workdir={run}",
        script=script,
        POLL_SECONDS="1",
        GIT_CEILING_DIRECTORIES=str(tmp_path),
    )
    second.read_until("taking over from")
    second.read_until("step 1")
    assert "runs already" in second.printed
    (cloud.folder / "state").write_text("SUSPENDED")
    for worker in (0, 1):
        (cloud.home(worker) / "sleep").unlink()
    assert second.end() == 0, second.printed
    assert "restart 1 of at most 20" in second.printed and "finished" in second.printed
    create = cloud.calls("create")
    assert len(create) == 2 and all("--spot" in call for call in create)
    words = (cloud.home(1) / "train_arguments").read_text().split("\0")
    assert note in words and f"--workdir={run}" in words
    assert _record(run)["outcome"] == "finished" and _record(run)["restarts"] == "1"
    assert not (run / "launch" / "supervisor").exists()
    assert cloud.launch("delete", "--workdir", str(run), **elsewhere).returncode == 0
    assert not (cloud.folder / "state").exists()
    # The slice is gone: what its workers said is not.
    assert "exit=0" in cloud.launch("status", "--workdir", str(run), **elsewhere).stdout
    assert "ends with 0" in cloud.launch("logs", "--workdir", str(run), **elsewhere).stdout
    assert "finished" in cloud.launch("resume", "--workdir", str(run), **elsewhere).stdout
    assert not (cloud.folder / "state").exists()


@pytest.mark.reliability("R29")
def test_who_is_taken_over_leaves(cloud):
    (cloud.folder / "state").write_text("PROVISIONING")
    arguments = [*launching.SLICE, *launching.RUN]
    first = _Launcher(cloud, "first", *arguments, HEARTBEAT_SECONDS="1")
    first.read_until("PROVISIONING")
    (cloud.bucket() / "launch" / "supervisor").write_text(
        f"{int(time.time())} me@second (process 1)"
    )
    assert first.end() == 1
    assert "me@second (process 1) has taken over gs://bucket/a run" in first.printed
    assert "second" in (cloud.bucket() / "launch" / "supervisor").read_text()


@pytest.mark.parametrize(
    "who, age, is_free",
    [
        ("me@second (process 1)", 100, False),
        ("me@second (process 1)", 300, True),
        ("dead", 1, True),
    ],
)
def test_the_dead_are_in_nobodys_way(who, age, is_free, cloud):
    if who == "dead":  # of this machine: its process is asked for
        who = f"{subprocess.getoutput('id -un')}@t1v-n-0123-w- (process 999999999)"
    (cloud.folder / "quota").touch()
    supervisor = cloud.bucket() / "launch" / "supervisor"
    supervisor.parent.mkdir(parents=True)
    supervisor.write_text(f"{int(time.time()) - age} {who}\n")
    result = cloud.launch(*launching.SLICE, *launching.RUN, FAKE_HOSTNAME="")
    assert bool(cloud.calls("create")) == is_free, result.stdout
    assert is_free or f"{who} looks after gs://bucket/a run" in result.stdout
