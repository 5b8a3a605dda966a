# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Real processes that share four devices against one with four: batches, losses, ends."""

import json
import pathlib
import shutil
import signal
import socket
import subprocess

import numpy as np
import pytest

from f3tok_jax.runs import saved_states
from tests.support import metrics
from tests.support import toy_run

_ROOT = pathlib.Path(__file__).parents[2]
_NO_EVALUATION = "--config.data.heldout="  # a program less to compile
_BY_SLICE = "--config.mesh.replica=2"  # as if half of the processes were a slice


@pytest.fixture(scope="module")
def single(shards, cache, tmp_path_factory) -> pathlib.Path:
    """The run of one process with four devices."""
    workdir = tmp_path_factory.mktemp("single")
    (result,) = _run(shards, workdir, cache, num_processes=1)
    assert result.returncode == 0, result.stderr
    return workdir


@pytest.fixture(scope="module")
def pair(shards, cache, tmp_path_factory) -> tuple[pathlib.Path, list]:
    """The run of two processes with two devices each, and what they said."""
    workdir = tmp_path_factory.mktemp("pair")
    return workdir, _run(shards, workdir, cache, "--verify_data", _BY_SLICE)


def _run(
    shards, workdir, cache, *more, num_processes=2, each=({},) * 4, on_gke=False
) -> list[subprocess.CompletedProcess]:
    """Runs all processes to their end; `each` adds arguments and environment to one process.

    They are told by flags who they are, or find it in their environment as on a slice of GKE.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for index in range(num_processes):
        own = dict(each[index])
        distributed = [
            f"--num_processes={num_processes}",
            "--heartbeat_seconds=20",
            "--start_seconds=200",
        ]
        if on_gke:
            distributed.append("--distributed=on")
            hosts = ",".join(["127.0.0.1"] * num_processes)
            own |= dict(TPU_WORKER_HOSTNAMES=hosts, TPU_WORKER_ID=str(index))
            own |= dict(TPU_SKIP_MDS_QUERY="true", JAX_COORDINATOR_PORT=str(port))
        else:
            distributed += [f"--coordinator=127.0.0.1:{port}", f"--process_id={index}"]
        flags = (*more, *(distributed if num_processes > 1 else ()), *own.pop("arguments", ()))
        command = toy_run.command(shards, workdir, cache, *flags, num_devices=4 // num_processes)
        own["TOY_HASHES"] = f"{workdir}/../hashes_{workdir.name}_{index}"
        command["env"] |= own
        processes.append(
            subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    results = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=540)
            results.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()  # SIGTERM does not end a process that waits in a collective
                process.communicate()
    return results


def _hashes(workdir, index: int) -> dict[int, list[int]]:
    text = (workdir.parent / f"hashes_{workdir.name}_{index}").read_text()
    return dict(json.loads(line) for line in text.splitlines())


def _rows_of_statistics(workdir, index: int) -> list[int]:
    """How many rows each batch had that a process read before the first step's."""
    text = (workdir.parent / f"hashes_{workdir.name}_{index}").read_text()
    steps = [json.loads(line) for line in text.splitlines()]
    begins = [place for place, (step, _) in enumerate(steps) if step == 0][1]
    return [len(rows) for _, rows in steps[:begins]]


def _losses(workdir) -> list[float]:
    return [line["train/error"] for line in metrics.read(workdir) if "train/error" in line]


@pytest.mark.reliability("R25")
@pytest.mark.parametrize("num_processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_of_two_slices_hear_the_batches_and_have_the_losses_of_one(
    shards, cache, single, pair, tmp_path, num_processes
):
    workdir, results = pair
    if num_processes != 2:
        workdir = tmp_path / "several"
        results = _run(
            shards, workdir, cache, "--verify_data", _BY_SLICE, num_processes=num_processes
        )
    for result in results:
        assert result.returncode == 0, result.stderr
    first, *others = results
    assert "SHA-256" in first.stdout and f"{num_processes} processes share them" in first.stdout
    # The same global batches: process 0 has the first rows of each, the others follow.
    everyone = range(num_processes)
    whole, parts = _hashes(single, 0), [_hashes(workdir, index) for index in everyone]
    for step in range(12):
        assert [row for part in parts for row in part[step]] == whole[step]
        assert {len(part[step]) for part in parts} == {8 // num_processes}
    # What is measured before is the same to the last bit, and each has read its share for it.
    kept = [json.loads((folder / "frozen.json").read_text()) for folder in (single, workdir)]
    assert kept[0] == kept[1] and kept[0]["measured"]["count"] > 0
    assert _rows_of_statistics(single, 0) == [4, 4, 4, 4]
    shares = [_rows_of_statistics(workdir, index) for index in everyone]
    assert shares == [[4 // num_processes] * 4] * num_processes
    # The same losses: sums over four devices in both, only the collectives are others.
    assert len(_losses(workdir)) == 12
    np.testing.assert_allclose(_losses(workdir), _losses(single), rtol=1e-5)
    evaluations = [
        [line["eval/error"] for line in metrics.read(folder) if "eval/error" in line]
        for folder in (workdir, single)
    ]
    np.testing.assert_allclose(*evaluations, rtol=1e-5)
    # One checkpoint, one DONE, one console.
    assert saved_states.latest_step(str(workdir)) == 12 and (workdir / "DONE").exists()
    assert "step 12/12" in first.stdout
    assert not any("step 12/12" in other.stdout for other in others)


@pytest.mark.reliability("R23")
def test_a_damaged_shard_of_one_copy_is_named_by_both(shards, cache, tmp_path):
    shutil.copytree(shards, tmp_path / "copy")
    shard = next((tmp_path / "copy").glob("*.array_record"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    other = {"arguments": [f"--map={shards}={tmp_path / 'copy'}"]}
    results = _run(
        shards, tmp_path / "run", cache, "--verify_data", _NO_EVALUATION, each=({}, other)
    )
    assert [result.returncode for result in results] == [1, 1]
    for result in results:
        assert f"copy/{shard.name} differs from its SHA-256" in result.stderr.splitlines()[-1]


@pytest.mark.reliability("R01")
def test_sigterm_to_one_saves_one_step_in_both_and_the_rerun_resumes(
    shards, cache, single, tmp_path
):
    workdir = tmp_path / "run"
    # Slow steps: the processes take a moment to agree on the step after which they leave.
    slow = {"TOY_STEP_SECONDS": "0.7"}
    results = _run(
        shards, workdir, cache, _NO_EVALUATION, each=({"TOY_TERM_AT": "5", **slow}, slow)
    )
    assert [result.returncode for result in results] == [42, 42], (
        results[0].stderr + results[1].stderr
    )
    left_at = saved_states.latest_step(str(workdir))
    assert 5 < left_at < 12
    assert f"saved step {left_at}" in results[0].stdout
    results = _run(shards, workdir, cache, _NO_EVALUATION)
    assert [result.returncode for result in results] == [0, 0], (
        results[0].stderr + results[1].stderr
    )
    assert f"from its checkpoint of step {left_at}" in results[0].stdout
    np.testing.assert_allclose(_losses(workdir), _losses(single), rtol=1e-5)


@pytest.mark.reliability("R02")
@pytest.mark.slow  # of one process, test_leaving.py shows them
@pytest.mark.parametrize(
    "fault",
    [
        *("SIGTERM:statistics:2", "SIGTERM:compile:1", "SIGHUP:open:1", "SIGINT:folder:1"),
        *("SIGTERM:restore:1", "SIGHUP:compile:2"),
        *("SIGTERM:evaluation:1", "SIGHUP:evaluation:1", "SIGTERM:save:1"),
    ],
)
def test_told_to_one_both_leave_wherever_they_are_and_the_rerun_ends_as_undisturbed(
    fault, shards, cache, pair, tmp_path
):
    workdir, (undisturbed, _) = tmp_path / "run", pair
    slow = {"TOY_STEP_SECONDS": "0.5"}
    results = _run(shards, workdir, cache, _BY_SLICE, each=(slow, slow | {"TOY_SIGNAL": fault}))
    said = results[0].stderr + results[1].stderr
    assert [result.returncode for result in results] == [42, 42], results[0].stdout + said
    if fault.split(":")[1] not in ("evaluation", "save"):
        assert said.count("told to leave before the first step: run the same command again") == 2
    results = _run(shards, workdir, cache, _BY_SLICE)
    assert [result.returncode for result in results] == [0, 0], results[0].stderr
    assert toy_run.fingerprints(workdir) == toy_run.fingerprints(undisturbed)


@pytest.mark.slow  # half a minute of waiting; test_session shows it of one process
@pytest.mark.reliability("R15")
def test_a_peer_that_stands_still_ends_both_with_stacks(shards, cache, tmp_path):
    workdir = tmp_path / "run"
    limit = "--config.loop.watchdog_seconds=6"
    results = _run(shards, workdir, cache, _NO_EVALUATION, limit, each=({}, {"TOY_STALL_AT": "3"}))
    codes = [result.returncode for result in results]
    # Whichever ends first is missed by the other, whose watchdog is about to bark as well.
    assert 124 in codes and set(codes) <= {124, -signal.SIGABRT}, codes
    for index, result in enumerate(results):
        assert "stacks of all threads follow" in result.stderr
        assert "take_steps" in (workdir / "logs" / f"stacks_{index:04d}.txt").read_text()


@pytest.mark.reliability("R17")
def test_a_peer_that_never_starts_is_named(shards, cache, tmp_path):
    few = {"arguments": ["--num_processes=3", "--start_seconds=5"]}
    results = _run(shards, tmp_path / "run", cache, each=(few, few))
    for result in results:
        assert result.returncode == 124, result.stderr
        assert result.stderr.splitlines()[-1] == (
            "f3tok_jax.train: processes 2 have not arrived in 5 s (--start_seconds), 2 of 3 have: "
            "start the same command on every host"
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.reliability("R17")
def test_a_run_that_is_started_on_one_host_of_sixteen_ends_in_its_limit(cache, tmp_path):
    hosts = ",".join(["127.0.0.1", *(f"host-{index}" for index in range(1, 16))])
    own = dict(TPU_WORKER_HOSTNAMES=hosts, TPU_WORKER_ID="0", TPU_SKIP_MDS_QUERY="true")
    own["arguments"] = ["--distributed=on", "--start_seconds=1"]
    (result,) = _run("none", tmp_path / "run", cache, num_processes=1, each=[own])
    assert result.returncode == 124, result.stderr
    assert "processes 1 (host-1), 2 (host-2), " in result.stderr.splitlines()[-1]
    assert "1 of 16 have: start the same command on every host" in result.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_proxy_of_the_machine_and_a_terminal_that_hangs_up(shards, cache, tmp_path):
    workdir = tmp_path / "run"
    # Nobody listens there: what asks it for its peers never meets them.
    proxy = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")}
    proxy["TOY_STEP_SECONDS"] = "0.7"
    results = _run(
        *(shards, workdir, cache, _NO_EVALUATION),
        each=(proxy, proxy | {"TOY_HANG_UP_AT": "5"}),
        on_gke=True,
    )
    said = results[0].stderr + results[1].stderr
    assert [result.returncode for result in results] == [42, 42], results[0].stdout + said
    left_at = saved_states.latest_step(str(workdir))
    assert 5 < left_at < 12 and f"saved step {left_at}" in results[0].stdout


@pytest.mark.reliability("R04", "R11")
def test_a_killed_peer_ends_the_other_in_bounded_time_and_one_process_resumes(
    shards, cache, single, tmp_path
):
    workdir = tmp_path / "run"
    results = _run(shards, workdir, cache, _NO_EVALUATION, each=({"TOY_KILL_AT": "10"}, {}))
    assert results[0].returncode == -signal.SIGKILL
    assert results[1].returncode not in (0, None)  # SIGABRT by jax.distributed
    assert saved_states.latest_step(str(workdir)) in (4, 8)
    (resumed,) = _run(shards, workdir, cache, _NO_EVALUATION, num_processes=1)
    assert resumed.returncode == 0, resumed.stderr
    np.testing.assert_allclose(_losses(workdir), _losses(single), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.reliability("R11")
def test_a_run_goes_on_with_another_number_of_processes_and_slices(shards, cache, single, tmp_path):
    """One process leaves, four in two slices go on and leave, two end it: half a minute of CPU."""
    workdir = tmp_path / "run"
    slow = {"TOY_STEP_SECONDS": "0.7"}
    ends = []
    for num_processes, num_slices, leave_at in ((1, 1, 3), (4, 2, 6), (2, 1, 0)):
        told = slow | ({"TOY_TERM_AT": str(leave_at)} if leave_at else {})
        results = _run(
            *(shards, workdir, cache, _NO_EVALUATION, f"--config.mesh.replica={num_slices}"),
            num_processes=num_processes,
            each=(told, *[slow] * (num_processes - 1)),
        )
        codes = [result.returncode for result in results]
        assert codes == [42 if leave_at else 0] * num_processes, results[0].stderr
        if ends:
            assert f"from its checkpoint of step {ends[-1]}" in results[0].stdout
        ends.append(saved_states.latest_step(str(workdir)))
    assert 3 <= ends[0] < ends[1] < ends[2] == 12
    np.testing.assert_allclose(_losses(workdir), _losses(single), rtol=1e-5)


@pytest.mark.reliability("R18")
def test_processes_that_differ_are_refused_with_a_table(shards, cache, tmp_path):
    results = _run(
        shards,
        tmp_path / "run",
        cache,
        each=({}, {"arguments": ["--config.optimizer.ema_decay=0.5"]}),
    )
    assert [result.returncode for result in results] == [1, 1], (
        results[0].stderr + results[1].stderr
    )
    host = socket.gethostname()
    for result in results:
        *table, sentence = result.stderr.splitlines()[-4:]
        assert [line.split() for line in table] == [
            ["fact", "value", "processes"],
            ["config.optimizer.ema_decay", "0.99", "0", f"({host})"],
            ["config.optimizer.ema_decay", "0.5", "1", f"({host})"],
        ]
        assert sentence.startswith(
            f"f3tok_jax.train: all processes of a run must start alike, got others in 1 ({host}) of 2"
        )
    assert not (tmp_path / "run" / "config.json").exists()
