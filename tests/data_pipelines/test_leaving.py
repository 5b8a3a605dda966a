# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Signals that reach a process whose main thread is in a library, and its forks."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from data_pipelines import leaving

_ROOT = pathlib.Path(__file__).parents[2]
# A lock that nobody opens, in C: no handler of Python's runs in this thread any more.
_STUCK = """
import ctypes, pathlib, signal, sys
from data_pipelines import command
from data_pipelines.records import atomic
def work(given):
    with atomic.replacing(pathlib.Path(sys.argv[1])) as partial:
        partial.write_text("half")
        libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
        libc.pthread_mutex_lock(mutex)
        print("stuck", flush=True)
        libc.pthread_mutex_lock(mutex)
parser = command.Parser(prog="python -m door")
sys.exit(command.run(parser, work, [], {options}))
"""


def _ended(options: str, number: int, folder: pathlib.Path) -> tuple[int, str]:
    """Exit code and standard error of a program that is stuck when it gets a signal."""
    line = [sys.executable, "-c", _STUCK.replace("{options}", options), str(folder / "out")]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with subprocess.Popen(line, cwd=_ROOT, **pipes) as program:
        assert program.stdout.readline() == "stuck\n"
        program.send_signal(number)
        _, said = program.communicate(timeout=30)
    assert not list(folder.iterdir())
    return program.returncode, said


_ENDING = """
import atexit, sys, time
from data_pipelines import leaving
atexit.register(lambda: (print("ending", flush=True), time.sleep(60)))
leaving.settle(int(sys.argv[1]))
"""


@pytest.mark.reliability("R02")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("code", [0, 42])
def test_a_signal_after_the_end_changes_no_exit_code(number, code):
    line = [sys.executable, "-c", _ENDING, str(code)]
    with subprocess.Popen(line, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout.readline() == "ending\n"
        program.send_signal(number)
        assert program.wait(timeout=30) == code


# Nothing lies between the end of the work and what holds its exit code.
_ENDED = """
import signal
from data_pipelines import command, leaving
parser = command.make_parser("ends", "Ends.")
command.run(parser, lambda given: 3, [], resumes=True, ended=leaving.settle)
signal.raise_signal(signal.SIGHUP)
"""


@pytest.mark.reliability("R02")
def test_a_signal_between_the_end_of_the_work_and_of_the_program_changes_no_exit_code():
    assert subprocess.run([sys.executable, "-c", _ENDED], cwd=_ROOT).returncode == 3


# exit() of C, after Python: sleeps as many seconds as the exit code says.
_GONE = """
import atexit, ctypes, sys
from data_pipelines import leaving
atexit.register(leaving.ignore)
libc = ctypes.CDLL(None)
libc.on_exit(libc.sleep, None)
leaving.settle(2)
print("ending", flush=True)
sys.exit(2)
"""


@pytest.mark.reliability("R02")
def test_a_signal_after_python_has_ended_changes_no_exit_code():
    line = [sys.executable, "-c", _GONE]
    with subprocess.Popen(line, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout.readline() == "ending\n"
        time.sleep(0.5)
        while program.poll() is None:
            program.send_signal(signal.SIGTERM)
            time.sleep(0.1)
        assert program.returncode == 2


@pytest.mark.reliability("R02")
@pytest.mark.parametrize(
    "number, options, code, words",
    [
        (signal.SIGTERM, "", -signal.SIGTERM, ""),
        (signal.SIGHUP, "", -signal.SIGHUP, ""),
        (signal.SIGTERM, "resumes=True", 42, "told to leave by SIGTERM; run the same command"),
        (signal.SIGHUP, "resumes=True", 42, "told to leave by SIGHUP; run the same command"),
        (signal.SIGINT, "interrupted=lambda given: 130", 130, "stopped by Ctrl-C"),
    ],
)
def test_a_main_thread_that_is_in_a_library_keeps_no_process_alive(
    number, options, code, words, tmp_path
):
    returned, said = _ended(options, number, tmp_path)
    assert returned == code and words in said and said.count("\n") == bool(words)


def test_the_main_thread_goes_on_with_what_a_signal_has_changed():
    heard = []
    handlers = {signal.SIGUSR1: leaving.AtOnce(heard.append)}
    with leaving.listening(), leaving.handling(handlers):
        for count in range(1, 100):
            os.kill(os.getpid(), signal.SIGUSR1)
            assert len(heard) == count
    with leaving.handling(handlers):  # without the thread
        os.kill(os.getpid(), signal.SIGUSR1)
        assert len(heard) == 100
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    assert "signals" not in {thread.name for thread in threading.enumerate()}


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with leaving.handling({signal.SIGUSR1: leaving.AtOnce(pytest.fail)}):
            os.kill(os.getpid(), signal.SIGUSR1)
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_fork_that_is_ended_ends_alone():
    heard = []
    with leaving.listening(), leaving.handling({signal.SIGUSR1: leaving.AtOnce(heard.append)}):
        there, here = os.pipe()
        child = os.fork()
        if not child:
            os.write(here, b"!")
            signal.pause()
            os._exit(0)
        os.read(there, 1)  # Python forgets the signals that a fork gets while it begins.
        os.kill(child, signal.SIGUSR1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGUSR1
        os.close(there)
        os.close(here)
        os.kill(os.getpid(), signal.SIGUSR1)
    assert heard == [signal.SIGUSR1]
