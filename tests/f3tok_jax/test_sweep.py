# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The program of sweeps: runs that fail, are killed, stopped, pruned, held by others; its table."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import pytest

from data_pipelines import command
from f3tok_jax import sweep
from f3tok_jax.runs import results as results_lib
from f3tok_jax.sweeping import job
from f3tok_jax.sweeping import places
from tests.support import bucket
from tests.support import launching
from tests.support import swept
from tests.support import toy_run

_SLOW = 60.0  # seconds that nothing here takes


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Runs of this process take a second, and know no accelerator."""
    swept.use(patch=monkeypatch.setattr)
    monkeypatch.chdir(swept.ROOT)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")


def _arguments(folder: pathlib.Path, num_arms: int, *more: str, **options) -> list[str]:
    path = swept.write_sweep(folder, num_arms, **options)
    return [f"--sweep={path}", f"--workdir={folder / 's'}", *more]


def _rows(folder: pathlib.Path) -> tuple[results_lib.SweptRun, ...]:
    """The runs, best first, by --status --output."""
    output = folder / "status.json"
    assert sweep.main([f"--workdir={folder / 's'}", "--status", f"--output={output}"]) == 0
    return results_lib.read(output).rows


def _states(folder: pathlib.Path) -> dict[str, str]:
    return {row.name: row.state for row in _rows(folder)}


def _run(folder: pathlib.Path, index: int) -> pathlib.Path:
    return folder / "s" / f"clip_norm-{index}_0"


def test_a_run_that_fails_stops_no_other_and_is_trained_again(tmp_path, monkeypatch, capsys):
    arguments = _arguments(tmp_path, 3, "--max_parallel=3")
    monkeypatch.setenv("QUICK_FAIL", "clip_norm-1_0")
    assert sweep.main(arguments) == 1
    printed = capsys.readouterr()
    assert "1 of 3 runs have failed, clip_norm-1_0 first, with exit code 3 (" in printed.err
    assert printed.err.count("\n") == 1 and "step 1 is not finite" in printed.err
    assert "clip_norm-1_0: failed with exit code 3: " in printed.out
    table = printed.out[printed.out.index("run  ") :].splitlines()
    assert [line.split()[0] for line in table[1:4]] == [f"clip_norm-{n}_0" for n in (2, 3, 1)]
    assert "failed 3" in table[3] and "is not finite" in table[3]
    assert table[1].split()[1:] == ["done", "6/6", "2.167,", "best", "2.167", "at", "6"]
    assert table[4] == "3 runs: 2 done, 1 failed"
    monkeypatch.delenv("QUICK_FAIL")
    assert sweep.main([*arguments, "--top=1"]) == 0
    printed = capsys.readouterr().out
    assert "2 of 3 runs are done" in printed and printed.count("begun") == 1
    assert printed.splitlines()[-2].startswith("clip_norm-1_0  done")
    assert all(swept.steps_of(_run(tmp_path, n)) == [1, 2, 3, 4, 5, 6] for n in (1, 2, 3))
    # What is behind the options of the sweep goes to every run.
    assert job.last_words(str(_run(tmp_path, 1))).endswith("step 1 is not finite")


def _start(arguments, **environment) -> subprocess.Popen:
    return subprocess.Popen(**swept.command(*arguments, **environment))


def _kill_all(driver: subprocess.Popen, workdir: pathlib.Path, num: int) -> None:
    """SIGKILL to a driver and its runs."""
    driver.kill()
    driver.communicate()
    holders = [job.holder(str(workdir / f"clip_norm-{n}_0")) for n in range(1, num + 1)]
    for holder in filter(None, holders):
        holder.tell(signal.SIGKILL)


@pytest.fixture
def go_when_waited_for(monkeypatch):
    """Lets runs below a folder go on once it is said that one of them is waited for."""

    def watch(folder: pathlib.Path) -> None:
        say = command.say

        def heard(text: str) -> None:
            say(text)
            if "is waited for" in text:
                (folder / "s" / text.partition(":")[0] / "go").touch()

        monkeypatch.setattr(command, "say", heard)

    return watch


def test_a_killed_driver_leaves_runs_that_the_next_one_waits_for(
    tmp_path, capsys, go_when_waited_for
):
    arguments = _arguments(tmp_path, 3, "--max_parallel=2")
    driver = _start(arguments, QUICK_HOLD="3")
    launching.until(lambda: all(len(swept.steps_of(_run(tmp_path, n))) > 1 for n in (1, 2)), _SLOW)
    driver.kill()  # its runs go on
    driver.communicate()
    orphan = job.holder(str(_run(tmp_path, 1)))
    first, *_, last = _rows(tmp_path)
    assert orphan.pid and (first.name, first.state, last.state) == (
        *("clip_norm-1_0", "running", "waiting"),
    )
    assert (first.step, first.num_steps, first.eta_seconds, first.best) == (2, 6, 4.0, 1.5)
    go_when_waited_for(tmp_path)
    assert sweep.main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"clip_norm-1_0: is trained by {orphan}, which is waited for" in printed
    assert all(swept.steps_of(_run(tmp_path, n)) == [1, 2, 3, 4, 5, 6] for n in (1, 2, 3))
    assert {row.state for row in _rows(tmp_path)} == {"done"}


def test_runs_are_stopped_from_elsewhere_and_go_on(tmp_path, capsys):
    arguments = _arguments(tmp_path, 3, "--max_parallel=2", num_steps=9)
    driver = _start(arguments, QUICK_HOLD="3")
    launching.until(lambda: all(len(swept.steps_of(_run(tmp_path, n))) > 1 for n in (1, 2)), _SLOW)
    assert sweep.main(arguments) == 1  # one driver at a time
    assert f"which process {driver.pid} on " in capsys.readouterr().err
    assert sweep.main([f"--workdir={tmp_path / 's'}", "--stop"]) == 0
    said = capsys.readouterr().out
    assert "the sweep: process" in said and "the sweep: has left" in said
    _check_left(driver)
    assert sweep.main([f"--workdir={tmp_path / 's'}", "--stop"]) == 0  # nothing to do
    assert sweep.main(arguments) == 0
    assert all(swept.steps_of(_run(tmp_path, n)) == list(range(1, 10)) for n in (1, 2, 3))


def _check_left(driver: subprocess.Popen) -> None:
    """A driver of three runs, two of them at work, has passed it on and waited for them."""
    said, _ = driver.communicate(timeout=_SLOW)
    assert driver.returncode == 42 and "told to leave: run the same command again" in said
    assert said.count(": stopped (") == 2 and "3 runs: 2 stopped, 1 waiting" in said


@pytest.mark.slow  # Ten seconds each, like the one before.
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_what_asks_it_to_leave_is_passed_on_to_the_runs_that_save(number, tmp_path):
    arguments = _arguments(tmp_path, 3, "--max_parallel=2", num_steps=9)
    driver = _start(arguments, QUICK_HOLD="3")
    launching.until(lambda: all(len(swept.steps_of(_run(tmp_path, n))) > 1 for n in (1, 2)), _SLOW)
    driver.send_signal(number)
    _check_left(driver)
    assert len(swept.steps_of(_run(tmp_path, 1))) < 9


def test_worse_runs_are_pruned_and_go_on_by_name(tmp_path, monkeypatch, capsys):
    pytest.importorskip("optuna", reason="Optuna is not installed: the extra sweeps")
    halving = "halving=space.Halving(2, 2),"
    arguments = _arguments(tmp_path, 4, num_steps=8, more=halving)
    monkeypatch.setenv("QUICK_HOLD", "3")
    _run(tmp_path, 1).mkdir(parents=True)
    (_run(tmp_path, 1) / "go").touch()
    assert sweep.main(arguments) == 0
    states = _states(tmp_path)
    assert states == {"clip_norm-1_0": "done"} | {f"clip_norm-{n}_0": "pruned" for n in (2, 3, 4)}
    printed = capsys.readouterr().out
    assert "clip_norm-2_0: pruned: eval/mel is " in printed and "better in others" in printed
    few = [len(swept.steps_of(_run(tmp_path, n))) for n in (2, 3, 4)]
    assert set(few) <= {2, 3}
    assert sweep.main(arguments) == 0  # They stay as they are.
    assert [len(swept.steps_of(_run(tmp_path, n))) for n in (2, 3, 4)] == few
    monkeypatch.delenv("QUICK_HOLD")
    assert sweep.main([*arguments, "--only=clip_norm-3"]) == 0
    assert swept.steps_of(_run(tmp_path, 3)) == list(range(1, 9))
    assert _states(tmp_path)["clip_norm-3_0"] == "done"


def test_pruning_without_its_library_is_refused_before_anything_begins(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert sweep.main([*_arguments(tmp_path, 2), "--prune=halving"]) == 1
    assert "pip install -e '.[sweeps]'" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_a_sweep_that_was_changed_says_what_it_leaves_and_what_is_new(tmp_path, capsys):
    assert sweep.main(_arguments(tmp_path, 3, "--max_parallel=3")) == 0
    plan = tmp_path / "s" / "sweep.json"
    before = plan.read_bytes()
    assert sweep.main(_arguments(tmp_path, 3)) == 0 and plan.read_bytes() == before
    capsys.readouterr()
    assert sweep.main(_arguments(tmp_path, 2)) == 0
    said = capsys.readouterr().out
    assert "1 runs are left as they are, the sweep names them no more: clip_norm-3_0" in said
    assert "2 runs: 2 done" in said and _run(tmp_path, 3).is_dir()
    # Another length is no other run, but not one that is done; another width is another run.
    assert sweep.main(_arguments(tmp_path, 2, "--config.model.latent_dim=8")) == 1
    error = capsys.readouterr().err
    assert "clip_norm-1_0 holds a run of another config: model.latent_dim is 32 there" in error
    damaged = json.loads(plan.read_text()) | {"metric": "eval/other"}
    plan.write_text(json.dumps(damaged))
    assert sweep.main([f"--workdir={tmp_path / 's'}", "--status"]) == 1
    assert "must have the seal" in capsys.readouterr().err


def test_a_run_that_was_begun_by_hand_is_waited_for(tmp_path, capsys, go_when_waited_for):
    arguments = _arguments(tmp_path, 1)
    folder = _run(tmp_path, 1)
    changes = ("num_steps=6", *swept.SHORT, "optimizer.generator.clip_norm=1.0")
    changes += (f"data.train={swept.write_shards(tmp_path)}",)
    flags = [f"--config={swept.RECIPE}:tiny", *(f"--config.{change}" for change in changes)]
    flags += [f"--workdir={folder}"]
    environment = {**os.environ, "PYTHONPATH": str(swept.ROOT), "QUICK_HOLD": "3"}
    run = subprocess.Popen([sys.executable, str(swept.QUICK), *flags], env=environment)
    launching.until(lambda: swept.steps_of(folder), _SLOW)
    go_when_waited_for(tmp_path)
    assert sweep.main(arguments) == 0 and run.wait(_SLOW) == 0
    assert "is trained by another process, which is waited for" in capsys.readouterr().out
    assert swept.steps_of(folder) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "change, message",
    [
        ("--sweep=", "--sweep must be FILE.py or FILE.py:PRESET, got none"),
        ("--only=clip_norm-7", "--only must name arms or runs of the sweep, got 'clip_norm-7'"),
        ("--config.num_step=3", "did you mean --config.num_steps?"),
        ("--config.optimizer.ema_decay=2.0", "clip_norm-1_0 cannot be trained: config.optimizer.e"),
        ("--config.num_steps=1", "clip_norm-1_0 cannot be trained: optimizer warmup_steps=1 must "),
        ("--config.seed=3", "--seeds says which seeds are trained"),
        ("--max_parallel=0", "must be at least 1"),
        ("--print_config", "--print_config must not go to a sweep's runs, which would end"),
        ("--config.data.train=", "clip_norm-1_0 cannot be launched: --config.data.train must name"),
        ("--config.data.train=none", "config.data.train must be a finished shard set, got none"),
        ("--config.data.heldout=none", "config.data.heldout must be a finished shard set, got n"),
        ("--onyl=clip_norm-1", "unrecognized arguments: --onyl=clip_norm-1; see --help"),
        ("--backend=tpu", "--workdir must be a place that every worker sees"),
        ("--status", "has no sweep.json: begin one with --sweep"),
        ("--stop", "has no sweep.json: begin one with --sweep"),
    ],
)
def test_what_does_not_fit_is_one_sentence_before_the_first_run(
    change, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    arguments = _arguments(tmp_path, 2)
    assert sweep.main([*arguments, "--workdir=s", change]) == 1
    error = capsys.readouterr().err
    assert error.startswith("f3tok_jax.sweep: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "s").exists()


def test_arms_that_are_alike_are_refused(tmp_path, capsys):
    text = "from f3tok_jax.sweeping import space\ndef get_sweep(preset='tiny'):\n"
    text += f"    return space.Sweep(recipe={str(swept.RECIPE)!r}, metric='m', arms=ARMS)\n"
    for arms, message in {
        "(space.Arm('a b'), space.Arm('a-b?', ('seed=1',)))": "arms must have different names",
        "(space.Arm('a'), space.Arm('b', ('bottleneck.gamma=1.0',)))": "one for a_0 and b_0",
    }.items():
        (tmp_path / "sweep.py").write_text(text.replace("ARMS", arms))
        arguments = [f"--sweep={tmp_path / 'sweep.py'}", f"--workdir={tmp_path / 's'}"]
        assert sweep.main(arguments) == 1 and message in capsys.readouterr().err


def test_a_dry_run_prints_every_command_and_touches_nothing(tmp_path, capsys):
    arguments = _arguments(
        tmp_path, 3, "--dry_run", "--verify_data", "--config.data.train=gs://B/D"
    )
    assert sweep.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[0] for line in lines] == ["+", "+", "+", "3"]
    expected = f"--workdir={_run(tmp_path, 2)} --verify_data"
    assert "--config.data.train=gs://B/D" in lines[1] and lines[1].endswith(expected)
    sent = f"--sweep={swept.write_sweep(tmp_path, 3)}"
    flags = [sent, "--workdir=gs://bucket/My_sweep", "--dry_run", "--zone", "zone-a"]
    flags += ["--accelerator=v5litepod-8", "--spot"]
    for data, message in {
        "": "must name the shards to train on",
        "here": "got the local folder 'here'",
    }.items():
        wrong = [*flags, "--backend=tpu", f"--config.data.train={data}"]
        assert sweep.main(wrong) == 1
        error = capsys.readouterr().err
        assert "clip_norm-1_0 cannot be launched: " in error and message in error
    flags += ["--config.data.train=gs://bucket/shards"]
    assert sweep.main([*flags, "--backend=tpu", "--max_parallel=2"]) == 0
    first, second, third, _ = capsys.readouterr().out.splitlines()
    assert first.startswith(
        "+ bash launch/tpu_train.sh --tpu=my-sweep-0 --zone zone-a --accelerator=v5litepod-8 "
        "--spot --config=configs/autoencoder.py:tiny --config.num_steps=6 "
    )
    assert first.endswith("--workdir=gs://bucket/My_sweep/clip_norm-1_0")
    assert "--tpu=my-sweep-1 " in second and "--tpu=my-sweep-0 " in third
    assert sweep.main([*flags, "--backend=xpk"]) == 1
    assert "--backend=xpk needs --cluster" in capsys.readouterr().err
    assert sweep.main([*flags, "--backend=xpk", "--cluster=c"]) == 0
    setup, *lines, _ = capsys.readouterr().out.splitlines()
    begin = "+ bash launch/tpu_train.sh "
    assert setup.startswith(f"{begin}setup --zone zone-a --accelerator=v5litepod-8 --spot --clu")
    assert len(lines) == 3 and all("--tpu" not in line for line in lines)
    assert lines[2].startswith(f"{begin}--zone zone-a --accelerator=v5litepod-8 --spot --cluster=c")
    assert lines[2].endswith("--workdir=gs://bucket/My_sweep/clip_norm-3_0")
    assert not list(tmp_path.glob("s")) and not pathlib.Path("My_sweep").exists()


def test_the_table_of_a_bucket_is_that_of_its_folders(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))  # where locks of what is in buckets lie
    (bucket.serve() / "shards").mkdir()
    (bucket.serve() / "shards" / "manifest.json").touch()
    data = f"--config.data.train={bucket.URL}/shards"
    assert sweep.main(_arguments(tmp_path, 2, "--max_parallel=2", data)) == 0
    table = capsys.readouterr().out.splitlines()[-4:]
    shutil.copytree(tmp_path / "s", bucket.serve() / "s")
    assert sweep.main([f"--workdir={bucket.URL}/s", "--status"]) == 0
    assert capsys.readouterr().out.splitlines() == table and "2 runs: 2 done" in table[-1]
    # What is there is not trained again from elsewhere either.
    again = [f"--sweep={tmp_path / 'sweep.py'}", f"--workdir={bucket.URL}/s", "--backend=tpu"]
    assert sweep.main([*again, "--zone=z", "--accelerator=v5e-8", data]) == 0
    assert "2 of 2 runs are done" in capsys.readouterr().out


def test_accelerators_are_left_to_the_runs(tmp_path):
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", "cuda,cpu")
    try:
        assert sweep.main(_arguments(tmp_path, 1, "--dry_run")) == 0
        assert jax.config.jax_platforms == "cpu"
    finally:
        jax.config.update("jax_platforms", before)
    assert places.Place(kind="local").environment["JAX_PLATFORMS"] == os.environ["JAX_PLATFORMS"]


def test_the_last_words_are_those_that_say_the_cause(tmp_path):
    console = tmp_path / "logs" / job.CONSOLE
    assert job.last_words(str(tmp_path)) == ""
    console.parent.mkdir()
    console.write_text("step 1\n\nkilled\n\n")
    assert job.last_words(str(tmp_path)) == "killed"
    cause = "f3tok_jax.train: config.data.train must name a folder of shards, got ''"
    console.write_text(
        f"data.train: a\n{cause}\npod is still there and costs money until:\n+ bash a"
    )
    assert job.last_words(str(tmp_path)) == cause
    console.write_text("Traceback\n  File a\nValueError: " + "x" * 1000)
    assert len(job.last_words(str(tmp_path))) == 300


_LAUNCHER = """
import os, sys
with open(sys.argv[1], "a") as file:
    file.write(" ".join(sys.argv[3:]) + "\\n")
if sys.argv[3] not in ("setup", "stop"):
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def test_slices_take_one_run_after_the_other_and_the_one_that_they_had(
    tmp_path, monkeypatch, capsys
):
    launcher, calls = tmp_path / "launcher.py", tmp_path / "calls"
    launcher.write_text(_LAUNCHER)
    begin = (sys.executable, str(launcher), str(calls), str(swept.QUICK))
    monkeypatch.setattr(places, "_LAUNCH", begin)
    flags = ["--backend=tpu", "--tpu=pod", "--zone=z", "--accelerator=v5e-8"]
    arguments = _arguments(tmp_path, 4, *flags, "--max_parallel=2")
    # A driver that is gone, machine and all, had begun these.
    for index, slot in ((3, "pod-1"), (4, "pod-7")):
        job.write_record(str(_run(tmp_path, index)), job.Record(state=job.RUNNING, place=slot))
    assert sweep.main(arguments) == 1
    error = capsys.readouterr().err
    assert "clip_norm-4_0 was begun on the slice pod-7, got the slices pod-0, pod-1" in error
    job.write_record(str(_run(tmp_path, 4)), job.Record(state=job.STOPPED, place="pod-7"))
    assert sweep.main(arguments) == 0
    said = capsys.readouterr().out
    assert "4 runs: 4 done" in said and "clip_norm-3_0: begun on pod-1, " in said
    for slot in ("pod-0", "pod-1"):
        delete = f"delete --tpu={slot} --zone=z --accelerator=v5e-8\n"
        assert f"{slot} costs money, if it is there, until:\n+ " in said and delete in said
    lines = [line.split() for line in calls.read_text().splitlines()]
    on = {line[-1].rpartition("/")[2]: line[0] for line in lines}
    assert len(lines) == 4 and on["clip_norm-3_0"] == "--tpu=pod-1" and "--zone=z" in lines[0]
    assert on["clip_norm-1_0"] == "--tpu=pod-0" and set(on.values()) == {
        "--tpu=pod-0",
        "--tpu=pod-1",
    }
    # Asked to stop, runs that have not ended are told where they are.
    record = job.Record(state=job.RUNNING, place="pod-1")
    job.write_record(str(_run(tmp_path, 2)), record)
    (_run(tmp_path, 2) / "DONE").unlink()
    assert sweep.main([*arguments, "--stop"]) == 0
    stopped = calls.read_text().splitlines()[4:]
    expected = f"stop --tpu=pod-1 --zone=z --accelerator=v5e-8 --workdir={_run(tmp_path, 2)}"
    assert stopped == [expected]


@pytest.mark.slow
def test_twelve_runs_killed_twice_are_trained_once(tmp_path):
    """Real training loops of the toy stage; python -m pytest -m slow with this file."""
    shards = toy_run.build_data(tmp_path)
    options = dict(num_steps=12, metric="eval/error")
    arguments = _arguments(tmp_path, 12, "--max_parallel=2", **options)
    flags = [one for one in toy_run.arguments(shards) if "num_steps" not in one]
    environment = {
        "SWEPT_BY": toy_run.__file__,
        "JAX_NUM_CPU_DEVICES": "1",
        "TOY_STEP_SECONDS": "0.1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    done = lambda: len(list((tmp_path / "s").glob("*/DONE")))
    for wanted in (3, 8):
        driver = _start([*arguments, *flags], **environment)
        launching.until(lambda wanted=wanted: done() >= wanted, 600.0)
        time.sleep(1.0)  # into the next ones
        _kill_all(driver, tmp_path / "s", 12)
        whole = {path.parent: (path.parent / "metrics.jsonl").stat() for path in _done(tmp_path)}
    said = subprocess.run(**swept.command(*arguments, *flags, **environment), timeout=600)
    assert said.returncode == 0 and "12 runs: 12 done" in said.stdout, said.stdout
    for folder, before in whole.items():
        assert (folder / "metrics.jsonl").stat().st_mtime_ns == before.st_mtime_ns
        assert f"{folder.name}: begun" not in said.stdout
    begun = 0
    for index in range(1, 13):
        console = (_run(tmp_path, index) / "logs" / "console.log").read_text()
        begun += console.count("compiled the train step")
        assert (
            toy_run.losses(_run(tmp_path, index))
            and len(toy_run.losses(_run(tmp_path, index))) == 12
        )
    assert begun <= 12 + 2 * 2  # but those that were at work when all was killed


def _done(folder: pathlib.Path) -> list[pathlib.Path]:
    return list((folder / "s").glob("*/DONE"))
