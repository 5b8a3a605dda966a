# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The list of mutants stays true: their text is in the tree, and their tests are."""

import pathlib

import pytest

from tests.support import mutants
from tests.support import mutations

_ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize("mutant", mutations.ALL, ids=lambda mutant: mutant.what)
def test_every_mutant_can_be_made_and_has_tests(mutant):
    text = (_ROOT / mutant.file).read_text(encoding="utf-8")
    compile(mutant.applied_to(text), mutant.file, "exec")
    assert mutant.tests and all((_ROOT / test).is_file() for test in mutant.tests)


def test_a_mutant_whose_text_is_gone_is_refused():
    mutant = mutations.Mutant("a.py", "x is y", "x = 1", "x = y", ())
    assert mutant.applied_to("x = 1\n") == "x = y\n"
    for text in ("", "x = 1\nx = 1\n"):
        with pytest.raises(ValueError, match=r"'x is y' wants the text 'x = 1' once in a.py"):
            mutant.applied_to(text)


@pytest.mark.parametrize(
    "body, verdict",
    [
        ("assert one() == 1", "killed"),
        ("assert one()", "SURVIVED"),
        ("assert one() == 3", "BROKEN"),
        ("(", "BROKEN"),
    ],
)
def test_a_verdict_is_what_the_tests_say(tmp_path, body, verdict):
    (tmp_path / "made.py").write_text("def one():\n    return 1\n")
    (tmp_path / "test_made.py").write_text(f"from made import one\ndef test_one():\n    {body}\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow: x\n")
    mutant = mutations.Mutant("made.py", "two", "return 1", "return 2", ("test_made.py",))
    said, by = mutants._run(tmp_path, mutant)
    assert said == verdict and by.startswith("test_made.py::test_one") == (verdict == "killed")
    assert (tmp_path / "made.py").read_text().endswith("return 1\n")
