# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Text to sound: of the length asked for, the same for the same seed, refusals by name."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from f3tok_jax.inference import codec
from f3tok_jax.inference import files
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
def generator(tmp_path_factory) -> generate.TextToSound:
    """One of random weights that never stops by itself; digits and voices are its tasks."""
    autoencoder, variables = tiny_models.built()
    folder = tiny_models.write_language_model(tmp_path_factory.mktemp("text"))
    recipe = "--config.representation.recipe"
    config = config_lib.read(
        _RECIPE,
        [
            f"{recipe}.language_model.folder={folder}",
            f"{recipe}.autoencoder.recipe.model.latent_dim={autoencoder.latent_dim}",
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
    return generate.TextToSound(
        model, weights, codec.Codec(autoencoder, variables["params"]), step=3
    )


def _requests(*texts: str, prompt=None) -> list[generate.Request]:
    return [generate.Request(text=text, task="digit", prompt=prompt) for text in texts]


def _latents(generator, *texts: str, max_patches: int = 6, prompt=None, **options):
    return generator.generate(
        _requests(*texts, prompt=prompt),
        max_patches=max_patches,
        chunk_patches=_CHUNK,
        **options,
    )


@pytest.fixture(scope="module")
def generated(generator):
    return _latents(generator, "seven")


def _prompt(num_patches: int) -> np.ndarray:
    """Latents of so many patches and half a patch more."""
    return np.random.default_rng(0).normal(size=(2 * num_patches + 1, 8)).astype(np.float32)


def test_latents_are_as_many_as_asked_for_where_nothing_stops(generator, generated):
    latents, stopped = generated
    assert latents[0].shape == (6 * generator.generator.patch, 8) and latents[0].dtype == np.float32
    assert stopped.tolist() == [False]
    # The sampler renormalizes; epsilon is 1e-5 of a variance that may be small.
    np.testing.assert_allclose(latents[0].mean(axis=-1), 0.0, atol=1e-4)
    np.testing.assert_allclose(np.square(latents[0]).mean(axis=-1), 1.0, atol=0.01)


def test_the_same_seed_speaks_the_same_and_another_differently(generator, generated):
    again, _ = _latents(generator, "seven")
    np.testing.assert_array_equal(again[0], generated[0][0])
    for other in (_latents(generator, "seven", seed=1), _latents(generator, "eight")):
        assert np.abs(other[0][0] - generated[0][0]).max() > 1e-3


def test_a_lower_limit_ends_earlier_and_changes_nothing_before(generator, generated):
    latents, _ = _latents(generator, "seven", max_patches=3)
    np.testing.assert_array_equal(latents[0], generated[0][0][:6])


def test_pieces_hold_what_is_valid(generator):
    pieces = list(generator.pieces(_requests("seven"), max_patches=6, chunk_patches=_CHUNK))
    assert [[row.shape for row in piece] for piece in pieces] == [[(8, 8)], [(4, 8)]]


def test_a_row_whose_states_say_stop_ends_by_itself(generator, monkeypatch):
    head = generator.weights["head"]
    stop_out = head["stop_out"] | {"bias": jnp.full((1,), 100.0)}
    weights = generator.weights | {"head": head | {"stop_out": stop_out}}
    monkeypatch.setattr(generator, "weights", weights)
    latents, stopped = _latents(generator, "seven")
    assert latents[0].shape == (2, 8) and stopped.tolist() == [True]
    latents, stopped = _latents(generator, "seven", min_patches=3)
    assert latents[0].shape == (6, 8) and stopped.tolist() == [True]


def test_a_prompt_is_continued_and_not_repeated(generator, generated):
    latents, _ = _latents(generator, "seven", prompt=_prompt(3))
    assert latents[0].shape == generated[0][0].shape
    assert np.abs(latents[0] - generated[0][0]).max() > 1e-3
    alone, _ = _latents(generator, "", prompt=_prompt(3))
    assert np.abs(alone[0] - latents[0]).max() > 1e-3


def test_what_follows_a_recording_depends_on_what_was_before_and_on_the_text(generator):
    true = _prompt(4)  # and half a patch, which is not made
    (made,) = generator.follow(_requests("seven"), [true])
    assert made.shape == (8, 8)
    changed = true.copy()
    changed[4:6] += 1.0
    (other,) = generator.follow(_requests("seven"), [changed])
    np.testing.assert_array_equal(other[:6], made[:6])
    assert np.abs(other[6:] - made[6:]).max() > 1e-3
    for another in (
        generator.follow(_requests("eight"), [true]),
        generator.follow(_requests("seven"), [true], seed=1),
    ):
        assert np.abs(another[0][:2] - made[:2]).max() > 1e-4


def test_long_lists_go_in_batches_of_one_size(generator, generated):
    together, stopped = _latents(generator, "seven", "eight", "seven", batch_size=2)
    assert [row.shape for row in together] == [(12, 8)] * 3 and stopped.tolist() == [False] * 3
    # Seeds count on, and the second batch is filled up.
    alone, _ = _latents(generator, "seven", "seven", seed=1)
    np.testing.assert_array_equal(together[2], alone[0])
    recordings = [_prompt(4), _prompt(2), _prompt(4)]
    made = generator.follow(_requests("one", "two", "one"), recordings, batch_size=2)
    assert [len(row) for row in made] == [8, 4, 8]


def test_a_prompt_with_its_text_is_one_text_with_what_follows(generator):
    request = generator.request("eight", "digit", _prompt(3), "  one two ")
    rows, mask = generate.text_rows(generator.text, [request])
    whole, _ = generate.text_rows(generator.text, _requests("one two eight"))
    np.testing.assert_array_equal(rows, whole)
    ids, start = generator.text.tokens("digit", "one two eight", key="")
    assert rows[0, mask[0]].tolist() == ids
    # The prompt's sound is not given again: only what follows is.
    found, _ = generator.generate([request], max_patches=3, chunk_patches=_CHUNK)
    same, _ = _latents(generator, "one two eight", max_patches=3, prompt=_prompt(3))
    np.testing.assert_array_equal(found[0], same[0])
    alone, _ = _latents(generator, "eight", max_patches=3, prompt=_prompt(3))
    assert np.abs(found[0] - alone[0]).max() > 1e-3


@pytest.mark.parametrize(
    "text, prompt, words",
    [("eight", None, "got 'one' and no prompt"), (" ", 3, "got 'one' and no text")],
)
def test_a_text_of_a_prompt_needs_the_prompt_and_a_text(generator, text, prompt, words):
    with pytest.raises(ValueError, match=words):
        generator.request(text, "digit", None if prompt is None else _prompt(prompt), "one")


def test_a_prompt_with_its_text_is_held_to_the_length_of_training(generator):
    said = []  # crops of 150 latents at 25 Hz
    request = generator.request("eight", "digit", _prompt(50), "one")
    assert generator.patches_for(request, 1.0, say=said.append) == 13 and not said
    generator.patches_for(request, 3.0, say=said.append)
    assert len(said) == 1 and "later than 2.0 s is longer than any example of training" in said[0]
    long = generator.request("eight", "digit", _prompt(75), "one")
    with pytest.raises(ValueError, match="with its text must be shorter than 6 s, .* got 6.04 s"):
        generator.patches_for(long, 1.0, say=said.append)


def test_rows_of_prompts_are_padded_to_a_common_length(generator):
    requests = _requests("one", prompt=_prompt(3)) + _requests("two")
    rows, mask = generator._prompt_rows(requests)
    assert rows.shape == (2, 64, 2, 8) and mask.sum(axis=1).tolist() == [3, 0]
    np.testing.assert_array_equal(rows[0, :3].reshape(6, 8), _prompt(3)[:6])
    assert mask[0, :3].all() and not rows[~mask].any()
    rows, mask = generator._prompt_rows(requests[1:])
    assert rows.shape == (1, 0, 2, 8) and mask.shape == (1, 0)


def test_text_is_written_as_in_training(generator):
    rows, mask = generate.text_rows(generator.text, _requests(" seven ", "", prompt=_prompt(1)))
    ids, _ = generator.text.tokens("digit", "seven", key="")
    assert rows[0, : len(ids)].tolist() == ids and mask.sum(axis=1).tolist() == [len(ids), 0]
    assert rows.shape == mask.shape == (2, _MAX_TOKENS)


def test_seconds_become_patches_rounded_up(generator):
    assert generator.patches_per_second == 12.5
    assert [generator.patches_of(s) for s in (0.001, 0.08, 0.0801, 2.0)] == [1, 1, 2, 25]


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_times_that_are_none_are_refused(generator, seconds):
    with pytest.raises(ValueError, match=f"seconds of sound must be above 0, got {seconds}"):
        generator.patches_of(seconds)


@pytest.mark.parametrize(
    "text, task, words",
    [
        ("", "digit", "text must say something where there is no prompt, got ''"),
        (" \n", "digit", "text must say something where there is no prompt"),
        ("seven", "caption", "task must be one of .*digit.*, got 'caption'"),
        ("seven" * 9, "digit", "has .* tokens for the task 'digit', more than max_tokens=40"),
        ("half\ud83d", "digit", "text must be of characters that the tokenizer knows"),
    ],
)
def test_texts_that_cannot_be_said_are_refused(generator, text, task, words):
    request = generate.Request(text=text, task=task)
    with pytest.raises(ValueError, match=words) as error:
        next(generator.pieces([request], max_patches=2))
    assert "\n" not in str(error.value)


def test_the_name_of_a_special_token_can_be_said(generator):
    request = generate.Request(text="a<|endoftext|>", task="digit")
    assert next(generator.pieces([request], max_patches=2))


@pytest.mark.parametrize("num_prompt, num_more", [(0, _MOST + 1), (100, _MOST - 127)])
def test_more_than_the_window_is_refused(generator, num_prompt, num_more):
    prompt = _prompt(num_prompt) if num_prompt else None
    padded = -(-num_prompt // 64) * 64
    words = f"must be at most {_MOST} patches, 17.2 s, .* window, got {padded} and {num_more}"
    with pytest.raises(ValueError, match=words):
        next(generator.pieces(_requests("seven", prompt=prompt), max_patches=num_more))


def _write(generator, path, *, text="seven", task="digit", prompt=None, **options):
    request = generator.request(text, task, prompt)
    return files.generate_file(generator, request, path, **options)


@pytest.mark.parametrize("stream", [False, True])
def test_a_file_has_the_sound_of_the_latents(generator, tmp_path, stream):
    path, lines = tmp_path / "said.wav", []
    written = _write(generator, path, task=None, max_seconds=0.7, stream=stream, say=lines.append)
    # 9 patches of two latents of 640 samples.
    assert (written.num_samples, written.sample_rate, written.is_cut) == (11_520, 16_000, True)
    assert written.seconds == 0.72 and written.ending == "cut at its limit" and lines == []
    sound, rate = soundfile.read(path, dtype="float32")
    assert rate == 16_000 and sound.shape == (11_520,)
    assert [p.name for p in tmp_path.iterdir()] == ["said.wav"]
    requests = [generate.Request(text="seven", task="voice")]  # of the greatest weight
    latents, _ = generator.generate(requests, max_patches=9)
    (whole,) = generator.codec.decode(latents)
    # 16 bits, and the order of float32 sums.
    np.testing.assert_allclose(sound, np.clip(whole, -1, 1), atol=2e-4)


def test_a_time_beyond_the_window_is_said_and_cut_short(generator, tmp_path, monkeypatch):
    asked = {}

    def stream(request, *, max_patches, **options):
        asked.update(max_patches=max_patches, task=request.task, **options)
        yield np.zeros(640, np.float32)

    monkeypatch.setattr(generator, "stream", stream)
    lines = []
    written = _write(
        generator, tmp_path / "said.flac", max_seconds=60.0, seed=5,
        sampler=dict(num_steps=3, guidance=1.0), say=lines.append,
    )  # fmt: skip
    assert lines == [
        "60 s are more than the language model's window of 256 positions allows: at most 17.2 s "
        "will be made"
    ]
    assert asked["max_patches"] == _MOST and asked["task"] == "digit" and asked["seed"] == 5
    assert asked["sampler"] == dict(num_steps=3, guidance=1.0)
    assert written.ending == "ended by itself"


def test_what_is_not_said_of_the_sampler_is_the_runs(generator, monkeypatch):
    def advance(*_, sampler, **others):
        raise LookupError(sampler.num_steps, sampler.guidance, sampler.sway)

    monkeypatch.setattr(generator, "_advance", advance)
    with pytest.raises(LookupError) as asked:
        next(
            generator.pieces(_requests("a"), max_patches=1, sampler=dict(num_steps=3, guidance=1.0))
        )
    assert asked.value.args == (3, 1.0, -1.0)


def test_a_prompt_as_long_as_the_window_is_refused(generator, tmp_path):
    words = r"the prompt must be at most 15.36 s, .* window allows, got 17.24 s"
    with pytest.raises(ValueError, match=words) as error:
        _write(generator, tmp_path / "said.wav", prompt=_prompt(_MOST), max_seconds=1.0)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, changes, words",
    [
        ("said.mp3", {}, "must end in one of .wav, .flac, .ogg"),
        ("said.wav", dict(text=""), "text must say something"),
        ("said.wav", dict(task="event"), "task must be one of"),
        ("said.wav", dict(max_seconds=0.0), "seconds of sound must be above 0"),
        ("said.wav", dict(sampler=dict(num_steps=0)), "sampling steps must be at least 1"),
        ("said.wav", dict(sampler=dict(steps=3)), "sampler must give num_steps, .* got 'steps'"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_generated_leaves_no_file(generator, tmp_path, name, changes, words, stream):
    options = dict(max_seconds=1.0, stream=stream) | changes
    with pytest.raises(ValueError, match=words):
        _write(generator, tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_a_run_of_another_version_is_refused():
    config = config_lib.read(_RECIPE)
    with config.unlocked():
        del config.model.row
        config.model.rows = 2
    with pytest.raises(ValueError, match="without model.row, with model.rows; train it again"):
        pretrained_generation.Model(lineage.Lineage(config=config))
