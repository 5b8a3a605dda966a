# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Real stages, trained by processes that are killed at random moments, end bit-equal."""

import os
import pathlib

import pytest

from tests.reliability import kills
from tests.reliability import phases
from tests.reliability import runs


@pytest.mark.slow
@pytest.mark.reliability("R04")
@pytest.mark.parametrize(
    "stage, num_processes, count",
    [*((stage, 2, 34) for stage in runs.STAGES), ("autoencoder", 4, 20)],
)
def test_runs_that_are_killed_anywhere_end_as_if_nobody_had(stage, num_processes, count, tmp_path):
    """Below $F3TOK_RELIABILITY, where it is set, it goes on from where it stopped."""
    folder = pathlib.Path(os.environ.get("F3TOK_RELIABILITY", tmp_path)) / "kills"
    options = dict(num_processes=num_processes, heartbeat_seconds=20, bound=300)
    kills.Kills(folder, stage, **options).go_on(count)
    told, is_good = kills.summary(folder)
    assert is_good, told


def test_phases_are_told_by_what_a_run_says():
    phase, said = phases.Progress(), []
    for line, is_saving in (
        ("autoencoder:tiny, 25 of 81 values are not the recipe's", False),
        ("0.02 M parameters on 2 cpu devices", False),
        ("compiled the train step in 1.0 s", False),
        ("step 3/12  mel 1.0", False),
        ("step 4/12  mel 1.0", False),
        ("step 4/12  eval/mel 1.0", False),
        ("step 5/12  mel 1.0", True),
        ("step 12/12  mel 1.0", False),
        ("step 12/12  eval/mel 1.0", False),
    ):
        phase.hear(line)
        said.append(phase.name(is_saving=is_saving))
    assert said == [
        *("opening", "compile", "step", "step", "evaluation", "step", "save"),
        *("evaluation", "end"),
    ]
    assert phase.step == 12


def test_what_was_lost_is_told(tmp_path):
    left = {"state a": "1", "step 3 train/loss": 0.5}
    assert runs.compare(left, dict(left)) == []
    assert runs.compare(left | {"state a": "2"}, left) == ["state a is 2, undisturbed 1"]
    assert runs.compare({"state a": "1"}, left) == ["step 3 train/loss is None, undisturbed 0.5"]
    log = tmp_path / "autoencoder" / "log.jsonl"
    log.parent.mkdir()
    kill = '{"kind": "kill", "phase": "step", "signal": "SIGKILL", "hit": [0], "codes": [137, 134]'
    log.write_text(
        f'{kill}, "seconds": 9.0, "problems": []}}\n'
        '{"kind": "run", "run": "run_000", "problems": []}\n'
        '{"kind": "ki'
    )
    told, is_good = kills.summary(tmp_path)
    assert (
        is_good
        and "autoencoder: 1 kills (of 1 signals, the others came too late), 1 of 1 runs bit-equal"
        in told
    )
    log.write_text(
        log.read_text()[: -len('{"kind": "ki')]
        + f'{kill}, "seconds": 9.0, "problems": ["hung"]}}\n'
    )
    told, is_good = kills.summary(tmp_path)
    assert not is_good and "hung" in told
