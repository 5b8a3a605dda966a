# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The watchdog, with a clock of our own."""

import os
import sys
import threading

import pytest

from f3tok_jax.training import watchdog


class _Clock:
    """A clock that the test sets."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _start(tmp_path, seconds: float = 0.05):
    clock, ended, codes = _Clock(), threading.Event(), []

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    dog = watchdog.Watchdog(
        seconds, clock=clock, stacks_path=str(tmp_path / "logs" / "stacks.txt"), exit_process=end
    )
    return dog, clock, ended, codes


@pytest.mark.reliability("R15", "R16")
def test_dumps_stacks_then_ends_the_process_and_names_the_phase(tmp_path, capfd):
    dog, clock, ended, codes = _start(tmp_path)
    dog.beat("evaluation")
    clock.now = 0.2
    assert ended.wait(10)
    dog.close()
    assert codes == [124]
    assert "in phase 'evaluation'" in capfd.readouterr().err
    stacks = (tmp_path / "logs" / "stacks.txt").read_text()
    assert "in phase 'evaluation'" in stacks
    assert "test_dumps_stacks_then_ends_the_process_and_names_the_phase" in stacks


@pytest.mark.reliability("R19")
def test_is_quiet_before_the_first_beat_and_while_there_are_beats(tmp_path):
    dog, clock, ended, codes = _start(tmp_path)
    clock.now = 1000.0  # a long first compilation
    assert not ended.wait(0.1)
    for _ in range(5):
        dog.beat("step")
        clock.now += 0.04
        assert not ended.wait(0.03)
    dog.close()
    assert not codes and not (tmp_path / "logs").exists()


@pytest.mark.reliability("R08")
@pytest.mark.parametrize("place", ["folder", "file", "pipe"])
def test_stacks_that_cannot_be_written_do_not_keep_a_process_alive(tmp_path, place, capfd):
    (tmp_path / "logs").mkdir()
    path = tmp_path / "logs" / "stacks.txt"
    if place == "folder":
        path.mkdir()
    elif place == "pipe":
        os.mkfifo(path)  # Opening it takes for ever.
    else:
        path.symlink_to("/dev/full")
    dog, clock, ended, codes = _start(tmp_path)
    dog.beat("step")
    clock.now = 0.2
    assert ended.wait(10)
    dog.close()
    assert codes == [124] and "stacks of all threads follow" in capfd.readouterr().err


def test_a_console_that_stands_still_does_not_keep_a_process_alive(tmp_path, monkeypatch):
    free = threading.Event()

    class Still:
        def write(self, text):
            free.wait(100)

        def flush(self):
            pass

    monkeypatch.setattr(sys, "stderr", Still())
    dog, clock, ended, codes = _start(tmp_path)
    dog.beat("step")
    clock.now = 0.2
    assert ended.wait(10)
    free.set()
    dog.close()
    assert codes == [124] and "in phase 'step'" in (tmp_path / "logs" / "stacks.txt").read_text()
