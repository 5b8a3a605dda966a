# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Errors that a test must notice: each is made in a copy of the tree, and its tests are run there.

    python -m tests.support.mutants                 all of them, a minute or two each on two cores
    python -m tests.support.mutants --only=3,17     some, by their numbers
    python -m tests.support.mutants --list          their numbers, nothing run

Chosen by hand, each a mistake that is easily made and changes no shape. A mutant is killed when a test
fails that passes without it, and survives when all pass: then a test is missing. Exit code 1 where one
survived, or where the tests gave no verdict.
"""

import argparse
import functools
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from tests.support import mutations

_ROOT = pathlib.Path(__file__).parents[2]
_KILLED, _SURVIVED, _BROKEN = "killed", "SURVIVED", "BROKEN"
_PASSED, _FAILED = 0, 1  # pytest's exit codes; any other is no verdict: a usage error, a signal
_LEFT_BEHIND = (".git", ".venv", "__pycache__", "*.egg-info", ".*_cache")
_SECONDS = 1200  # for a mutant's tests


def main(arguments: list[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    numbers = range(1, len(mutations.ALL) + 1)
    parser.add_argument("--only", type=_numbers, default=numbers, help="such as 3,17")
    parser.add_argument("--list", action="store_true", help="run nothing")
    given = parser.parse_args(arguments)
    if unknown := set(given.only) - set(numbers):
        parser.error(f"--only must be of 1 to {len(mutations.ALL)}, got {sorted(unknown)}")
    if given.list:
        for number in given.only:
            mutant = mutations.ALL[number - 1]
            print(f"{number:3} {mutant.file}: {mutant.what}")
        return 0
    with tempfile.TemporaryDirectory(prefix="mutants_") as folder:
        copy = pathlib.Path(folder) / "tree"
        shutil.copytree(_ROOT, copy, ignore=_left_behind, symlinks=True)
        return _run_all(copy, given.only)


def _left_behind(folder: str, names: list[str]) -> set[str]:
    """What is not the project's source: below the root a folder of runs, too."""
    left = shutil.ignore_patterns(*_LEFT_BEHIND)(folder, names)
    return left | ({"runs"} if pathlib.Path(folder) == _ROOT else set())


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _run_all(tree: pathlib.Path, numbers: list[int]) -> int:
    verdicts = []
    print("| | mutant | verdict | seconds | by |\n| --- | --- | --- | --- | --- |", flush=True)
    for number in numbers:
        mutant = mutations.ALL[number - 1]
        start = time.monotonic()
        verdict, by = _run(tree, mutant)
        verdicts.append(verdict)
        seconds = time.monotonic() - start
        place = mutant.file.removeprefix("f3tok_jax/")
        print(
            f"| {number} | {place}: {mutant.what} | {verdict} | {seconds:.0f} | {by} |", flush=True
        )
    print(f"\n{verdicts.count(_KILLED)} of {len(verdicts)} killed")
    return int(any(verdict != _KILLED for verdict in verdicts))


def _run(tree: pathlib.Path, mutant: mutations.Mutant) -> tuple[str, str]:
    """The verdict on one mutant, and the test that gave it or what stood in the way."""
    verdict, by = _without(tree, mutant.tests)
    if verdict != _SURVIVED:
        return _BROKEN, f"without it, too: {by}"
    path = tree / mutant.file
    text = path.read_text(encoding="utf-8")
    path.write_text(mutant.applied_to(text), encoding="utf-8")
    try:
        return _tested(tree, mutant.tests)
    finally:
        path.write_text(text, encoding="utf-8")


@functools.cache
def _without(tree: pathlib.Path, tests: tuple[str, ...]) -> tuple[str, str]:
    """What the tests say of the tree as it is: only what passes can be failed by a mutant."""
    return _tested(tree, tests)


def _tested(tree: pathlib.Path, tests: tuple[str, ...]) -> tuple[str, str]:
    """What the tests say of the tree, and the one that failed or what stood in the way."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--durations=0", "--tb=no", "-rf"]
    try:
        done = subprocess.run(
            [*command, "-m", "not slow", "-p", "no:cacheprovider", *tests],
            cwd=tree,
            # Bytecode of another text of one size, written in the same second, would be taken for it.
            env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return _BROKEN, f"no verdict in {_SECONDS} s"
    if done.returncode == _PASSED:
        return _SURVIVED, ""
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    if done.returncode == _FAILED and failed:
        return _KILLED, failed[0].split(" ")[1].rsplit("/", 1)[-1]
    # With -x, what cannot be collected or set up ends like a test that fails.
    said = " ".join((done.stdout + done.stderr).split())[-200:]
    return _BROKEN, f"exit {done.returncode}: {said}"


if __name__ == "__main__":
    sys.exit(main())
