# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What f3tok does with one input and with many, by a run that can do all of it."""

import pathlib

import numpy as np
import pytest
import soundfile

from f3tok_jax.inference import jobs
from f3tok_jax.inference import latent_file
from f3tok_jax.inference import verbs
from tests.support import tiny_runs


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A generation run, loaded once."""
    return verbs.Model(tiny_runs.write_chain(tmp_path_factory.mktemp("chain"))["generation"])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working folder, with two recordings."""
    monkeypatch.chdir(tmp_path)
    pathlib.Path("in").mkdir()
    for name, count in (("a.wav", 3_000), ("b\tc.wav", 5_000)):
        sound = 0.1 * np.random.default_rng(count).normal(size=count)
        soundfile.write(f"in/{name}", sound, 16_000)
    return tmp_path


def test_text_of_one_is_text_and_of_many_a_table(model, capsys):
    texts = []
    for name in ("in/a.wav", "in/b\tc.wav"):
        assert verbs.transcribe(jobs.one(name), model, task="transcription") == 0
        texts.append(capsys.readouterr().out)
    pathlib.Path("in/bad.wav").write_bytes(b"RIFF nonsense")
    assert verbs.transcribe(jobs.many(["in"]), model, task="transcription") == 1
    captured = capsys.readouterr()
    rows = [line.split("\t") for line in captured.out.splitlines()]
    assert rows == [
        [name, " ".join(text.split())] for name, text in zip(["in/a.wav", "in/b c.wav"], texts)
    ]
    refusal, summary = captured.err.splitlines()[-2:]
    assert refusal.startswith("in/bad.wav cannot be encoded")
    assert summary == "2 of 3 inputs done, 1 refused"


def test_a_task_that_was_not_trained_is_refused_once(model, capsys):
    with pytest.raises(ValueError, match="task must be one of"):
        verbs.transcribe(jobs.many(["in"]), model, task="juggling")
    assert capsys.readouterr().out == ""


def test_representations_are_files_that_no_decoder_takes(model, capsys):
    plan = jobs.many(["in"], "out", "latents", ending=".npz")
    assert verbs.represent(plan, model, channels="mix") == 0
    assert latent_file.load("out/a.npz").kind == "representations"
    with pytest.raises(ValueError, match="only latents are understood here"):
        verbs.decode(jobs.one("out/a.npz", "a.wav", "sound"), model, ending=".wav")
    assert not pathlib.Path("a.wav").exists()


def test_sound_is_generated_into_a_file_or_a_pipe(model, capfdbinary):
    options = dict(task=None, sampler={}, max_seconds=0.3, seed=0)

    def generate(output, *, stream=False, force=False):
        plan = jobs.one("", output, "sound", force=force)
        return verbs.generate(plan, model, "a", stream=stream, **options)

    assert generate("a.wav") == 0
    whole = pathlib.Path("a.wav").read_bytes()
    assert b"a.wav: " in capfdbinary.readouterr().out
    assert generate("a.wav", stream=True, force=True) == 0
    assert pathlib.Path("a.wav").read_bytes() == whole
    capfdbinary.readouterr()
    assert generate("-") == 0
    assert capfdbinary.readouterr().out == whole
    with pytest.raises(ValueError, match="--stream must write a file"):
        generate("-", stream=True)
