# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""f3tok's errors: one sentence, exit code 1, nothing written.

That it works is tests/journeys/test_readme.py's.
"""

import json
import shutil

import numpy as np
import pytest
import soundfile

from f3tok_jax import cli
from tests.support import tiny_models


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
    assert cli.main(["compose"]) == 1
    assert "invalid choice" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["encode", "represent"])
def test_latents_are_not_written_over_a_recording(verb, tmp_path, capsys):
    recording = tmp_path / "two.wav"
    soundfile.write(recording, np.zeros(100), 16_000)
    before = recording.read_bytes()
    assert cli.main([verb, "one.wav", str(recording)]) == 1
    assert "output: must end in .npz, got" in capsys.readouterr().err
    assert recording.read_bytes() == before


@pytest.fixture
def damaged(tmp_path):
    """A run folder whose newest checkpoint is damaged."""
    tiny_models.write_run(tmp_path / "run")
    tiny_models.add_damaged_step(tmp_path / "run")
    return tmp_path / "run"


def test_a_damaged_newest_checkpoint_is_said_and_the_one_before_is_used(
    damaged, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    soundfile.write("in.wav", 0.1 * np.random.default_rng(0).normal(size=3_000), 16_000)
    outputs = []
    for arguments in (
        ["info"],
        ["encode", "in.wav", "out.npz"],
        ["decode", "out.npz", "new/out.wav"],
    ):
        assert cli.main([*arguments, "--model", str(damaged)]) == 0
        captured = capsys.readouterr()
        assert "checkpoint of step 5 is refused" in captured.err
        outputs.append(captured.out)
    assert json.loads(outputs[0])["step"] == 3
    assert soundfile.info("new/out.wav").frames == 3_000


def test_no_whole_checkpoint_is_one_sentence(damaged, capsys):
    shutil.rmtree(damaged / "checkpoints" / "3")
    assert cli.main(["info", "--model", str(damaged)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "no checkpoint asked for" in captured.err.splitlines()[-1]
    assert "Traceback" not in captured.err
