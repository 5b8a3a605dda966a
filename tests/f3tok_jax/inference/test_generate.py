# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The speaker: sound of the length asked for, the same for the same seed, refusals by name."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from f3tok_jax.inference import codec
from f3tok_jax.inference import generate
from f3tok_jax.pretrained import generation as pretrained_generation
from f3tok_jax.runs import config as config_lib
from f3tok_jax.runs import lineage
from tests.support import tiny_models

_RECIPE = str(pathlib.Path(__file__).parents[3] / "configs" / "generation.py") + ":tiny"
_TRANSFORMER = dict(
    num_layers=1, width=16, hidden_width=16, num_heads=2, num_kv_heads=1, head_dim=8
)
_CHUNK = 4  # patches
_MAX_TOKENS = 40  # of the 256 positions of tiny_models.write_language_model
_MOST = 256 - _MAX_TOKENS - 1  # patches in its window


@pytest.fixture(scope="module")
def speaker(tmp_path_factory) -> generate.Speaker:
    """A speaker of random weights that never stops by itself; digits and voices are its tasks."""
    autoencoder, variables = tiny_models.built()
    folder = tiny_models.write_language_model(tmp_path_factory.mktemp("text"))
    recipe = "--config.representation.recipe"
    config = config_lib.read(
        _RECIPE,
        [
            f"{recipe}.language_model.folder={folder}",
            f"{recipe}.autoencoder.latent_dim={autoencoder.latent_dim}",
            *(f"{recipe}.model.{name}={value}" for name, value in _TRANSFORMER.items()),
            *(f"--config.model.{name}={value}" for name, value in _TRANSFORMER.items()),
            "--config.data.latents=True",
            "--config.sampling.num_steps=2",
            f"--config.text.max_tokens={_MAX_TOKENS}",
            *(f"--config.text.tasks.{n}=0.0" for n in ("caption", "language", "transcription")),
            "--config.text.tasks.digit=1.0",
            "--config.text.tasks.voice=2.0",
        ],
    )
    model = pretrained_generation.Model(lineage.Lineage(config=config))
    head = model.generator.head
    inputs = tiny_models.head_inputs(head, model.generator.language_model.width)
    shapes = jax.eval_shape(head.init, jax.random.key(0), *inputs)["params"]
    weights = tiny_models.random_weights(model.abstract() | {"head": shapes})
    weights["head"]["stop_out"]["bias"] = jnp.full((1,), -100.0)
    return generate.Speaker(
        model, weights, codec.Tokenizer(autoencoder, variables["params"]), step=3
    )


def _requests(*texts: str, prompt=None) -> list[generate.Request]:
    return [generate.Request(text=text, task="digit", prompt=prompt) for text in texts]


def _latents(speaker, *texts: str, max_patches: int = 6, prompt=None, **options):
    return speaker.speak_latents(
        _requests(*texts, prompt=prompt),
        max_patches=max_patches,
        chunk_patches=_CHUNK,
        **options,
    )


@pytest.fixture(scope="module")
def spoken(speaker):
    return _latents(speaker, "seven")


def _prompt(num_patches: int) -> np.ndarray:
    """Latents of so many patches and half a patch more."""
    return np.random.default_rng(0).normal(size=(2 * num_patches + 1, 8)).astype(np.float32)


def test_latents_are_as_many_as_asked_for_where_nothing_stops(speaker, spoken):
    latents, stopped = spoken
    assert latents[0].shape == (6 * speaker.generator.patch, 8) and latents[0].dtype == np.float32
    assert stopped.tolist() == [False]
    # The sampler renormalizes; epsilon is 1e-5 of a variance that may be small.
    np.testing.assert_allclose(latents[0].mean(axis=-1), 0.0, atol=1e-4)
    np.testing.assert_allclose(np.square(latents[0]).mean(axis=-1), 1.0, atol=0.01)


def test_the_same_seed_speaks_the_same_and_another_differently(speaker, spoken):
    again, _ = _latents(speaker, "seven")
    np.testing.assert_array_equal(again[0], spoken[0][0])
    for other in (_latents(speaker, "seven", seed=1), _latents(speaker, "eight")):
        assert np.abs(other[0][0] - spoken[0][0]).max() > 1e-3


def test_a_lower_limit_ends_earlier_and_changes_nothing_before(speaker, spoken):
    latents, _ = _latents(speaker, "seven", max_patches=3)
    np.testing.assert_array_equal(latents[0], spoken[0][0][:6])


def test_pieces_say_what_is_valid_and_which_rows_have_ended(speaker):
    pieces = list(speaker.speak(_requests("seven"), max_patches=6, chunk_patches=_CHUNK))
    assert [piece.counts.tolist() for piece in pieces] == [[8], [4]]
    assert [piece.is_done.tolist() for piece in pieces] == [[False], [True]]
    assert all(piece.latents.shape == (1, 8, 8) for piece in pieces)


def test_a_row_whose_states_say_stop_ends_by_itself(speaker, monkeypatch):
    head = speaker.weights["head"]
    stop_out = head["stop_out"] | {"bias": jnp.full((1,), 100.0)}
    weights = speaker.weights | {"head": head | {"stop_out": stop_out}}
    monkeypatch.setattr(speaker, "weights", weights)
    latents, stopped = _latents(speaker, "seven")
    assert latents[0].shape == (2, 8) and stopped.tolist() == [True]
    latents, stopped = _latents(speaker, "seven", min_patches=3)
    assert latents[0].shape == (6, 8) and stopped.tolist() == [True]


def test_a_prompt_is_continued_and_not_repeated(speaker, spoken):
    latents, _ = _latents(speaker, "seven", prompt=_prompt(3))
    assert latents[0].shape == spoken[0][0].shape
    assert np.abs(latents[0] - spoken[0][0]).max() > 1e-3
    alone, _ = _latents(speaker, "", prompt=_prompt(3))
    assert np.abs(alone[0] - latents[0]).max() > 1e-3


def test_what_follows_a_recording_depends_on_what_was_before_and_on_the_text(speaker):
    true, mask = _prompt(4)[None, :8], np.ones((1, 8), bool)
    made = speaker.follow(_requests("seven"), true, mask)
    assert made.shape == true.shape
    changed = true.copy()
    changed[:, 4:6] += 1.0
    other = speaker.follow(_requests("seven"), changed, mask)
    np.testing.assert_array_equal(other[:, :6], made[:, :6])
    assert np.abs(other[:, 6:] - made[:, 6:]).max() > 1e-3
    for another in (
        speaker.follow(_requests("eight"), true, mask),
        speaker.follow(_requests("seven"), true, mask, seed=1),
    ):
        assert np.abs(another[:, :2] - made[:, :2]).max() > 1e-4


def test_rows_of_prompts_are_padded_to_a_common_length(speaker):
    requests = _requests("one", prompt=_prompt(3)) + _requests("two")
    rows, mask = speaker._prompt_rows(requests)
    assert rows.shape == (2, 64, 2, 8) and mask.sum(axis=1).tolist() == [3, 0]
    np.testing.assert_array_equal(rows[0, :3].reshape(6, 8), _prompt(3)[:6])
    assert mask[0, :3].all() and not rows[~mask].any()
    rows, mask = speaker._prompt_rows(requests[1:])
    assert rows.shape == (1, 0, 2, 8) and mask.shape == (1, 0)


def test_text_is_written_as_in_training(speaker):
    rows, mask = speaker._text_rows(_requests(" seven ", "", prompt=_prompt(1)))
    ids, _ = speaker.text.tokens("digit", "seven", key="")
    assert rows[0, : len(ids)].tolist() == ids and mask.sum(axis=1).tolist() == [len(ids), 0]
    assert rows.shape == mask.shape == (2, _MAX_TOKENS)


def test_seconds_become_patches_rounded_up(speaker):
    assert speaker.patches_per_second == 12.5
    assert [speaker.patches_of(s) for s in (0.001, 0.08, 0.0801, 2.0)] == [1, 1, 2, 25]


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_times_that_are_none_are_refused(speaker, seconds):
    with pytest.raises(ValueError, match=f"seconds of sound must be above 0, got {seconds}"):
        speaker.patches_of(seconds)


@pytest.mark.parametrize(
    "text, task, words",
    [
        ("", "digit", "text must say something where there is no prompt, got ''"),
        (" \n", "digit", "text must say something where there is no prompt"),
        ("seven", "caption", "task must be one of .*digit.*, got 'caption'"),
        ("seven" * 9, "digit", "has .* tokens for the task 'digit', more than max_tokens=40"),
        ("a<|endoftext|>", "digit", "text must be of characters that the tokenizer knows"),
    ],
)
def test_texts_that_cannot_be_said_are_refused(speaker, text, task, words):
    request = generate.Request(text=text, task=task)
    with pytest.raises(ValueError, match=words) as error:
        next(speaker.speak([request], max_patches=2))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("num_prompt, num_more", [(0, _MOST + 1), (100, _MOST - 127)])
def test_more_than_the_window_is_refused(speaker, num_prompt, num_more):
    prompt = _prompt(num_prompt) if num_prompt else None
    padded = -(-num_prompt // 64) * 64
    words = f"must be at most {_MOST} patches, 17.2 s, .* window, got {padded} and {num_more}"
    with pytest.raises(ValueError, match=words):
        next(speaker.speak(_requests("seven", prompt=prompt), max_patches=num_more))


def _sound(path: pathlib.Path, seconds: float) -> pathlib.Path:
    noise = 0.1 * np.random.default_rng(0).normal(size=round(16_000 * seconds))
    soundfile.write(path, noise, 16_000)
    return path


@pytest.mark.parametrize("stream", [False, True])
def test_a_file_has_the_sound_of_the_latents(speaker, tmp_path, stream):
    path, lines = tmp_path / "said.wav", []
    written = speaker.write_file(
        path, text="seven", max_seconds=0.7, stream=stream, say=lines.append
    )
    # 9 patches of two latents of 640 samples.
    assert (written.num_samples, written.sample_rate, written.is_cut) == (11_520, 16_000, True)
    assert written.seconds == 0.72 and written.ending == "cut at its limit" and lines == []
    sound, rate = soundfile.read(path, dtype="float32")
    assert rate == 16_000 and sound.shape == (11_520,)
    assert [p.name for p in tmp_path.iterdir()] == ["said.wav"]
    requests = [generate.Request(text="seven", task="voice")]  # of the greatest weight
    latents, _ = speaker.speak_latents(requests, max_patches=9)
    whole = np.concatenate(list(speaker.tokenizer.decode_blocks(latents[0][None])), axis=1)
    # 16 bits, and the order of float32 sums.
    np.testing.assert_allclose(sound, np.clip(whole[0], -1, 1), atol=2e-4)


def test_a_time_beyond_the_window_is_said_and_cut_short(speaker, tmp_path, monkeypatch):
    asked = {}

    def say(request, *, max_patches, **options):
        asked.update(max_patches=max_patches, task=request.task, **options)
        yield np.zeros(640, np.float32)

    monkeypatch.setattr(speaker, "say", say)
    lines = []
    written = speaker.write_file(
        tmp_path / "said.flac", text="seven", task="digit", max_seconds=60.0, seed=5,
        sampler=dict(num_steps=3, guidance=1.0), say=lines.append,
    )  # fmt: skip
    assert lines == [
        "60 s are more than the language model's window of 256 positions allows: at most 17.2 s "
        "will be made"
    ]
    assert asked["max_patches"] == _MOST and asked["task"] == "digit" and asked["seed"] == 5
    sampler = asked["sampler"]
    assert (sampler.num_steps, sampler.guidance, sampler.sway) == (3, 1.0, -1.0)
    assert written.ending == "ended by itself"


def test_a_prompt_as_long_as_the_window_is_refused(speaker, tmp_path, monkeypatch):
    monkeypatch.setattr(speaker, "prompt_of", lambda path: _prompt(_MOST))
    words = r"the prompt must be shorter than 17.2 s, .* window allows, got 20.48 s"
    with pytest.raises(ValueError, match=words) as error:
        speaker.write_file(tmp_path / "said.wav", text="seven", prompt="x.wav", max_seconds=1.0)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, changes, words",
    [
        ("said.mp3", {}, "must end in one of .wav, .flac, .ogg"),
        ("said.wav", dict(text=""), "text must say something"),
        ("said.wav", dict(task="event"), "task must be one of"),
        ("said.wav", dict(max_seconds=0.0), "seconds of sound must be above 0"),
        ("said.wav", dict(sampler=dict(num_steps=0)), "sampling steps must be at least 1"),
        ("said.wav", dict(prompt="/nowhere.wav"), "/nowhere.wav cannot be encoded"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_generated_leaves_no_file(speaker, tmp_path, name, changes, words, stream):
    options = dict(text="seven", max_seconds=1.0, stream=stream) | changes
    with pytest.raises(ValueError, match=words):
        speaker.write_file(tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_a_recording_becomes_the_latents_that_are_continued(speaker, tmp_path):
    path = _sound(tmp_path / "prompt.wav", 0.5)
    prompt = speaker.prompt_of(path)
    assert prompt.shape == (13, 8)  # 12.5 latents
    np.testing.assert_array_equal(prompt, speaker.tokenizer.encode_file(path).latents[0])


def test_a_run_of_another_stage_is_refused(tmp_path):
    config_lib.save(config_lib.read("configs/autoencoder.py:tiny"), str(tmp_path))
    with pytest.raises(ValueError, match="must be a run of the generation stage, got stage 'auto"):
        generate.Speaker.load(str(tmp_path))
    with pytest.raises(ValueError, match="must be the work folder of a run"):
        generate.Speaker.load(str(tmp_path / "nowhere"))


def test_a_run_of_another_version_is_refused(tmp_path):
    config = config_lib.read("configs/generation.py:tiny")
    with config.unlocked():
        del config.model.row
        config.model.rows = 2
    config_lib.save(config, str(tmp_path))
    meta = tmp_path / "checkpoints" / "3" / "meta"
    meta.mkdir(parents=True)
    (meta / "metadata").write_text('{"fingerprints": {}}')
    with pytest.raises(ValueError, match="without model.row, with model.rows; train it again"):
        generate.Speaker.load(str(tmp_path))
