# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Two runs that want one folder of a bucket: one trains in it, whichever of them dies or stalls."""

import json

from etils import epath
import pytest

from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import lease
from tests.support import bucket


@pytest.fixture
def logs(tmp_path, monkeypatch) -> epath.Path:
    """Of a folder in a bucket, whose leases beat fast."""
    monkeypatch.setattr(lease, "_BEAT", 0.02)
    monkeypatch.setattr(lease, "_WATCHED", 8.0)
    bucket.serve()
    return epath.Path(f"{bucket.URL}/{tmp_path.name}/logs")


@pytest.mark.reliability("R13")
def test_a_second_run_is_refused_while_the_first_is_at_work_and_not_after(logs):
    workdir, said = str(logs.parent), []
    with run_folder.locked(workdir, said.append) as check:
        with pytest.raises(
            ValueError, match=f"must not be in use, got {workdir}, in which a run on"
        ):
            with run_folder.locked(workdir, said.append):
                pass
        check()
        assert len(said) == 1 and "watching for 8 s if it is at work" in said[0]
    # Given back: the next one need not wait.
    with run_folder.locked(workdir, said.append):
        assert len(said) == 1
    assert not (logs / "lease.json").exists()


def test_what_a_dead_run_left_is_taken_once_it_was_watched(logs):
    logs.mkdir(parents=True)
    for left in (json.dumps({"id": "a", "host": "gone", "beats": 7}), "{", "[]"):
        (logs / "lease.json").write_text(left)
        slept, said = [], []
        taken = lease.Lease(logs, say=said.append, sleep=slept.append)
        assert len(slept) == 401 and ("a run on gone" in said[0] or "another host" in said[0])
        taken.give_back()


def test_who_was_taken_for_dead_saves_nothing_more(logs):
    first = lease.Lease(logs, say=str)
    (logs / "lease.json").write_text(json.dumps({"id": "b", "host": "other", "beats": 0}))
    first._thread.join(20)
    with pytest.raises(
        lease.Taken, match="was taken over by a run on other, to which this one seem"
    ):
        first.check()
    first.give_back()
    assert json.loads((logs / "lease.json").read_text())["id"] == "b"
