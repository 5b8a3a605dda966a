# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The help of every program: complete without a run, exit code 0, and no wait for JAX."""

import argparse
import ast
import importlib
import os
import pathlib
import subprocess
import sys

import pytest

from data_pipelines import command

_ROOT = pathlib.Path(__file__).parents[2]
_HEAVY = (
    "jax",
    "flax",
    "optax",
    "orbax",
    "grain",
    "tensorflow",
    "tensorflow_datasets",
    "matplotlib",
)


def _programs() -> list[str]:
    """Every module of ours that runs as a program."""
    files = [path for name in command.PACKAGES for path in sorted((_ROOT / name).rglob("*.py"))]
    return [
        ".".join(path.relative_to(_ROOT).with_suffix("").parts)
        for path in files
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    ]


def _flags(parser: argparse.ArgumentParser) -> set[str]:
    """Every flag that is shown."""
    return {
        name
        for action in parser._actions
        if action.help is not argparse.SUPPRESS
        for name in action.option_strings
    }


@pytest.mark.parametrize("program", _programs())
def test_help_is_complete_and_does_not_wait_for_jax(program, monkeypatch):
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", program, "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
    )
    assert shown.returncode == 0, shown.stderr[-2000:]
    imported = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
    assert "argparse" in imported and not imported & set(_HEAVY)
    parsers = []
    monkeypatch.setattr(command, "run", lambda parser, *_: parsers.append(parser))
    module = importlib.import_module(program)
    module.main([])
    flags = _flags(parsers[0])
    assert flags > {"--help"} or "{info," in shown.stdout
    assert all(flag in shown.stdout for flag in flags)
    assert module.__doc__ == ast.get_docstring(
        ast.parse(pathlib.Path(module.__file__).read_text()), clean=False
    )
    *_, last = module.__doc__.strip().split("\n\n")
    assert "xit codes" in last or "xit codes" in module.__doc__, "the exit codes are said"
    name = "f3tok " if program.endswith("cli") else f"python -m {program} "
    assert name in module.__doc__, "an example is given"
