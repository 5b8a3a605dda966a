# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Worker processes of which one may die: the sound that killed it is named and left out."""

import collections
from collections.abc import Callable, Iterator, Sequence
import dataclasses
import multiprocessing
import multiprocessing.connection
import signal
import traceback
from typing import Any

# A worker may be killed for reasons of the machine; only the second crash on one sound blames the
# sound.
_CRASHES_PER_ITEM = 2


@dataclasses.dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    connection: multiprocessing.connection.Connection
    task: int | None = None  # index of the task it works on
    key: str | None = None  # the sound it reads


def run(
    function: Callable[..., Any],
    tasks: Sequence[Any],
    *,
    num_workers: int,
    on_item: Callable[[str], None],
) -> Iterator[tuple[int, Any]]:
    """Yields (index, result) of `function(task, crashed=, report=)` for every task, as they finish.

    Args:
        function: picklable; calls `report(key)` before each sound and leaves out those in
            `crashed`, key -> how the worker died.
        tasks: picklable arguments, started in this order.
        num_workers: processes; 0 runs everything in this one, without protection from crashes.
        on_item: told each key as work on it starts.

    Raises:
        OSError: if `function` raised one.
        RuntimeError: if it raised anything else, or a worker died twice outside any sound.
    """
    if num_workers == 0:
        for index, task in enumerate(tasks):
            yield index, function(task, crashed={}, report=on_item)
        return
    pool = _Pool(function, tasks, on_item)
    try:
        yield from pool.run(min(num_workers, len(tasks)))
    finally:
        pool.stop()


class _Pool:
    """The processes and what each of them is doing."""

    def __init__(
        self, function: Callable[..., Any], tasks: Sequence[Any], on_item: Callable[[str], None]
    ):
        # Forking a process that has threads (Grain, JAX, progress bars) can deadlock the child.
        self._context = multiprocessing.get_context("spawn")
        self._function = function
        self._tasks = tasks
        self._on_item = on_item
        self._waiting = collections.deque(range(len(tasks)))
        self._crashed = collections.defaultdict(dict)  # task -> key -> detail
        self._crashes = collections.Counter()  # (task, key) -> count
        self._workers = []

    def run(self, num_workers: int) -> Iterator[tuple[int, Any]]:
        self._workers = [self._start() for _ in range(num_workers)]
        num_left = len(self._tasks)
        while num_left:
            for worker in self._workers:
                if worker.task is None and self._waiting:
                    self._give(worker, self._waiting.popleft())
            at_work = (worker for worker in self._workers if worker.task is not None)
            busy = {worker.connection: worker for worker in at_work}
            for connection in multiprocessing.connection.wait(list(busy)):
                worker = busy[connection]
                try:
                    kind, content = connection.recv()
                except (EOFError, OSError):
                    self._replace(worker)
                    continue
                if kind == "item":
                    worker.key = content
                    self._on_item(content)
                elif kind == "refused":
                    raise content
                elif kind == "failed":
                    raise RuntimeError(f"a worker failed:\n{content}")
                else:
                    index, worker.task, worker.key = worker.task, None, None
                    num_left -= 1
                    yield index, content

    def stop(self) -> None:
        for worker in self._workers:
            worker.connection.close()
            worker.process.terminate()
            worker.process.join()

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(self._function, theirs), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _give(self, worker: _Worker, index: int) -> None:
        worker.task, worker.key = index, None
        try:
            worker.connection.send((self._tasks[index], self._crashed[index]))
        except OSError:
            pass  # It is dead; waiting on its connection will say so.

    def _replace(self, worker: _Worker) -> None:
        """Notes what a dead worker was reading, gives its task back and starts another."""
        worker.process.join()
        worker.connection.close()
        index, key = worker.task, worker.key
        self._crashes[index, key] += 1
        if self._crashes[index, key] >= _CRASHES_PER_ITEM:
            how = _cause(worker.process.exitcode)
            if key is None:
                raise RuntimeError(f"a worker ended twice before it read anything ({how})")
            self._crashed[index][key] = f"the worker that read it ended twice ({how})"
        self._waiting.appendleft(index)
        self._workers[self._workers.index(worker)] = self._start()


def _work(function: Callable[..., Any], connection: multiprocessing.connection.Connection) -> None:
    """What a worker does: a task, what is read, the result; ends when the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent hears it too and stops its workers.

    def report(key: str) -> None:
        connection.send(("item", key))

    try:
        while True:
            task, crashed = connection.recv()
            try:
                result = function(task, crashed=crashed, report=report)
            except (BrokenPipeError, ConnectionResetError):
                raise
            except OSError as error:  # of a file or a disk, which a user can mend
                connection.send(("refused", error))
            except Exception:
                connection.send(("failed", traceback.format_exc()))
            else:
                connection.send(("done", result))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass


def _cause(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"signal {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"signal {-exit_code}"
