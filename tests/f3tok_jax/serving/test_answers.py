# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a run makes of sounds and texts: the same as its files, within limits, and nothing is kept."""

import base64
import io
import tempfile

import numpy as np
import pytest
import soundfile

from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.serving import answers as answers_lib
from tests.support import tiny_models
from tests.support import tiny_runs

_LIMITS = answers_lib.Limits(seconds=2.0, characters=5)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Stage -> run folder."""
    return tiny_runs.write_chain(tmp_path_factory.mktemp("chain"))


def _load(folder: str, said: list[str]) -> answers_lib.Answers:
    return answers_lib.Answers.load(folder, None, _LIMITS, moved={}, say=said.append)


@pytest.fixture(scope="module")
def said():
    """What the console is told."""
    return []


@pytest.fixture(scope="module")
def answers(chain, said):
    """Of a run that can do all of it."""
    return _load(chain["generation"], said)


@pytest.fixture(autouse=True)
def nothing_is_kept(tmp_path, monkeypatch):
    """Temporary files are made in a folder of their own, which is empty afterwards."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert list(tmp_path.iterdir()) == []


def _sound(count: int, *, rate: int = 16_000, channels: int = 1, kind: str = "WAV") -> bytes:
    values = 0.1 * np.random.default_rng(count).normal(size=(count, channels))
    file = io.BytesIO()
    soundfile.write(file, values, rate, format=kind)
    return file.getvalue()


def _read(text: str) -> tuple[np.ndarray, int]:
    return soundfile.read(io.BytesIO(base64.b64decode(text)), dtype="float32")


@pytest.mark.parametrize("kind, rate, channels", [("WAV", 16_000, 1), ("FLAC", 44_100, 2)])
def test_a_sound_comes_back_as_from_its_file(
    answers, chain, tmp_path_factory, kind, rate, channels
):
    sound = _sound(30_001, rate=rate, channels=channels, kind=kind)
    found = answers.reconstruct(sound)
    assert (found["seconds"], found["sample_rate"]) == (30_001 / rate, rate)
    made, made_rate = _read(found["sound"])
    assert (len(made), made_rate) == (30_001, rate)
    path = tmp_path_factory.mktemp("file") / "a"
    path.write_bytes(sound)
    run = tokenizer_lib.F3Tokenizer.from_pretrained(chain["autoencoder"])
    latents = run.encode_file(path)
    run.decode_file(latents, path.with_name("b.wav"))
    np.testing.assert_array_equal(made, soundfile.read(path.with_name("b.wav"), dtype="float32")[0])
    picture = found["latents"]
    shape = picture["frames"], picture["width"]
    assert shape == latents.rows[0].shape and picture["rate"] == 25.0
    values = np.frombuffer(base64.b64decode(picture["values"]), np.uint8).reshape(shape)
    drawn = (values.astype(np.float32) - 128) / 127 * picture["limit"]
    clipped = np.clip(latents.rows[0], -picture["limit"], picture["limit"])
    np.testing.assert_allclose(drawn, clipped, atol=0.51 * picture["limit"] / 127)
    assert values.min() >= 1


def test_silence_is_a_sound(answers):
    file = io.BytesIO()
    soundfile.write(file, np.zeros(8_000), 16_000, format="WAV")
    assert answers.reconstruct(file.getvalue())["seconds"] == 0.5


@pytest.mark.parametrize("content", [b"", b"RIFF nonsense", b"a text, which is no sound" * 9])
def test_what_is_no_sound_is_refused_without_a_path(answers, content):
    with pytest.raises(ValueError, match="^the sound cannot be encoded: ") as refusal:
        answers.reconstruct(content)
    assert "/" not in str(refusal.value)


def test_a_sound_that_is_too_long_is_refused_whatever_its_header_says(answers):
    assert answers.reconstruct(_sound(32_000))["seconds"] == 2.0
    long = _sound(32_001)
    with pytest.raises(answers_lib.TooMuch, match="the sound must be at most 2 s long, got more"):
        answers.reconstruct(long)
    with pytest.raises(answers_lib.TooMuch):
        answers.transcribe(long, "transcription")


def test_what_the_console_is_told_of_a_request_its_answer_says_too(answers, said):
    values = 0.1 * np.random.default_rng(0).normal(size=(8_000, 1))
    file = io.BytesIO()
    soundfile.write(file, np.concatenate([values, -values], axis=1), 16_000, format="WAV")
    found = answers.reconstruct(file.getvalue())
    assert "its channels cancel each other" in found["notes"][0] and found["notes"][0] == said[-1]
    assert answers.reconstruct(_sound(8_000))["notes"] == []


def test_texts_are_answered_and_become_sound(answers, chain):
    assert answers.questions[0] == "transcription" and answers.kinds == ["transcription"]
    sound = _sound(16_000)
    text = answers.transcribe(sound, "transcription")["text"]
    run = tokenizer_lib.F3Tokenizer.from_pretrained(chain["representation"])
    assert text == run.transcribe(soundfile.read(io.BytesIO(sound), dtype="float32")[0])
    options = dict(seconds=0.5, seed=3)
    found = answers.generate("a", "transcription", **options)
    made, rate = _read(found["sound"])
    assert rate == 16_000 and found["seconds"] == len(made) / rate > 0
    assert found["ending"] in ("ended by itself", "cut at its limit")
    assert answers.generate("a", "transcription", **options) == found


def test_what_a_run_cannot_do_is_refused(answers, chain, said):
    coder = _load(chain["autoencoder"], said)
    assert (coder.questions, coder.kinds) == ([], [])
    with pytest.raises(ValueError, match="a run that answers about sound, got one that does not"):
        coder.transcribe(_sound(100), "transcription")
    with pytest.raises(ValueError, match="a run that makes sound of texts, got one that does not"):
        coder.generate("a", "transcription", seconds=1.0, seed=0)
    with pytest.raises(ValueError, match="task must be one of transcription, .*, got 'juggling'"):
        answers.transcribe(_sound(100), "juggling")
    with pytest.raises(answers_lib.TooMuch, match="at most 5 characters, got 6"):
        answers.generate("aaaaaa", "transcription", seconds=1.0, seed=0)
    for seconds in (0.0, -1.0, 2.1, float("nan"), float("inf")):
        with pytest.raises(answers_lib.TooMuch, match="seconds must be above 0 and up to 2, got"):
            answers.generate("a", "transcription", seconds=seconds, seed=0)
    with pytest.raises(ValueError, match="text must say something"):
        answers.generate("", "transcription", seconds=1.0, seed=0)


def test_it_says_what_it_is(answers, chain):
    model = answers.model()
    assert model["model"] == chain["generation"] and model["latent_dim"] == 8
    assert model["limits"] == dict(seconds=2.0, num_bytes=32_000_000, characters=5, waiting=8)
    assert model["kinds"] == ["transcription"]


@pytest.mark.parametrize("stage", ["autoencoder", "representation", "generation"])
def test_it_names_the_step_that_it_uses(tmp_path_factory, stage):
    run = tiny_runs.write_chain(tmp_path_factory.mktemp("damaged"))[stage]
    tiny_models.add_damaged_step(run)
    answers = _load(run, [])
    assert answers.model()["step"] == 3 and answers.tokenizer.run.step == 5
