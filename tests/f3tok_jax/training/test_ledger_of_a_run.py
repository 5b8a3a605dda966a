# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The ledger of a run that is killed and preempted again and again, beside a clock on the wall.

python -m pytest -m slow tests/f3tok_jax/training/test_ledger_of_a_run.py
"""

import signal
import subprocess
import time

import pytest

from f3tok_jax.runs import ledger
from tests.support import toy_run

_FAULTS = (
    ({"TOY_KILL_AT": "10"}, -signal.SIGKILL),
    ({"TOY_TERM_AT": "13"}, 42),
    ({"TOY_KILL_AT": "19"}, -signal.SIGKILL),
    ({"TOY_SIGNAL": "SIGKILL:compile:2"}, -signal.SIGKILL),
    ({"TOY_SIGNAL": "SIGTERM:evaluation:1"}, 42),
    ({}, 0),
)


@pytest.mark.slow
@pytest.mark.reliability("R02", "R04")
def test_all_sessions_together_are_the_wall_clock(shards, cache, tmp_path):
    began = time.time()
    for fault, code in _FAULTS:
        command = toy_run.command(shards, tmp_path, cache, "--config.num_steps=24", num_devices=2)
        command["env"] |= {"TOY_STEP_SECONDS": "0.5", **fault}
        ended = subprocess.run(**command, capture_output=True, text=True, timeout=300, check=False)
        assert ended.returncode == code, ended.stderr
    found = ledger.read(str(tmp_path))
    wall = (tmp_path / ledger.NAME).stat().st_mtime - began
    assert found.wall_seconds == pytest.approx(wall, rel=0.02)
    assert len(found.sessions) == len(_FAULTS)
    ends = [session.ended for session in found.sessions]
    assert ends == ["", "preempted", "", "", "preempted", "done"]
    # Of the 24 steps that stay, and of those behind the checkpoints from which two went on.
    in_vain = sum(
        before.last - after.first
        for before, after in zip(found.sessions, found.sessions[1:])
        if not before.ended and before.last > 0 and after.first >= 0
    )
    assert found.seconds["step"] > 0.9 * 0.5 * 24
    assert found.seconds["lost"] >= 0.5 * max(0, in_vain - 2)
