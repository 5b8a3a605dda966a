# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Fills the disk of a run at random moments, and lets the run go on once there is room.

    python -m tests.reliability.disks --run=toy --times=20 --folder=DIR
    python -m tests.reliability.disks --summary --folder=DIR

The disk is a tmpfs of this program's own, in a mount namespace of its own. From a moment on that is
drawn evenly over a run's steps, its start among them, another file takes whatever becomes free. The run must end by 4
within a minute and say one sentence, without a traceback; the steps that it has saved must be
whole; and on a larger disk the same command must end with every bit and figure of a run that nobody
disturbed. What happened is a line each in DIR/<run>/log.jsonl; the same command goes on there.
"""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
from typing import Any

import numpy as np

from f3tok_jax.runs import saved_states
from tests.reliability import diary
from tests.reliability import runs
from tests.support import metrics

NAMESPACE = ("unshare", "--mount", "--map-root-user")
_INSIDE = "RELIABILITY_INSIDE"
_SMALL, _LARGE = "24m", "256m"
_BLOCK = bytes(4096)
_STEP_SECONDS = 0.3  # of the toy
_BOUND = 60.0  # seconds from a full disk to the end of the run


class Disk:
    """A small disk at `place` that can be filled, and made larger."""

    def __init__(self, place: pathlib.Path):
        self._others = place / "others"
        self._place = place
        place.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> "Disk":
        _mount("-t", "tmpfs", "-o", f"size={_SMALL}", "none", str(self._place))
        return self

    def __exit__(self, *error: Any) -> None:
        subprocess.run(["umount", str(self._place)], check=True)

    def fill(self) -> None:
        """Takes whatever is free."""
        with contextlib.suppress(OSError), self._others.open("ab", 0) as file:
            while True:
                file.write(_BLOCK)

    def enlarge(self) -> None:
        """Makes room; what filled the disk stays."""
        _mount("-o", f"remount,size={_LARGE}", str(self._place))


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


class Disks:
    """The full disks of one kind of run, below a folder."""

    def __init__(self, folder: pathlib.Path, stage: str):
        """Opens the folder, and trains the undisturbed run, once.

        Args:
            folder: of all kinds of run.
            stage: name of one, or "toy".
        """
        self._folder, self._stage = folder / stage, stage
        self._inputs = runs.Inputs(folder / "inputs")
        self._diary = diary.Diary(self._folder)
        self._reference = self._folder / "reference"
        facts = self._folder / "reference.json"
        if not facts.exists():
            shutil.rmtree(self._reference, ignore_errors=True)
            since = time.monotonic()
            code, said = self._run(self._reference)
            if code:
                raise RuntimeError(f"the undisturbed run must end, got {code}: {said}")
            # What is not a step is the start.
            seconds = time.monotonic() - since - runs.NUM_STEPS * _STEP_SECONDS
            facts.write_text(json.dumps({"seconds": seconds}))
        self._seconds = json.loads(facts.read_text())["seconds"]

    def go_on(self, count: int) -> None:
        """Fills disks until there were so many that ended a run."""
        for attempt in range(3 * count):
            done = len(self._diary.entries())
            if done >= count:
                return
            entry = self.fill_once(np.random.default_rng([attempt, done]))
            if entry is not None:
                self._diary.add(entry)
                print(json.dumps(entry), flush=True)

    def fill_once(self, rng: np.random.Generator) -> dict[str, Any] | None:
        """Fills a disk once; returns what happened, None where the run was over before."""
        place = self._folder / "disk"
        with Disk(place) as disk:
            run, step, moment = place / "run", int(rng.integers(runs.NUM_STEPS + 1)), rng.random()
            entry = self._starve(disk, run, step, moment)
            if entry is None:
                return None
            steps = saved_states.steps(str(run))
            entry |= {"saved": steps}
            entry["problems"] += [
                f"step {step} is damaged" for step in steps if not _is_whole(run, step)
            ]
            disk.enlarge()
            code, said = self._run(run)
            begun = f"resuming this run from its checkpoint of step {max(steps, default=0)}\n"
            if code or "Traceback" in said:
                entry["problems"].append(f"resumed, it ended by {code}: {said[-500:]}")
            elif steps and begun not in said:
                entry["problems"].append(f"it did not go on from step {steps[-1]}")
            else:
                entry["problems"] += runs.differences(run, self._reference)
        return entry

    def _starve(
        self, disk: Disk, run: pathlib.Path, step: int, moment: float
    ) -> dict[str, Any] | None:
        """Fills the disk at a part of the step after `step`, or of the start, until the run ends."""
        path = self._folder / "said.txt"
        with path.open("wb") as out:
            process = subprocess.Popen(**self._command(run), stdout=out, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None and _last_step(run) < step:
                time.sleep(0.002)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moment * (_STEP_SECONDS if step else self._seconds))
                return None
            since = time.monotonic()
            while process.poll() is None and time.monotonic() < since + _BOUND:
                disk.fill()
                time.sleep(0.01)
            code, seconds = process.poll(), time.monotonic() - since
        finally:
            process.kill()
            process.wait()
        if code == 0:  # all was written before
            return None
        said = path.read_text(errors="replace")
        sentences = [line for line in said.splitlines() if line.startswith("f3tok_jax.train: ")]
        problems = [] if code == 4 else [f"ended by {code}, wanted 4: {said[-500:]}"]
        problems += ["a traceback"] if "Traceback" in said else []
        problems += [] if len(sentences) == 1 else [f"{len(sentences)} sentences"]
        return {
            "after": step,
            "code": code,
            "seconds": round(seconds, 2),
            "said": sentences[-1:],
            "problems": problems,
        }

    def _command(self, run: pathlib.Path) -> dict[str, Any]:
        command = self._inputs.command(self._stage, run, self._folder / "cache")
        command["env"]["TOY_STEP_SECONDS"] = str(_STEP_SECONDS)
        return command

    def _run(self, run: pathlib.Path) -> tuple[int, str]:
        command = self._command(run)
        ended = subprocess.run(**command, capture_output=True, text=True, check=False)
        return ended.returncode, ended.stdout + ended.stderr


def _is_whole(run: pathlib.Path, step: int) -> bool:
    """Whether what a step holds is what was saved, by its fingerprints."""
    try:
        saved_states.verify(str(run), step)
    except (ValueError, OSError):
        return False
    return True


def _last_step(run: pathlib.Path) -> int:
    """The last step whose figures are written, 0 before."""
    with contextlib.suppress(OSError, IndexError):
        return metrics.read(run)[-1]["step"]
    return 0


def summary(folder: pathlib.Path) -> tuple[str, bool]:
    """Returns what happened below a folder, and whether nothing was lost."""
    lines, is_good = [], True
    for name, entries in diary.read_all(folder):
        bad = [entry for entry in entries if entry["problems"]]
        is_good = is_good and not bad
        seconds = max((entry["seconds"] for entry in entries), default=0.0)
        steps = [max(entry["saved"], default=0) for entry in entries]
        counts = ", ".join(f"{step}: {steps.count(step)}" for step in sorted(set(steps)))
        lines.append(
            f"{name}: {len(entries)} full disks, {len(entries) - len(bad)} ended by 4, "
            f"kept their steps and resumed bit-equal; the longest took {seconds:.1f} s; "
            f"newest step then ({counts})"
        )
        lines += [f"  PROBLEM {json.dumps(entry)}" for entry in bad]
    return "\n".join(lines), is_good


def main() -> int:
    """The program; returns 1 where something was lost."""
    parser = diary.make_parser(__doc__)
    add = parser.add_argument
    add("--run", choices=("toy", *runs.STAGES), default="", help="whose disk is filled")
    add("--times", type=int, default=20, help="that a disk ends a run, those of before counted")
    given = parser.parse_args()
    if given.run and not given.summary:
        if _INSIDE not in os.environ:
            program = [sys.executable, "-m", "tests.reliability.disks", *sys.argv[1:]]
            os.execvpe(NAMESPACE[0], [*NAMESPACE, *program], os.environ | {_INSIDE: "1"})
        Disks(given.folder.absolute(), given.run).go_on(given.times)
    return diary.tell(summary, given.folder)


if __name__ == "__main__":
    sys.exit(main())
