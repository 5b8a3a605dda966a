# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
r"""Reads thousands of files that nobody wrote, and counts what became of them.

    python tests/fuzz/run.py --target=latents --cases=5000 --seed=0 [--keep=DIR] [--case=N]

Every case is read as a program reads it: it is accepted, or refused in one sentence. What raises
anything else, takes longer than --seconds or more than --memory, or ends its process is a finding;
--keep keeps the first files of each. A case is a function of target, seed and number: --case makes
one again. The cases run in a process of their own, and after one that ended it, in another.

Exit codes: 0 no findings, 1 findings.
"""

import argparse
import collections
from collections.abc import Sequence
import contextlib
import faulthandler
import io
import json
import os
import pathlib
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback

_ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [] if str(_ROOT) in sys.path else [str(_ROOT)]

from data_pipelines import command  # noqa: E402
from tests.fuzz import target as target_lib  # noqa: E402
from tests.fuzz import targets  # noqa: E402

ACCEPTED, REFUSED = "accepted", "refused"
TRACEBACK, HANG, CRASH, LEFT = "traceback", "hang", "crash", "left"
PROGRAM = [sys.executable, __file__]  # in which the cases run
OUTCOMES = (ACCEPTED, REFUSED, TRACEBACK, HANG, CRASH, LEFT)
FINDINGS = OUTCOMES[2:]

_MAX_SENTENCE = 2100  # characters; what is longer tells nobody anything
_STDERR = 2**16


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--target", required=True, choices=sorted(targets.TARGETS))
    add("--cases", type=int, default=5000)
    add("--seed", type=int, default=0)
    add("--first", type=int, default=0, help="number of the first case")
    add("--case", type=int, help="one case, here, with what it says")
    add("--seconds", type=float, default=60.0, help="that a case may take")
    add("--memory", type=float, default=4.0, help="GiB that cases may take beyond the programs")
    add("--keep", type=pathlib.Path, help="folder for the files of findings")
    add("--inside", type=pathlib.Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.inside:
        return _inside(given)
    if given.case is not None:
        return _show(given)
    started = time.monotonic()
    counts, findings = run(given)
    line = ", ".join(f"{counts[name]} {name}" for name in OUTCOMES)
    print(f"{given.target}: {given.cases} cases of seed {given.seed}: {line}", end="")
    print(f" ({time.monotonic() - started:.0f} s)")
    for what, numbers in findings.items():
        print(f"  {len(numbers)} x {what}, cases {', '.join(map(str, numbers[:5]))}")
    return int(any(counts[name] for name in FINDINGS))


def run(given: argparse.Namespace) -> tuple[collections.Counter, dict[str, list[int]]]:
    """Runs the cases in processes that may end; returns outcome -> count, and finding -> cases."""
    counts, findings = collections.Counter(), collections.defaultdict(list)
    first, end = given.first, given.first + given.cases
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder) / "log"
        while first < end:
            log.write_text("")
            code, said = _start(given, first, end, log)
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            begun = [line["begun"] for line in lines if "begun" in line]
            for line in lines:
                if "what" in line:
                    findings[line["what"]].append(line["case"])
                counts.update([line["outcome"]] if "outcome" in line else [])
            if code == 0:
                break
            outcome = HANG if "Timeout (" in said else CRASH
            if not begun or code == 1 and outcome == CRASH:
                raise RuntimeError(f"the cases of {given.target} are not made: {said}")
            counts[outcome] += 1
            findings[f"{outcome}: exit code {code}, {_last_place(said)}"].append(begun[-1])
            first = begun[-1] + 1
    return counts, dict(findings)


def _start(given: argparse.Namespace, first: int, end: int, log: pathlib.Path) -> tuple[int, str]:
    flags = [f"--{name}={getattr(given, name)}" for name in ("target", "seed", "seconds", "memory")]
    flags += [f"--first={first}", f"--cases={end - first}", f"--inside={log}"]
    flags += [f"--keep={given.keep}"] if given.keep else []
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run([*PROGRAM, *flags], stderr=subprocess.PIPE, env=environment)
    return done.returncode, done.stderr[-_STDERR:].decode(errors="replace")


def _inside(given: argparse.Namespace) -> int:
    """Runs cases in this process, and logs each before it begins and when it has ended."""
    with tempfile.TemporaryDirectory() as name, open(given.inside, "a", buffering=1) as log:
        folder = pathlib.Path(name)
        target = targets.TARGETS[given.target](folder)
        target.read()  # Imports, compiles, and fails here if it cannot read what is whole.
        _limit_memory(given.memory)
        before, seen = _files(folder), set()
        for number in range(given.first, given.first + given.cases):
            log.write(json.dumps({"begun": number}) + "\n")
            target.write(generator(given.target, given.seed, number))
            faulthandler.dump_traceback_later(given.seconds, exit=True)
            outcome, what, _ = judged(target)
            faulthandler.cancel_dump_traceback_later()
            if outcome in (ACCEPTED, REFUSED) and (left := _partials(_files(folder) - before)):
                outcome, what = LEFT, f"{LEFT}: {sorted(left)[0]}"
                before |= left
            line = {"case": number, "outcome": outcome}
            log.write(json.dumps(line | ({"what": what} if outcome in FINDINGS else {})) + "\n")
            if outcome in FINDINGS and what not in seen and given.keep:
                _keep(target, given.keep / f"{given.target}_{given.seed}_{number}")
            seen.add(what)
    return 0


def _show(given: argparse.Namespace) -> int:
    """Makes one case again, and prints what comes of it."""
    with tempfile.TemporaryDirectory() as name:
        target = targets.TARGETS[given.target](pathlib.Path(name))
        target.read()
        target.write(generator(given.target, given.seed, given.case))
        if given.keep:
            _keep(target, given.keep / f"{given.target}_{given.seed}_{given.case}")
        outcome, what, text = judged(target)
    print(outcome, what, text, sep="\n")
    return int(outcome in FINDINGS)


def generator(target: str, seed: int, number: int) -> random.Random:
    """Of a case: nothing that was before it matters."""
    return random.Random(f"{target} {seed} {number}")


def judged(target: target_lib.Target) -> tuple[str, str, str]:
    """What becomes of a case: its outcome, what tells it from others, and all that was said."""
    said, printed = io.StringIO(), io.StringIO()
    parser = command.make_parser("python -m fuzz", "Reads what it is given.")
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
            code = command.run(parser, lambda given: target.read() and None, [])
    except BaseException as error:  # what a program would end with
        return TRACEBACK, _kind(error), traceback.format_exc()[-4000:]
    text = said.getvalue()
    if code == command.EXIT_DONE:
        return ACCEPTED, "", text
    lines = text.strip().splitlines()
    is_sentence = len(lines) >= 1 and len(lines[-1]) <= _MAX_SENTENCE and lines[-1].isprintable()
    if code != command.EXIT_REFUSED or not is_sentence:
        return TRACEBACK, f"exit code {code}, {len(lines)} lines, {text[:80]!r}", text
    return REFUSED, "", text


def _kind(error: BaseException) -> str:
    """What an error is, and the last place of ours that it came through."""
    places = traceback.extract_tb(error.__traceback__)
    ours = [place for place in places if place.filename.startswith(str(_ROOT))] or places
    place = ours[-1]
    file = pathlib.Path(place.filename).name
    return f"{type(error).__name__} in {file}:{place.lineno} {place.name}: {str(error)[:80]!r}"


def _last_place(said: str) -> str:
    """The innermost frames of ours in what faulthandler wrote."""
    places = re.findall(rf'File "{re.escape(str(_ROOT))}/([^"]+)", line (\d+) in (\w+)', said)
    return ", ".join(":".join(place) for place in places[:2]) or said[-200:]


def _files(folder: pathlib.Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def _partials(names: set[str]) -> set[str]:
    return {name for name in names if ".tmp" in name or "partial" in name}


def _keep(target: target_lib.Target, folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in target.kept:
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())


def _limit_memory(gibibytes: float) -> None:
    """What is asked for beyond it is a MemoryError."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + int(gibibytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    sys.exit(main())
