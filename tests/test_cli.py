# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""f3tok's errors: one sentence, exit code 1, nothing written. That it works is tests/test_readme.py's."""

import pytest

from f3tok_jax import cli


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["info"], "must be the work folder of a run"),
        (["encode", "speech.wav", "out.npz"], "must be the work folder of a run"),
        (
            ["decode", "missing.npz", "out.wav"],
            "must be an .npz that f3tok encode wrote, got no such file",
        ),
    ],
)
def test_errors_are_one_sentence(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*arguments, "--model", "nowhere"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("f3tok: ") and words in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["transcribe"])
    assert "invalid choice" in capsys.readouterr().err
