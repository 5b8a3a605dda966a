# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The processes of one training run, started, watched from outside, hit, and ended."""

from collections.abc import Callable, Sequence
import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import time
from typing import Any

from tests.reliability import runs

# In the order in which a run comes through them; a save goes on beside the steps after it.
PHASES = ("start", "opening", "compile", "step", "evaluation", "save", "end")
_SAID = (
    ("end", re.compile(r"done: ")),
    ("evaluation", re.compile(r"step (\d+)/\d+  (?!eval/)")),  # the step before it
    ("step", re.compile(r"step (\d+)/\d+  eval/|compiled the train step")),
    ("compile", re.compile(r"\S+ M parameters on ")),
    ("opening", re.compile(r"\S+:tiny, \d+ of \d+ values are not the recipe's")),
)
_POLL_SECONDS = 0.002
_TEMPORARY = "orbax-checkpoint-tmp"


class Progress:
    """How far a run is, by what it says.

    Attributes:
        step: the last that was logged, 0 before.
    """

    def __init__(self):
        self.step = 0
        self._name = "start"

    def hear(self, line: str) -> None:
        """Takes note of a line."""
        for name, said in _SAID:
            if match := said.match(line):
                self.step = int((match.groups() or (None,))[0] or self.step)
                self._name = name
                return

    def name(self, *, is_saving: bool) -> str:
        """The phase; `is_saving` says whether a save is under way."""
        name = self._name
        if name == "evaluation" and self.step % runs.EVERY:
            name = "step"
        if name == "step" and self.step == runs.NUM_STEPS:
            return "end"
        return "save" if is_saving and name in ("step", "evaluation") else name


class Group:
    """The processes of a run, by what the first of them says and by what lies in its folder.

    Attributes:
        progress: of the first.
    """

    def __init__(
        self,
        command: Callable[..., dict[str, Any]],
        workdir: pathlib.Path,
        *,
        logs: pathlib.Path,
        num_processes: int,
        heartbeat_seconds: int,
    ):
        """Starts them.

        Args:
            command: runs.Inputs.command, all but the flags of several processes given.
            workdir: run folder.
            logs: file names without their ending: what process i says goes to <logs>_<i>.txt, hashes
                of its batches to <logs>_<i>.hashes.
            num_processes: of the run.
            heartbeat_seconds: after which a process that lost another ends.
        """
        self.progress = Progress()
        self._checkpoints = workdir / "checkpoints"
        self._processes = []
        self._paths = [logs.with_name(f"{logs.name}_{i}.txt") for i in range(num_processes)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for index, path in enumerate(self._paths):
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = (
                f"--coordinator=127.0.0.1:{port}",
                f"--num_processes={num_processes}",
                f"--process_id={index}",
                f"--heartbeat_seconds={heartbeat_seconds}",
                f"--start_seconds={6 * heartbeat_seconds}",  # a busy machine is slow in both
            )
            program = command(*(flags if num_processes > 1 else ()))
            program["env"]["RELIABILITY_HASHES"] = str(path.with_suffix(".hashes"))
            with path.open("wb") as out:
                self._processes.append(
                    subprocess.Popen(**program, stdout=out, stderr=subprocess.STDOUT)
                )
        self._start_of_line = ""
        self._out = self._paths[0].open(encoding="utf-8", errors="replace")

    def phase(self) -> str:
        """Where the run is now."""
        *lines, self._start_of_line = (self._start_of_line + self._out.read()).split("\n")
        for line in lines:
            self.progress.hear(line)
        return self.progress.name(is_saving=self._is_saving())

    def _is_saving(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return any(_TEMPORARY in entry.name for entry in os.scandir(self._checkpoints))
        return False

    def wait_for(self, phase: str, step: int) -> bool:
        """Waits until a phase has come at this step or later; False where the run ended before."""
        while self.is_running():
            if self.phase() == phase and (self.progress.step >= step or phase in PHASES[:3]):
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def durations(self) -> dict[str, float]:
        """Watches an undisturbed run to its end; phase -> seconds of the longest."""
        longest, since, before = dict.fromkeys(PHASES, 0.0), time.monotonic(), ("start", 0)
        while self.is_running():
            now, here = time.monotonic(), (self.phase(), self.progress.step)
            longest[before[0]] = max(longest[before[0]], now - since)
            if here != before:
                since, before = now, here
            time.sleep(_POLL_SECONDS)
        return longest

    def is_running(self) -> bool:
        return any(process.poll() is None for process in self._processes)

    def send(self, number: int, targets: Sequence[int]) -> list[int]:
        """Sends a signal; returns those that were still there to get it."""
        hit = [index for index in targets if self._processes[index].poll() is None]
        for index in hit:
            self._processes[index].send_signal(number)
        return hit

    def end(self, seconds: float) -> list[int | str]:
        """Waits so long; returns each process's exit code as a shell has it, "hung" for none."""
        deadline, codes = time.monotonic() + seconds, []
        for process in self._processes:
            try:
                code = process.wait(max(deadline - time.monotonic(), 0.1))
                codes.append(code if code >= 0 else 128 - code)
            except subprocess.TimeoutExpired:
                codes.append("hung")
        self.close()
        return codes

    def close(self) -> None:
        """Kills what is left."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
        self._out.close()

    def last_words(self, index: int) -> str:
        """The last line that a process said."""
        lines = self._paths[index].read_text(errors="replace").strip().splitlines()
        return lines[-1][-300:] if lines else ""
