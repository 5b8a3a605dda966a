# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Traces of steps: what they hold, that they are no step's time, and that they change nothing."""

import jax
import pytest

from f3tok_jax.runs import ledger
from f3tok_jax.training import profiler
from f3tok_jax.training import reports
from f3tok_jax.training import session
from tests.support import toy_run

pytestmark = pytest.mark.usefixtures("cache")


def test_a_trace_holds_the_steps_and_the_run_is_the_same(shards, whole, tmp_path, capsys):
    wanted = reports.Reports(profile_steps=(3, 4))
    assert toy_run.train(shards, tmp_path, reports=wanted) == session.EXIT_DONE
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert profiler.STEP.encode() in trace.read_bytes()
    assert toy_run.fingerprints(tmp_path) == toy_run.fingerprints(whole)
    found = ledger.read(str(tmp_path))
    assert found.seconds["profile"] > 0
    said = capsys.readouterr().out
    assert "steps 3 to 4 are profiled, which makes them slower" in said
    assert said.index("their trace is in") < said.index("step 6/12")


@pytest.mark.parametrize("broken", ["start_trace", "stop_trace"])
def test_a_profiler_that_fails_is_said_and_stops_nothing(
    shards, tmp_path, monkeypatch, capsys, broken
):
    def fail(*arguments):
        raise RuntimeError("another profiler is at work")

    for name in ("start_trace", "stop_trace"):
        monkeypatch.setattr(jax.profiler, name, fail if name == broken else lambda *arguments: None)
    wanted = reports.Reports(profile_steps=(2, 2))
    flags = ("--config.num_steps=4", "--config.data.heldout=")
    assert toy_run.train(shards, tmp_path, *flags, reports=wanted) == session.EXIT_DONE
    assert "no steps are profiled: another profiler is at work" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "3", "4:3", "0:2", "-1:2", "1:2:3", "1.5:2", "a:b"])
def test_what_names_no_steps_is_refused(text):
    with pytest.raises(ValueError, match="--profile_steps must be FROM:TO"):
        profiler.parse(text)
