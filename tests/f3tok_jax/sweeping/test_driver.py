# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The driver, with runs that are a line of shell: what it makes of slices, ends, stops and buckets."""

import dataclasses
import pathlib
import time

import ml_collections
import pytest

from f3tok_jax.sweeping import driver as driver_lib
from f3tok_jax.sweeping import job
from f3tok_jax.sweeping import places
from f3tok_jax.sweeping import plan
from f3tok_jax.sweeping import space
from f3tok_jax.sweeping import stopping

_DONE = 'touch "$1/DONE"'
_UNTIL_STOPPED = 'while [ ! -e "$1/stop" ]; do sleep 0.02; done; exit '


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Shell(places.Place):
    """A place whose runs are scripts, as is what stops them; $1 is the run's folder."""

    script: str = _DONE
    stop: str = 'touch "$1/stop"'

    def command(self, run, slot):
        return ["sh", "-c", self.script, slot, run.workdir]

    def stop_command(self, run, slot):
        return ["sh", "-c", self.stop, slot, run.workdir]


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Who has all its steps has a file DONE; nothing is waited for for long."""
    is_done = lambda workdir: (pathlib.Path(workdir) / "DONE").exists()
    done_step = lambda workdir, num_steps: num_steps if is_done(workdir) else None
    monkeypatch.setattr(plan.run_folder, "done_step", done_step)
    monkeypatch.setattr(driver_lib, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(driver_lib, "_JUDGE_SECONDS", {True: 0.0, False: 0.0})


def _run(folder: pathlib.Path, name: str, **options) -> plan.Run:
    config = ml_collections.ConfigDict({"num_steps": 9})
    (folder / f"{name}_0").mkdir()
    about = dict(seed=0, workdir=str(folder / f"{name}_0"), arguments=(), config=config)
    return plan.Run(arm=space.Arm(name), **about, **options)


def _pod(num: int = 2, **options) -> _Shell:
    return _Shell(kind="tpu", name="pod", num=num, **options)


def _begun(run: plan.Run, place: str, state: str = job.RUNNING) -> None:
    job.write_record(run.workdir, job.Record(state=state, place=place))


def test_a_slice_on_which_another_run_of_the_plan_may_be_is_left_alone(tmp_path):
    first, second = _run(tmp_path, "a"), _run(tmp_path, "b")
    _begun(first, "pod-0")  # by a driver that is gone
    ended = driver_lib.Driver(_pod()).train([second], [first])
    assert ended["b_0"].state == job.DONE and ended["b_0"].place == "pod-1"
    (tmp_path / "b_0" / "DONE").unlink()
    _begun(first, "pod")
    with pytest.raises(ValueError, match="a slice must be free, got a_0 on pod, which may still"):
        driver_lib.Driver(_pod(1)).train([second], [first])
    (tmp_path / "a_0" / "DONE").touch()
    assert driver_lib.Driver(_pod(1)).train([second], [first])["b_0"].place == "pod"


def test_a_slice_keeps_its_name_however_few_runs_are_left(tmp_path):
    run = _run(tmp_path, "b")
    _begun(run, "pod-1")
    assert driver_lib.Driver(_pod()).train([run])["b_0"].place == "pod-1"


def test_a_run_that_has_failed_goes_on_where_it_was_launched(tmp_path):
    """The launcher gives a work folder one slice, as long as that is there."""
    runs = [_run(tmp_path, name) for name in "abc"]
    _begun(runs[0], "pod-1", job.FAILED)
    _begun(runs[1], "pod-1", job.STOPPED)
    ended = driver_lib.Driver(_pod()).train(runs)
    assert {one.state for one in ended.values()} == {job.DONE}
    assert ended["a_0"].place == ended["b_0"].place == "pod-1"


@pytest.mark.parametrize("moved", [False, True])
def test_a_run_that_ends_well_without_its_last_step_has_failed(moved, tmp_path):
    ended = driver_lib.Driver(_pod(script="true")).train([_run(tmp_path, "a", moved=moved)])
    assert ended["a_0"].state == job.FAILED
    assert ended["a_0"].words.endswith("a_0 does not hold its last step, 9")
    (tmp_path / "a_0").rename(tmp_path / "b")
    assert (
        driver_lib.Driver(_pod()).train([_run(tmp_path, "a", moved=moved)])["a_0"].state == "done"
    )


@pytest.mark.parametrize(
    "kind, code, state",
    [("tpu", 43, job.PRUNED), ("tpu", 5, job.FAILED), ("xpk", 1, job.PRUNED)],
)
def test_who_was_to_be_pruned_and_failed_has_failed(kind, code, state, tmp_path):
    place = _Shell(kind=kind, name="pod", script=f"{_UNTIL_STOPPED}{code}")
    driver = driver_lib.Driver(place, lambda runs: {run.name: "worse" for run in runs})
    ended = driver.train([_run(tmp_path, "a")])["a_0"]
    assert (ended.state, ended.code) == (state, code)
    assert (ended.words == "worse") == (state == job.PRUNED)


def test_a_run_is_pruned_once_its_stop_has_been_heard(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "_LIMIT_SECONDS", 0.3)
    # The first fails, the second never answers, the third is heard; who asks waits for none.
    tries = 'echo >>"$1/tries"; case $(wc -l <"$1/tries") in 1) exit 7 ;; 2) sleep 60 ;; esac; '
    place = _pod(script=f"{_UNTIL_STOPPED}43", stop=f'{tries} touch "$1/stop"')
    said, judged = [], []

    def judge(runs):
        judged.extend(run.name for run in runs)
        return {run.name: "worse" for run in runs if run.name == "a_0"}

    other = _run(tmp_path, "b")
    began = time.monotonic()
    (tmp_path / "b_0" / "stop").touch()
    driver = driver_lib.Driver(place, judge, said.append)
    ended = driver.train([_run(tmp_path, "a"), other])
    assert ended["a_0"].state == job.PRUNED and time.monotonic() < began + 30
    assert ended["b_0"].state == job.STOPPED and judged.count("a_0") == 3
    refused = [line for line in said if "is not stopped yet" in line]
    assert "exit code 7" in refused[0] and "has not ended in 0.3 s" in refused[1]
    assert said.index(next(one for one in said if one.startswith("b_0: stopped"))) < said.index(
        refused[1]
    )  # meanwhile


def _fails_first(monkeypatch, owner, name: str, times: int = 3) -> None:
    """What a module has answers as a bucket that is away for a while."""
    answer, calls = getattr(owner, name), []

    def ask(*arguments, **options):
        calls.append(name)
        if len(calls) <= times:
            raise ConnectionError("the bucket does not answer")
        return answer(*arguments, **options)

    monkeypatch.setattr(owner, name, ask)


@pytest.mark.parametrize("what", ["start", "holder", "judge", "done_step"])
def test_a_bucket_that_is_away_for_a_while_leaves_no_run_alone(what, tmp_path, monkeypatch):
    said, runs = [], [_run(tmp_path, "a"), _run(tmp_path, "b")]
    judge = lambda runs: {}
    if what == "judge":
        monkeypatch.setattr(driver_lib, "_JUDGE_SECONDS", {True: 0.0, False: 0.0})
        hurdle = iter(range(3))

        def judge(runs):
            if next(hurdle, None) is not None:
                raise ConnectionError("the bucket does not answer")
            return {}

    driver = driver_lib.Driver(_pod(script=f"sleep 0.2; {_DONE}"), judge, said.append)
    if what in ("start", "holder"):
        _fails_first(monkeypatch, job, what)
    elif what == "done_step":
        say = said.append

        def begun(text):
            say(text)
            if text.startswith("b_0: begun"):
                _fails_first(monkeypatch, plan.run_folder, what)

        driver.say = begun
    assert {one.state for one in driver.train(runs).values()} == {job.DONE}
    told = [line for line in said if "the bucket does not answer; that is tried again" in line]
    assert 1 <= len(told) <= 2  # once for each run


def test_what_never_answers_ends_a_driver_without_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(driver_lib, "_PATIENCE_SECONDS", 0.1)
    _fails_first(monkeypatch, job, "start", times=10**9)
    with pytest.raises(ConnectionError, match="does not answer"):
        driver_lib.Driver(_pod()).train([_run(tmp_path, "a")])


def test_a_record_that_cannot_be_read_is_not_taken_for_none(tmp_path, monkeypatch):
    run = _run(tmp_path, "a")
    assert job.read_record(run.workdir) is None
    _fails_first(monkeypatch, job.small_file, "read_text")
    with pytest.raises(ConnectionError):
        driver_lib.Driver(_pod()).train([run])


def test_folders_of_buckets_share_no_lock(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    names = ("gs://b/s/x_1", "gs://b/s_x_1", "gs://b_s/x_1", "gs://b/s/x 1", "gs://b/" + "s" * 400)
    folders = [job.logs_of(name) for name in names]
    assert len(set(folders)) == len(names)
    assert job.logs_of("gs://b/s/x_1//") == folders[0] and folders[0].name.startswith("b_s_x_1-")
    for one, other in zip(names, names[1:]):
        with job.take(one):
            assert job.holder(one) and not job.holder(other)


def test_only_runs_that_may_be_at_work_elsewhere_are_asked_to_leave(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "_LIMIT_SECONDS", 0.3)
    states = (job.RUNNING, job.FAILED, job.PRUNED, job.STOPPED)
    runs = [_run(tmp_path, state) for state in states]
    for run, state in zip(runs, states):
        _begun(run, "pod-0", state)
    said = []
    assert stopping.elsewhere(_pod(), runs, say=said.append)
    assert [path.parent.name for path in tmp_path.glob("*/stop")] == ["running_0"]
    assert not stopping.elsewhere(_pod(stop="exit 3"), runs, say=said.append)
    assert said[-1] == "running_0: is not stopped, as its stop command has ended with exit code 3"
    assert not stopping.elsewhere(_pod(stop="sleep 60"), runs, say=said.append)
    assert said[-1].endswith("its stop command has not ended in 0.3 s")


def test_who_does_not_leave_is_not_waited_for_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "_LIMIT_SECONDS", 0.3)
    run, said = _run(tmp_path, "a"), []
    process = job.start(
        ["sh", "-c", "trap '' TERM; echo; while :; do sleep 0.1; done"], run.workdir
    )
    console = job.logs_of(run.workdir) / job.CONSOLE
    while not console.read_text():
        time.sleep(0.01)
    try:
        assert not stopping.here(str(tmp_path), ["a_0"], say=said.append)
        assert said[-1] == "a_0: has not left in 0.3 s"
    finally:
        process.kill()
        process.wait()
