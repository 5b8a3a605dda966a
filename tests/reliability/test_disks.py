# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A disk that is filled at a random moment ends a run by 4, and costs nothing that was saved."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.reliability import disks

_ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def mounts():
    """Skips the test where nobody may mount a disk of its own."""
    try:
        command = [*disks.NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            raise OSError
    except OSError:
        pytest.skip("this machine lets nobody mount a disk of its own")


def _fill(run: str, times: int, folder: pathlib.Path) -> None:
    program = [sys.executable, "-m", "tests.reliability.disks"]
    flags = [f"--run={run}", f"--times={times}", f"--folder={folder}"]
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    ended = subprocess.run(
        [*program, *flags], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.slow
@pytest.mark.reliability("R08")
def test_a_run_on_a_full_disk_ends_by_4_and_goes_on_on_a_larger_one(mounts, tmp_path):
    _fill("toy", 1, tmp_path)


@pytest.mark.slow
@pytest.mark.reliability("R08")
@pytest.mark.parametrize("run, times", [("toy", 20), ("autoencoder", 3)])
def test_runs_on_full_disks_end_by_4_and_go_on_on_larger_ones(run, times, mounts, tmp_path):
    """Below $F3TOK_RELIABILITY, where it is set, it goes on from where it stopped."""
    folder = pathlib.Path(os.environ.get("F3TOK_RELIABILITY", tmp_path)) / "disks"
    _fill(run, times, folder)
