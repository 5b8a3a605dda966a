# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Files that nobody wrote are accepted or refused in one sentence; and what would not be, shows."""

import collections
import sys

import pytest

from data_pipelines.records import atomic
from tests.fuzz import mutations
from tests.fuzz import run
from tests.fuzz import targets

# Of targets of which a case takes longer than a few milliseconds.
_FEWER = {"report": 20, "config": 50, "metadata": 50, "language_model": 50, "audio": 80}


@pytest.mark.parametrize("name", targets.TARGETS)
def test_what_nobody_wrote_is_accepted_or_refused_in_a_sentence(name, tmp_path):
    target = targets.TARGETS[name](tmp_path)
    target.read()
    counts, findings = collections.Counter(), []
    for number in range(_FEWER.get(name, 100)):
        target.write(run.generator(name, 1, number))
        outcome, what, _ = run.judged(target)
        counts[outcome] += 1
        findings += [(number, what)] if outcome in run.FINDINGS else []
    assert not findings
    assert counts[run.ACCEPTED] and (counts[run.REFUSED] or name == "report")  # which notes damage


@pytest.mark.slow
@pytest.mark.parametrize("name", targets.TARGETS)
def test_thousands_of_them(name, tmp_path):
    assert run.main([f"--target={name}", "--cases=5000", f"--keep={tmp_path}"]) == 0


@pytest.mark.parametrize("name", ["records", "tables", "manifest"])
def test_a_case_is_made_again_without_those_before_it(name, tmp_path):
    def made(number: int) -> list[bytes]:
        target.write(run.generator(name, 3, number))
        return [path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()]

    target = targets.TARGETS[name](tmp_path)
    wanted = [made(number) for number in range(30)]
    for number in reversed(range(30)):
        assert made(number) == wanted[number]


_MISBEHAVING = """
import os, pathlib, random, signal, sys, time
sys.path.insert(0, {root!r})
from tests.fuzz import run, target as target_lib, targets

def make(folder):
    number = 0

    def write(rng):
        nonlocal number
        number = next(i for i in range(100) if rng.getstate() == state(i))

    def state(number):
        return run.generator("bad", 0, number).getstate()

    def read():
        if number == 3:
            raise KeyError("surprise")
        if number == 4:
            time.sleep(60)
        if number == 5:
            os.kill(os.getpid(), signal.SIGSEGV)
        if number == 6:
            bytearray(2**34)
        if number == 7:
            (folder / {partial!r}).write_bytes(b"x")
        if number == 8:
            raise ValueError("a\\x1b[2Jb " + "c" * 10**6)

    return target_lib.Target(write, read, ())

targets.TARGETS["bad"] = make
sys.exit(run.main())
"""


def test_what_must_not_be_is_found(tmp_path, monkeypatch, capsys):
    script, partial = tmp_path / "run.py", atomic.partial_of(tmp_path / "a").name
    script.write_text(_MISBEHAVING.format(root=str(run._ROOT), partial=partial))
    monkeypatch.setattr(run, "PROGRAM", [sys.executable, str(script)])
    monkeypatch.setitem(targets.TARGETS, "bad", None)
    assert run.main(["--target=bad", "--cases=10", "--seconds=2", "--memory=2"]) == 1
    said = capsys.readouterr().out
    assert "4 accepted, 1 refused, 2 traceback, 1 hang, 1 crash, 1 left" in said
    for what in ("KeyError", "MemoryError", "hang: exit code 1", "crash: exit code -11"):
        assert said.count(what) == 1, said
    assert "cases 4\n" in said and "cases 5\n" in said


def test_mutations_change_what_they_are_given():
    data = b'{"a": [1, {"b": "text"}], "c": 0.5, "d": true}'
    rngs = [run.generator("mutations", 0, number) for number in range(200)]
    changed = {mutations.of_json(data, rng) for rng in rngs}
    assert len(changed) > 150
