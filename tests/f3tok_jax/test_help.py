# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The help of every program: complete without a run, exit code 0, and no wait for JAX."""

import argparse
import importlib
import os
import pathlib
import subprocess
import sys

import pytest

from data_pipelines import command
from f3tok_jax import cli

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
    """Every module of ours that runs as a program; not what goes into exported folders."""
    files = [path for name in command.PACKAGES for path in sorted((_ROOT / name).rglob("*.py"))]
    files = [path for path in files if path.parent.name != "torch_model"]
    return [
        ".".join(path.relative_to(_ROOT).with_suffix("").parts)
        for path in files
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    ]


# Flags and arguments that name files, and have "~" expanded.
_PATHS = {
    *("config", "workdir", "shards", "test_shards", "fit_shards", "classifier_shards", "runs"),
    *("tables", "input", "output", "hlo", "model", "prompt", "metadata", "data_dir"),
    *("compilation_cache", "files", "output_dir"),
}


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Every flag and argument that is shown."""
    return [action for action in parser._actions if action.help is not argparse.SUPPRESS]


def _parser_of(module, monkeypatch) -> argparse.ArgumentParser:
    parsers = []
    monkeypatch.setattr(command, "run", lambda parser, *_, **__: parsers.append(parser))
    module.main([])
    return parsers[0]


def _check(actions: list[argparse.Action], shown: str) -> None:
    """All flags are shown, and those that name files know where the home is."""
    for action in actions:
        assert all(name in shown for name in action.option_strings)
        names = {name.lstrip("-") for name in action.option_strings} or {action.dest}
        if names & _PATHS:
            assert str(action.type("~/new")) == os.path.expanduser("~/new"), action


@pytest.mark.parametrize("program", _programs())
def test_help_is_complete_and_does_not_wait_for_jax(program, monkeypatch):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", program, "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported and not imported & set(_HEAVY)
    module = importlib.import_module(program)
    actions = _actions(_parser_of(module, monkeypatch))
    assert len(actions) > 1
    _check(actions, done.stdout)
    paragraphs = [" ".join(part.split()) for part in module.__doc__.split("\n\n")]
    shown = " ".join(done.stdout.split())
    assert all(paragraph in shown for paragraph in paragraphs)
    assert any(paragraph.startswith("Exit codes: 0 ") for paragraph in paragraphs)
    example = "f3tok info " if program.endswith("cli") else f"python -m {program} "
    assert any(paragraph.startswith(example) for paragraph in paragraphs)


@pytest.mark.parametrize(
    "verb", ["info", "encode", "decode", "represent", "transcribe", "generate"]
)
def test_help_of_a_verb_is_complete(verb, monkeypatch, capsys):
    (verbs,) = [
        action
        for action in _actions(_parser_of(cli, monkeypatch))
        if isinstance(action, argparse._SubParsersAction)
    ]
    with pytest.raises(SystemExit) as ended:
        verbs.choices[verb].parse_args(["--help"])
    assert ended.value.code == 0
    actions = _actions(verbs.choices[verb])
    shown = capsys.readouterr().out
    _check(actions, shown)
    assert "--model" in shown
