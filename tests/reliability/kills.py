# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Kills the processes that train a stage at random moments, until there are enough.

    python -m tests.reliability.kills --stage=autoencoder --processes=2 --kills=34 --folder=DIR
    python -m tests.reliability.kills --summary --folder=DIR

A run is started again by the same command until it is done; then every bit of its state, every
figure of its steps and evaluations, and the steps that it keeps are compared with those of a run
that nobody disturbed. Phases, signals and who gets them, one process or all, are drawn evenly, moments
within a phase by its length. What happened is a line each in DIR/<stage>_<processes>/log.jsonl; the
same command goes on there.
"""

import contextlib
import functools
import json
import pathlib
import shutil
import signal
import statistics
import sys
import time
from typing import Any

import numpy as np

from tests.reliability import diary
from tests.reliability import phases
from tests.reliability import runs
from tests.support import heeding

SIGNALS = ("SIGTERM", "SIGHUP", "SIGKILL")
# Left, ended by SIGTERM before Python could be asked, another died, was killed, another never came.
RESUMABLE = (42, 143, 134, 137, 124)
_CALM = 0.2  # share of the starts that nobody disturbs, so that runs come to an end
_MAX_ACCIDENTS = 10
_PATIENCE = 900.0  # seconds, where nobody was killed or everything has to be compiled
_COLD = 0.3  # share of the kills while compiling at which nothing is compiled yet


class Kills:
    """The kills of one stage, below a folder."""

    def __init__(
        self,
        folder: pathlib.Path,
        stage: str,
        *,
        num_processes: int = 2,
        heartbeat_seconds: int,
        bound: float,
    ):
        """Opens the folder; builds what is trained on, and trains the undisturbed run, once.

        Args:
            folder: of all stages.
            stage: name of it.
            num_processes: that train it, with a device each.
            heartbeat_seconds: of the runs.
            bound: seconds from a kill within which every process has to end.
        """
        self._folder = folder / f"{stage}_{num_processes}"
        self._stage, self._num_processes = stage, num_processes
        self._heartbeat_seconds, self._bound = heartbeat_seconds, bound
        self._inputs = runs.Inputs(folder / "inputs")
        self._diary = diary.Diary(self._folder)
        self._reference = self._folder / "reference"
        self._folder.mkdir(parents=True, exist_ok=True)
        facts = self._folder / "reference.json"
        if not facts.exists():
            shutil.rmtree(self._reference, ignore_errors=True)
            for name in ("warm", "reference"):  # the first compiles, the second is measured
                workdir = self._folder / name
                group = self._start(workdir, "reference")
                durations, codes = group.durations(), group.end(1)
                if any(codes):
                    raise RuntimeError(f"the undisturbed run must end, got {codes} in {workdir}")
            problems = runs.differences(self._folder / "warm", self._reference)
            if problems:
                raise RuntimeError(f"two undisturbed runs must be equal, got {problems}")
            facts.write_text(json.dumps(durations))
        self._durations = json.loads(facts.read_text())

    def entries(self, kind: str) -> list[dict[str, Any]]:
        """What happened so far: each "kill", or each "run" that came to its end."""
        return [entry for entry in self._diary.entries() if entry["kind"] == kind]

    def go_on(self, count: int) -> None:
        """Starts and kills until so many kills have ended a run early and the last run is done."""
        while (done := len(_that_ended_it(self.entries("kill")))) < count or (
            self._workdir().exists()
        ):
            rng = np.random.default_rng([done, len(self.entries("start"))])
            is_calm = done >= count or rng.random() < _CALM
            if self._start_and_kill(rng, is_calm):
                self._compare()

    def _workdir(self) -> pathlib.Path:
        return self._folder / f"run_{len(self.entries('run')):03d}"

    def _start(self, workdir: pathlib.Path, name: str, *, is_cold: bool = False) -> phases.Group:
        cache = self._folder / ("cold" if is_cold else "cache")
        if is_cold:
            shutil.rmtree(cache, ignore_errors=True)
        return phases.Group(
            functools.partial(self._inputs.command, self._stage, workdir, cache),
            workdir,
            logs=self._folder / "said" / name,
            num_processes=self._num_processes,
            heartbeat_seconds=self._heartbeat_seconds,
        )

    def _start_and_kill(self, rng: np.random.Generator, is_calm: bool) -> bool:
        """Starts the current run once and perhaps kills it; returns whether it came to its end."""
        phase = str(rng.choice(phases.PHASES))
        number, everyone = str(rng.choice(SIGNALS)), range(self._num_processes)
        target = int(rng.integers(self._num_processes + 1))
        targets = [target] if target in everyone else everyone
        step, moment = int(rng.integers(1, runs.NUM_STEPS + 1)), rng.random()
        is_cold = phase == "compile" and not is_calm and bool(rng.random() < _COLD)
        index, hit = len(self.entries("start")), []
        self._write(kind="start", run=self._workdir().name)
        group = self._start(self._workdir(), f"{index:04d}", is_cold=is_cold)
        with contextlib.closing(group):
            if not is_calm and group.wait_for(phase, step):
                time.sleep(moment * self._durations[phase])
                was = group.phase()
                hit = group.send(signal.Signals[number], targets)
            since = time.monotonic()
            codes = group.end(self._bound if hit and not is_cold else _PATIENCE)
            seconds = time.monotonic() - since
        if hit:
            self._write(
                kind="kill",
                start=index,
                phase=was,
                wanted=phase,
                is_cold=is_cold,
                step=group.progress.step,
                signal=number,
                hit=hit,
                codes=codes,
                seconds=round(seconds, 2),
                problems=_problems(group, codes),
            )
        elif any(codes):  # a heartbeat that came too late on a busy machine, for one
            words = [group.last_words(index) for index in range(len(codes))]
            problems = _problems(group, codes)
            self._write(kind="accident", start=index, codes=codes, words=words, problems=problems)
            if problems or len(self.entries("accident")) > _MAX_ACCIDENTS:
                raise RuntimeError(f"a run that nobody disturbs must end, got {codes}: {words}")
        return not any(codes)

    def _compare(self) -> None:
        """Compares the current run with the undisturbed one; one that is equal is removed."""
        workdir = self._workdir()
        problems = runs.differences(workdir, self._reference)
        if not problems:
            shutil.rmtree(workdir)
        else:
            workdir.rename(workdir.with_name(f"unequal_{workdir.name}"))
        self._write(kind="run", run=workdir.name, problems=problems)

    def _write(self, **entry: Any) -> None:
        self._diary.add(entry)
        if entry["kind"] != "start":
            print(json.dumps(entry), flush=True)


def _problems(group: phases.Group, codes: list[int | str]) -> list[str]:
    """Codes by which nobody can tell that the same command goes on."""
    return [
        f"process {index} ended by {code}: {group.last_words(index)}"
        for index, code in enumerate(codes)
        if code not in (0, *RESUMABLE)
    ]


def _that_ended_it(kills: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those before whose signal the run did not come to its own end."""
    return [entry for entry in kills if any(entry["codes"])]


def summary(folder: pathlib.Path) -> tuple[str, bool]:
    """Returns a table of what happened below a folder, and whether nothing was lost."""
    lines, is_good = [], True
    for stage, entries in diary.read_all(folder):
        kills = [entry for entry in entries if entry["kind"] == "kill"]
        ends = [entry for entry in entries if entry["kind"] == "run"]
        bad = [entry for entry in entries if entry.get("problems")]
        accidents = sum(entry["kind"] == "accident" for entry in entries)
        is_good = is_good and not bad
        equal = sum(not entry["problems"] for entry in ends)
        seconds = [entry["seconds"] for entry in kills] or [0.0]
        lines.append(
            f"{stage}: {len(_that_ended_it(kills))} kills (of {len(kills)} signals, the "
            f"others came too late), {equal} of {len(ends)} runs bit-equal; ended "
            f"within {statistics.median(seconds):.1f} s (median), {max(seconds):.1f} s (longest); "
            f"{accidents} accidents that nobody meant"
        )
        for key in ("phase", "signal", "hit", "codes"):
            values = [str(entry[key]) for entry in kills]
            counts = {value: values.count(value) for value in sorted(set(values))}
            lines.append(f"  {key}: " + ", ".join(f"{name} {n}" for name, n in counts.items()))
        lines += [f"  PROBLEM {json.dumps(entry)}" for entry in bad]
    return "\n".join(lines), is_good


def main() -> int:
    """The program; returns 1 where something was lost."""
    parser = diary.make_parser(__doc__)
    add = parser.add_argument
    add("--stage", choices=runs.STAGES, default="", help="that is trained")
    add("--processes", type=int, default=2, help="that train it, with a device each")
    add("--kills", type=int, default=34, help="of the stage, those of before counted")
    add("--heartbeat_seconds", type=int, default=10, help="of the runs")
    add("--bound", type=float, default=240, help="seconds from a kill to the end of every process")
    given = parser.parse_args()
    heeding.heed_signals()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # takes them along
    if given.stage and not given.summary:
        kills = Kills(
            given.folder.absolute(),
            given.stage,
            num_processes=given.processes,
            heartbeat_seconds=given.heartbeat_seconds,
            bound=given.bound,
        )
        kills.go_on(given.kills)
    return diary.tell(summary, given.folder)


if __name__ == "__main__":
    sys.exit(main())
