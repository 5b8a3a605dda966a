# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Whose run it is, and that a slice is bought and deleted only by whom it belongs to."""

import concurrent.futures
import json
import os
import shutil
import signal
import subprocess
import time

import pytest

from tests.support import launching

_WORKDIR = ["--workdir", "gs://bucket/a run"]
_PROGRAM = (
    f'source "{launching.ROOT}/launch/common.sh"; source "{launching.ROOT}/launch/slices.sh"; '
    f'source "{launching.ROOT}/launch/record.sh"; '
)


def _shell(cloud, program: str, *words: str) -> subprocess.CompletedProcess:
    """Runs bash with the functions of record.sh and bucket.sh."""
    return subprocess.run(
        ["bash", "-c", "set -eu; " + _PROGRAM + program, "test", *words],
        env={**cloud.environment, "HOME": "/"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )


def _begin(cloud, *arguments, **more) -> subprocess.Popen:
    return subprocess.Popen(
        ["bash", str(launching.SCRIPT), *arguments],
        env={**cloud.environment, "HOME": "/", "DEVICE": "cpu", "REHEARSE": "no", **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _record(cloud) -> dict:
    return json.loads((cloud.bucket() / "launch" / "run.json").read_text())


def _train(cloud, **more) -> subprocess.Popen:
    """A launcher whose workers train until they are told to end."""
    for worker in (0, 1):
        (cloud.home(worker) / "sleep").touch()
    launcher = _begin(cloud, *launching.SLICE, *launching.RUN, POLL_SECONDS="1", **more)
    logs = cloud.folder / "demo-w-1" / "f3tok_jobs"
    launching.until(lambda: any("step 1" in log.read_text() for log in logs.rglob("*.log")), 60)
    return launcher


@pytest.mark.parametrize("named", [["--tpu=demo", "--zone=zone-a"], _WORKDIR], ids=str)
def test_what_is_deleted_elsewhere_while_it_is_watched_is_not_bought_again(named, cloud):
    launcher = _train(cloud)
    assert cloud.launch("delete", *named).returncode == 0
    printed = launcher.communicate(timeout=60)[0]
    assert launcher.returncode == 1, printed
    assert len(cloud.calls("create")) == 1
    words = "has taken over" if named == _WORKDIR else "demo was deleted from elsewhere"
    assert words in printed or "was deleted from elsewhere" in printed
    assert _record(cloud)["outcome"] == "deleted" and _record(cloud)["config"]


def test_a_launcher_that_was_asleep_acts_on_nothing_before_it_has_looked(cloud):
    """A closed laptop: it wakes when another has taken over, and its slice looks lost to it."""
    launcher = _train(cloud)
    os.killpg(launcher.pid, signal.SIGSTOP)
    claimed = f"{int(time.time())} me@second (process 1)"
    (cloud.bucket() / "launch" / "supervisor").write_text(claimed)
    (cloud.bucket() / "launch" / "run.json").write_text("the successor's")
    (cloud.folder / "state").write_text("SUSPENDED")
    before = (cloud.folder / "calls").read_text()
    os.killpg(launcher.pid, signal.SIGCONT)
    printed = launcher.communicate(timeout=60)[0]
    assert "me@second (process 1) has taken over gs://bucket/a run" in printed
    since = (cloud.folder / "calls").read_text()[len(before) :]
    assert "create" not in since and "delete" not in since and "job.sh stop" not in since
    assert (cloud.bucket() / "launch" / "run.json").read_text() == "the successor's"
    assert (cloud.bucket() / "launch" / "supervisor").read_text() == claimed


@pytest.mark.parametrize("place", ["bucket", "folder"])
def test_of_launchers_that_come_at_once_one_has_the_run(place, cloud, tmp_path):
    path = "gs://bucket/claim" if place == "bucket" else f"{tmp_path}/claim"
    program = 'bucket_swap "$1" "$2" "$3"'
    for version in ("0", None):
        if version is None:
            version = _shell(cloud, 'bucket_version "$1"', path).stdout.strip()
            assert version != "0"
        # Signs of life name who gives them and when: no two of them are the same text.
        texts = [f"{version} me {i}" for i in range(8)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(_shell, cloud, program, path, version, text) for text in texts]
            codes = sorted(call.result().returncode for call in calls)
        assert codes == [0] + [1] * 7


def test_a_launcher_that_is_killed_gives_no_more_signs_of_life(cloud):
    (cloud.folder / "state").write_text("PROVISIONING")
    launcher = _begin(
        cloud, *launching.SLICE, *launching.RUN, POLL_SECONDS="60", HEARTBEAT_SECONDS="1"
    )
    supervisor = cloud.bucket() / "launch" / "supervisor"
    launching.until(supervisor.exists)
    first = supervisor.read_text()
    # It waits, and nothing but the process beside it signs.
    launching.until(lambda: supervisor.read_text() not in (first, ""))
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.wait(timeout=30)
    others = ["pgrep", "-g", str(launcher.pid), "bash"]
    launching.until(lambda: subprocess.run(others, capture_output=True).returncode == 1)
    subprocess.run(["pkill", "-g", str(launcher.pid)], check=False)
    launcher.communicate(timeout=30)


@pytest.mark.parametrize(
    "said",
    [
        "ERROR: gcloud crashed: credentials file not found",
        "ERROR: NOT_FOUND: Resource 'projects/p/locations/z/queuedResources/demo-2' was not found",
        "ERROR: NOT_FOUND: Project other was not found",
    ],
)
def test_only_this_resource_is_ever_absent(said, cloud):
    cloud.program("gcloud", f'#!/bin/sh\necho "{said}" >&2\nexit 1\n')
    result = cloud.launch("delete", *launching.SLICE, "--project=some-project")
    assert result.returncode != 0 and "does not exist" not in result.stdout
    assert "demo may be there" in result.stdout


def test_without_gcloud_nothing_is_known(cloud, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("bash", "dirname", "tr", "id", "hostname", "sed", "python3"):
        (tmp_path / "empty" / name).symlink_to(shutil.which(name))
    result = cloud.launch("delete", *launching.SLICE[:4], PATH=str(tmp_path / "empty"))
    assert result.returncode == 1
    assert result.stdout.startswith("tpu_train.sh: gcloud is not on PATH here")


@pytest.mark.parametrize("notice", ["Updates are available for some components.\n", "WARNING: x\n"])
def test_what_gcloud_says_beside_its_answer_is_no_part_of_it(notice, cloud):
    (cloud.folder / "notice").write_text(notice)
    result = cloud.launch(*launching.SLICE, *launching.RUN)
    assert result.returncode == 0, result.stdout
    assert "demo is ACTIVE" in result.stdout and "finished" in result.stdout
    assert not (cloud.bucket() / "launch" / "supervisor").exists()


def test_an_answer_that_is_no_state_is_unknown(cloud):
    (cloud.folder / "state").write_text("no-state")
    result = cloud.launch("create", *launching.SLICE)
    assert result.returncode == 1 and "gcloud cannot tell the state of demo" in result.stdout
    assert not cloud.calls("create")


def test_the_project_is_that_of_the_launch_wherever_it_is_asked_about(cloud):
    assert cloud.launch(*launching.SLICE, *launching.RUN).returncode == 0
    assert _record(cloud)["project"] == "some-project"
    fake = cloud.folder.parent / "bin" / "gcloud"
    fake.write_text(
        fake.read_text().replace("cd ", 'if [ "$1" = config ]; then echo other; exit; fi\ncd ', 1)
    )
    result = cloud.launch("delete", *_WORKDIR)
    assert result.returncode == 0 and "does not exist" not in result.stdout
    assert not (cloud.folder / "state").exists()


def test_what_a_record_does_not_say_is_no_word_against_what_is_given(cloud):
    assert cloud.launch(*launching.SLICE, *launching.RUN).returncode == 0
    path = cloud.bucket() / "launch" / "run.json"
    path.write_text(json.dumps({**_record(cloud), "project": ""}))
    result = cloud.launch("status", *_WORKDIR, PROJECT="another")
    assert "demo: ABSENT" in result.stdout, result.stdout
    assert "another" in cloud.calls("describe")[-1]


@pytest.mark.parametrize("option", ["--tpu=second", "--zone=zone-b", "--project=another"])
def test_a_work_folder_has_one_slice(option, cloud):
    assert cloud.launch(*launching.SLICE, *launching.RUN).returncode == 0
    before = _record(cloud)
    for command in ("all", "run", "resume"):
        result = cloud.launch(command, *launching.SLICE, *launching.RUN, option)
        assert result.returncode == 1
        for verb in ("resume", "delete"):
            words = (
                f"{verb} --tpu demo --zone zone-a --project some-project "
                "--workdir 'gs://bucket/a run'"
            )
            assert words in result.stdout
        assert len(cloud.calls("create")) == 1 and _record(cloud) == before
    (cloud.folder / "state").unlink()  # once it is gone, another may be bought
    result = cloud.launch("all", *launching.SLICE, *launching.RUN, option)
    assert result.returncode == 0, result.stdout


def test_a_record_that_cannot_be_made_leaves_the_one_that_is_there(cloud):
    path = cloud.bucket() / "launch" / "run.json"
    path.parent.mkdir(parents=True)
    path.write_text("whole")
    program = (
        'WORKDIR="gs://bucket/a run" TRAIN_ARGUMENTS=() DRY_RUN=0; any_python() { echo false; }; '
        "for name in $RECORDED; do printf -v $name x; done; keep_record"
    )
    result = _shell(cloud, program)
    assert result.returncode != 0
    assert path.read_text() == "whole"
    result = _shell(cloud, 'bucket_write "gs://bucket/a run/launch/run.json" ""')
    assert result.returncode == 1 and "there is no text" in result.stdout
    assert path.read_text() == "whole"


def test_a_deletion_that_fails_says_what_still_costs(cloud):
    (cloud.folder / "state").write_text("ACTIVE")
    fake = cloud.folder.parent / "bin" / "gcloud"
    whole = fake.read_text()
    for broken, words in (("delete", "could not delete demo"), ("gone", "failed 5 times in a row")):
        if broken == "delete":
            refuse = 'if [ "$4" = delete ]; then echo "ERROR: PERMISSION_DENIED" >&2; exit 1; fi\n'
            fake.write_text(whole.replace("cd ", refuse + "cd ", 1))
        else:
            then = f'if [ "$4" = delete ]; then echo 99 >"{cloud.folder}/describe_failures"; exit; fi\n'
            fake.write_text(whole.replace("cd ", then + "cd ", 1))
        result = cloud.launch("delete", *launching.SLICE)
        assert result.returncode == 1 and words in result.stdout, result.stdout
        assert result.stdout.splitlines()[-1].startswith(
            "+ bash launch/tpu_train.sh delete --tpu demo"
        )


def test_what_costs_money_is_said_before_a_bucket_is_waited_for(cloud):
    (cloud.folder / "states").write_text("FAILED")
    fake = cloud.folder.parent / "bin" / "gcloud"
    slow = 'if [ "$2" = rm ]; then exec sleep 600; fi\n'
    fake.write_text(fake.read_text().replace("cd ", slow + "cd ", 1))
    launcher = _begin(cloud, *launching.SLICE, *launching.RUN)
    printed = launcher.communicate(timeout=60)[0]
    assert "demo is FAILED: its chips are gone" in printed
    subprocess.run(["pkill", "-g", str(launcher.pid)], check=False)
