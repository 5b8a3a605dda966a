# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Worker processes: results, crashes with and without a culprit, and nothing left behind."""

import errno
import multiprocessing
import os
import signal

import pytest

from data_pipelines.building import workers


def _double(task, *, crashed, report):
    """Doubles every number; kills its process at a "bomb" unless told to leave it out."""
    result = []
    for item in task:
        report(str(item))
        if item == "bomb" and "bomb" not in crashed:
            os.kill(os.getpid(), signal.SIGSEGV)
        result.append(crashed["bomb"] if item == "bomb" else 2 * item)
    return result


def _die_once(task, *, crashed, report):
    report("item")
    try:
        os.close(os.open(task, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "second attempt" if not crashed else "blamed"
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at_once(task, *, crashed, report):
    os._exit(7)


def _raise(task, *, crashed, report):
    raise task


def _run(function, tasks, **changes):
    options = dict(num_workers=2, on_item=lambda key: None) | changes
    results = dict(workers.run(function, tasks, **options))
    assert not multiprocessing.active_children()
    return [results[index] for index in range(len(tasks))]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_task_is_done_once(num_workers):
    seen = []
    results = _run(_double, [[1, 2], [3], [4]], num_workers=num_workers, on_item=seen.append)
    assert results == [[2, 4], [6], [8]]
    assert sorted(seen) == ["1", "2", "3", "4"]


def test_a_crash_is_blamed_on_the_item_and_the_rest_is_done():
    results = _run(_double, [[1], [2, "bomb", 3], [4, "bomb"]])
    assert results[0] == [2]
    assert results[1][0] == 4 and results[1][2] == 6 and "SIGSEGV" in results[1][1]
    assert "SIGSEGV" in results[2][1]


@pytest.mark.reliability("R26")
def test_a_worker_that_is_killed_from_outside_is_replaced(tmp_path):
    assert _run(_die_once, [str(tmp_path / "mark")]) == ["second attempt"]


def test_a_crash_without_a_culprit_ends_the_run():
    with pytest.raises(RuntimeError, match="before it read anything .exit code 7"):
        _run(_die_at_once, [0])
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_exception_ends_the_run_and_one_of_a_disk_stays_what_it_is(num_workers):
    with pytest.raises(ValueError if num_workers == 0 else RuntimeError, match="a bug"):
        _run(_raise, 3 * [ValueError("a bug")], num_workers=num_workers)
    full = OSError(errno.ENOSPC, "No space left on device", "/data/x")
    with pytest.raises(OSError, match="No space left on device: '/data/x'") as raised:
        _run(_raise, 3 * [full], num_workers=num_workers)
    assert raised.value.errno == errno.ENOSPC and not multiprocessing.active_children()


@pytest.mark.reliability("R26")
def test_abandoned_runs_leave_no_process():
    results = workers.run(_double, [[1], [2], [3]], num_workers=2, on_item=lambda key: None)
    next(results)
    results.close()
    assert not multiprocessing.active_children()
