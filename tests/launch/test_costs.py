# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A launcher's last words: what still costs money and how it is deleted, however it ends."""

import os
import signal
import subprocess

import pytest

from tests.support import launching

_DELETE = "+ bash launch/tpu_train.sh delete --tpu demo --zone zone-a --project some-project"


def _costs(printed: str) -> list[str]:
    """The words about costs, which must be the last, with the command that ends them."""
    lines = printed.splitlines()
    found = [number for number, line in enumerate(lines) if line.startswith(_DELETE)]
    assert not found or found == [len(lines) - 1], printed
    return lines[found[0] - 1 :] if found else []


@pytest.mark.reliability("R29")
def test_every_command_that_leaves_a_slice_says_so_and_no_other(cloud):
    for command in ("create", "wait", "setup", "run", "status", "logs", "stop", "resume", "delete"):
        result = cloud.launch(command, *launching.SLICE, *launching.RUN, "--price=1.5")
        assert result.returncode == 0, result.stdout
        costs = _costs(result.stdout)
        if command in ("status", "logs", "delete"):
            assert not costs and "an hour" not in result.stdout
        else:
            assert "$12.00 an hour" in costs[0], command


def test_nothing_costs_what_is_known_to_be_absent(cloud):
    (cloud.folder / "quota").touch()
    result = cloud.launch("create", *launching.SLICE)
    assert result.returncode == 1 and not _costs(result.stdout)
    assert not _costs(cloud.launch("wait", *launching.SLICE).stdout)


@pytest.mark.parametrize(
    "state, words",
    [
        ("FAILED", "demo is FAILED: its chips are gone"),
        ("WAITING_FOR_RESOURCES ACTIVE", "demo is still there and costs"),
        ("", "demo may be there; if it is"),
    ],
)
def test_the_words_are_those_of_what_was_seen_last(state, words, cloud):
    (cloud.folder / "state").write_text(state.replace(" ", "\n"))
    if not state:
        (cloud.folder / "describe_failures").write_text("99")
    assert words in _costs(cloud.launch("wait", *launching.SLICE).stdout)[0]


@pytest.mark.reliability("R29")
@pytest.mark.parametrize("broken", ["scp", "ssh"])
def test_a_setup_that_fails_says_what_it_has_bought(broken, cloud):
    (cloud.folder / f"{broken}_failures").write_text("99")
    result = cloud.launch(*launching.SLICE, *launching.RUN)
    assert result.returncode == 1
    assert len(_costs(result.stdout)) == 2


@pytest.mark.reliability("R29")
@pytest.mark.parametrize(
    "number, tell",
    [(signal.SIGINT, os.killpg), (signal.SIGTERM, os.kill), (signal.SIGHUP, os.kill)],
    ids=["Ctrl-C", "SIGTERM", "SIGHUP"],
)
def test_signals_are_answered_with_the_costs(number, tell, cloud):
    (cloud.folder / "state").write_text("PROVISIONING")
    launcher = subprocess.Popen(
        ["bash", str(launching.SCRIPT), "wait", *launching.SLICE],
        env={**cloud.environment, "HOME": "/", "POLL_SECONDS": "20"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    waiting = ["pgrep", "-g", str(launcher.pid), "sleep"]
    launching.until(lambda: subprocess.run(waiting, capture_output=True).returncode == 0)
    tell(launcher.pid, number)
    printed = launcher.stdout.readline()
    while "demo is PROVISIONING: from the moment" not in printed:
        assert printed, "no word about costs"
        printed = launcher.stdout.readline()
    assert launcher.stdout.readline().rstrip() == _DELETE
    assert launcher.wait(timeout=10) not in (0, None)
    subprocess.run(["pkill", "-g", str(launcher.pid)], check=False)
    launcher.stdout.close()
