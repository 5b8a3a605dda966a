# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A run in use: what comes back, that rows do not depend on padding, and what is loaded for it."""

import dataclasses
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from f3tok_jax.inference import frames
from f3tok_jax.inference import latent_file
from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.runs import saved_states
from tests.support import seals
from tests.support import tiny_models
from tests.support import tiny_runs

_LENGTHS = (3_000, 641, 1_280)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    return tiny_runs.write_chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="module")
def tokenizer(folders) -> tokenizer_lib.F3Tokenizer:
    return tokenizer_lib.F3Tokenizer.from_pretrained(folders["generation"])


def _sound(num_samples: int = 3_000, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (0.1 * rng.normal(size=num_samples)).astype(np.float32)


def _batch(behind: float) -> np.ndarray:
    """Rows of _LENGTHS with the same number everywhere behind their end."""
    rows = np.full((3, 3_000), behind, np.float32)
    for row, (array, length) in enumerate(zip(rows, _LENGTHS)):
        array[:length] = _sound(length, row)
    return rows


@pytest.mark.parametrize("rate", [16_000, 44_100, 8_000])
def test_a_sound_comes_back_with_its_length_and_rate(tokenizer, rate):
    latents = tokenizer.encode(_sound(), sample_rate=rate, resample=True)
    frames_at_16 = -(-round(3_000 * 16_000 / rate + 0.49) // 640)
    assert latents.values.shape == (frames_at_16, 8) and latents.mask.all()
    assert latents.values.dtype == np.float32 and latents.sample_rate == rate
    assert tokenizer.decode(latents).shape == (3_000,)


@pytest.mark.parametrize("behind", [0.0, np.nan, 7.0])
@pytest.mark.parametrize("give", ["lengths", "mask", "list"])
def test_a_row_of_a_batch_is_as_if_it_were_alone(tokenizer, behind, give):
    batch = _batch(behind)
    mask = np.arange(3_000) < np.array(_LENGTHS)[:, None]
    options = {"lengths": dict(lengths=_LENGTHS), "mask": dict(mask=mask), "list": {}}[give]
    if give == "list":
        batch = [row[:length] for row, length in zip(batch, _LENGTHS)]
    latents = tokenizer.encode(batch, **options)
    representations = tokenizer.represent(batch, **options)
    decoded = tokenizer.decode(latents)
    assert latents.mask.sum(axis=1).tolist() == [5, 2, 2] and decoded.shape == (3, 3_000)
    assert not latents.values[~latents.mask].any() and not decoded[~mask].any()
    for row, length in enumerate(_LENGTHS):
        alone = tokenizer.encode(_sound(length, row))
        # Float32 sums in another order; latents have rms 1.
        np.testing.assert_allclose(latents.rows[row], alone.values, atol=1e-4)
        np.testing.assert_allclose(decoded[row, :length], tokenizer.decode(alone), atol=1e-4)
        represented = tokenizer.represent(alone)
        np.testing.assert_allclose(representations.rows[row], represented.values, atol=1e-4)
    assert representations.kind == frames.REPRESENTATIONS


def test_arrays_of_jax_give_arrays_of_jax(tokenizer):
    latents = tokenizer.encode(jnp.asarray(_sound()))
    assert isinstance(latents.values, jax.Array)
    sound = tokenizer.decode(latents)
    assert isinstance(sound, jax.Array)
    np.testing.assert_array_equal(sound, tokenizer.decode(tokenizer.encode(_sound())))
    whole = tokenizer.decode(latents.values)  # of mere latents, whose last may be of fewer samples
    np.testing.assert_allclose(whole[:3_000], sound, atol=1e-6)
    assert whole.shape == (3_200,)


@pytest.mark.parametrize(
    "sound, options, message",
    [
        (_sound(), dict(sample_rate=44_100), "must be at 16000 Hz, .*sample_rate=44100: give res"),
        (_sound()[None, None], {}, r"must be \[n\] or \[b, n\] of floats, got float32 \[1, 1, 3"),
        ((1_000 * _sound()).astype(np.int16), {}, r"of floats, got int16 \[3000\]"),
        (_sound() + np.nan, {}, "all of them finite, got 3000 in row 0, 3000 of them"),
        (_sound(0), {}, "at least one value"),
        (np.zeros((3_000, 2)), {}, r"a row for each sound, got \[3000, 2\], .* transposed"),
        (np.zeros((0, 3_000)), {}, r"of floats, got float64 \[0, 3000\]"),
        (_batch(0), dict(lengths=[3, 4]), r"must be 3 whole numbers up to 3000, got \[3, 4\]"),
        (_batch(0), dict(lengths=[3.0, 4.5, 5.0]), r"whole numbers up to 3000, got \[3.0, 4.5"),
        (_batch(0), dict(lengths=["3", "4", "5"]), "whole numbers up to 3000, got "),
        (_batch(0), dict(mask=np.ones((3, 4), bool)), r"must be \[3, 3000\], .*got \[3, 4\]"),
        (_batch(0), dict(mask=np.ones((1_500, 6), bool)), r"must be \[3, 3000\], .*\[1500, 6\]"),
        (_batch(0), dict(lengths=[3, 4, 3_001]), "up to 3000"),
        (
            _batch(0),
            dict(mask=np.tile(np.arange(3_000) > 5, (3, 1))),
            "True from the beginning of a row",
        ),
        (_sound(), dict(mask=np.ones(3_000, bool), lengths=5), "lengths or with a mask, got both"),
        (
            [_sound()],
            dict(lengths=[3]),
            "a list of waveform must hold one at least and has its own lengths",
        ),
    ],
)
def test_what_is_not_sound_is_refused(tokenizer, sound, options, message):
    with pytest.raises(ValueError, match=message) as error:
        tokenizer.encode(sound, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rate", [0, -1, 999, 10**9, np.nan, np.inf, 44_100.5, "44100"])
def test_a_rate_that_no_sound_has_is_refused(tokenizer, rate):
    with pytest.raises(ValueError, match="sample_rate must be whole Hz, 1000 to 768000, got "):
        tokenizer.encode(_sound(), sample_rate=rate, resample=True)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000, 96_000, 48_000.0])
@pytest.mark.parametrize("num_samples", [1, 2])
def test_the_shortest_sound_of_any_rate_comes_back(tokenizer, rate, num_samples):
    latents = tokenizer.encode(_sound(num_samples), sample_rate=rate, resample=True)
    assert len(latents.values) == 1 and tokenizer.decode(latents).shape == (num_samples,)


def test_latents_are_not_taken_for_sound_nor_given_lengths_twice(tokenizer):
    latents = tokenizer.encode(_sound())
    for call in (tokenizer.represent, tokenizer.transcribe):
        for mere in (latents.values, [latents.values], latents.values[None]):
            with pytest.raises(ValueError, match="which is of mere latents"):
                call(mere)
    for call in (tokenizer.decode, tokenizer.represent, tokenizer.transcribe):
        with pytest.raises(ValueError, match="has its own lengths and rate: leave out lengths"):
            call(latents, lengths=[2])
    with pytest.raises(ValueError, match="latents must have 8 channels, got .7"):
        tokenizer.decode(np.zeros((5, 7), np.float32))


@pytest.mark.parametrize(
    "blocks, message",
    [
        ([_sound()], r"must be \[channels, any number\] .* got \[3000\] in block 0"),
        (
            [_sound()[None], np.zeros((2, 5))],
            r"the channels of those before, got \[2, 5\] in block 1",
        ),
        ([(1_000 * _sound()[None]).astype(np.int16)], "finite floats, got int16 in block 0, 0 of"),
        ([_sound()[None], _sound()[None] + np.nan], "float32 in block 1, 3000 of them not finite"),
    ],
)
def test_what_is_no_block_of_a_stream_is_refused(tokenizer, blocks, message):
    with pytest.raises(ValueError, match=message):
        list(tokenizer.encode_stream(blocks))
    with pytest.raises(ValueError, match=r"must be \[channels, any number, 8\]"):
        list(tokenizer.decode_stream([np.zeros((1, 5, 7))]))


def test_latents_of_other_weights_are_refused(tokenizer):
    latents = dataclasses.replace(tokenizer.encode(_sound()), fingerprint="5eed")
    for call in (tokenizer.decode, tokenizer.represent, tokenizer.transcribe):
        with pytest.raises(ValueError, match="these latents were made by weights 5eed, the model"):
            call(latents)


def test_representations_are_not_decoded(tokenizer):
    with pytest.raises(ValueError, match="only latents are understood here, got representations"):
        tokenizer.decode(tokenizer.represent(_sound()))


@pytest.fixture
def restored(monkeypatch) -> list[tuple[str, list[str]]]:
    """Run and players of each restore."""
    calls, restore = [], saved_states.restore_params

    def spy(workdir, abstract, **options):
        calls.append((pathlib.PurePath(workdir).name, sorted(abstract)))
        return restore(workdir, abstract, **options)

    monkeypatch.setattr(saved_states, "restore_params", spy)
    return calls


@pytest.mark.parametrize("stage", ["autoencoder", "representation", "generation"])
def test_encoding_loads_the_autoencoder_alone(folders, restored, stage):
    tokenizer = tokenizer_lib.F3Tokenizer.from_pretrained(folders[stage])
    assert tokenizer.sample_rate == 16_000 and restored == []
    fingerprint = tokenizer.fingerprint
    assert restored == [] and fingerprint == tokenizer.codec.fingerprint
    tokenizer.encode(_sound())
    assert restored == [("autoencoder", ["generator"])]


def test_parts_are_loaded_when_they_are_needed(folders, restored):
    tokenizer = tokenizer_lib.F3Tokenizer.from_pretrained(folders["generation"])
    latents = frames.Frames(
        rows=[np.ones((5, 8), np.float32)],
        num_samples=[3_000],
        sample_rate=16_000,
        latent_rate=25.0,
        fingerprint=tokenizer.fingerprint,
        form=frames.Form(is_batch=False, is_jax=False),
    )
    tokenizer.represent(latents)
    assert restored == [("representation", ["encoder"])]
    assert isinstance(tokenizer.transcribe(latents), str)
    assert restored == [("representation", ["encoder"])] * 2  # its projector
    tokenizer.decode(latents)
    assert restored[2:] == [("autoencoder", ["generator"])]


@pytest.mark.parametrize(
    "stage, call, message",
    [
        ("autoencoder", "represent", "must be a run of the representation or generation stage"),
        ("autoencoder", "transcribe", "must be a run of the representation or generation stage"),
        ("autoencoder", "generate", "must be a run of the generation stage, got stage 'autoenco"),
        ("representation", "generate", "must be a run of the generation stage, got stage 'repre"),
    ],
)
def test_what_a_run_cannot_do_is_refused_before_anything_is_loaded(
    folders, restored, stage, call, message, tmp_path
):
    tokenizer = tokenizer_lib.F3Tokenizer.from_pretrained(folders[stage])
    given = "seven" if call == "generate" else _sound()
    with pytest.raises(ValueError, match=message) as error:
        getattr(tokenizer, call)(given)
    paths = [tmp_path / "in.wav"] if call != "generate" else ["seven", tmp_path / "out.wav"]
    with pytest.raises(ValueError, match=message):
        getattr(tokenizer, f"{call}_file")(*paths)
    assert "\n" not in str(error.value) and restored == [] and not list(tmp_path.iterdir())


def test_folders_that_are_no_such_run_are_refused(folders, tmp_path):
    with pytest.raises(ValueError, match="must be the work folder of a run"):
        tokenizer_lib.F3Tokenizer.from_pretrained(str(tmp_path / "nowhere"))
    shutil.copytree(folders["autoencoder"], tmp_path / "run")
    metadata = tmp_path / "run" / "checkpoints" / "3" / "meta" / "metadata"
    kept = json.loads(metadata.read_text())["config"]
    seals.change(metadata, config=kept | {"stage": "language_model"})
    seals.change(tmp_path / "run" / "config.json", stage="language_model")
    with pytest.raises(ValueError, match="must be a run of the autoencoder, representation or gen"):
        tokenizer_lib.F3Tokenizer.from_pretrained(str(tmp_path / "run"))


def test_a_run_whose_ancestors_have_changed_is_refused(folders, tmp_path):
    shutil.copytree(folders["generation"], tmp_path / "run")
    path = tmp_path / "run" / "frozen.json"
    of_now = tokenizer_lib.F3Tokenizer.from_pretrained(folders["autoencoder"]).fingerprint
    seals.replace(path, of_now, "5eed")
    with pytest.raises(ValueError, match="was trained on autoencoder 5eed, got "):
        tokenizer_lib.F3Tokenizer.from_pretrained(str(tmp_path / "run"))


def test_answers_are_those_of_the_transcriber(tokenizer):
    sounds = [_sound(length, row) for row, length in enumerate(_LENGTHS)]
    answers = tokenizer.transcribe(sounds)
    rows = tokenizer.represent(sounds).rows
    assert answers == [tokenizer.transcriber.answer(row, task="transcription") for row in rows]
    assert tokenizer.transcribe(sounds[1]) == answers[1]
    with pytest.raises(ValueError, match="task must be one of .*, got 'colour'"):
        tokenizer.transcribe(sounds[1], task="colour")


def test_texts_become_sounds_each_of_its_length(tokenizer):
    options = dict(max_seconds=0.5, sampler=dict(guidance=1.0))
    one = tokenizer.generate("seven", **options)
    assert one.ndim == 1 and one.dtype == np.float32 and 0 < len(one) <= 7 * 1_280
    assert np.abs(one).max() <= 1.0
    several = tokenizer.generate(["seven", "eight"], **options)
    assert [len(sound) > 0 for sound in several] == [True, True]
    np.testing.assert_allclose(
        np.concatenate(list(tokenizer.generate_stream("seven", **options))), one, atol=1e-4
    )
    other = tokenizer.generate("seven", seed=1, **options)
    assert len(other) != len(one) or np.abs(other - one).max() > 1e-3


def test_a_recording_is_continued(tokenizer):
    latents = tokenizer.encode(_sound())
    continued = tokenizer.generate("", prompt=latents, max_seconds=0.2)
    again = np.concatenate(list(tokenizer.generate_stream("", prompt=latents, max_seconds=0.2)))
    np.testing.assert_allclose(continued, again, atol=1e-4)
    other = tokenizer.generate("", prompt=tokenizer.encode(_sound(seed=1)), max_seconds=0.2)
    assert len(other) != len(continued) or np.abs(other - continued).max() > 1e-3
    with pytest.raises(ValueError, match="got 2 texts, 1 prompts"):
        tokenizer.generate(["a", "b"], prompt=latents)
    with pytest.raises(ValueError, match="at least one text is needed"):
        tokenizer.generate([])


@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_streams_are_equal_to_the_whole(tokenizer, rate):
    sound = np.stack([_sound(70_000), _sound(70_000, 1)])
    options = dict(sample_rate=rate, resample=True)
    blocks = [jnp.asarray(sound[:, i : i + 9_999]) for i in range(0, 70_000, 9_999)]
    latents = np.concatenate(list(tokenizer.encode_stream(blocks, **options)), axis=1)
    whole = tokenizer.encode(sound, **options)
    np.testing.assert_allclose(latents, whole.values, atol=1e-4)
    parts = [latents[:, i : i + 7] for i in range(0, latents.shape[1], 7)]
    decoded = np.concatenate(list(tokenizer.decode_stream(parts)), axis=1)
    np.testing.assert_allclose(decoded, tokenizer.decode(latents), atol=1e-4)
    with pytest.raises(ValueError, match="sample_rate=8000: give resample=True"):
        tokenizer.encode_stream(blocks, sample_rate=8_000)


@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_a_sound_of_any_level_has_the_same_latents_and_comes_back_at_its_own(tmp_path, rate):
    tiny_models.write_run(tmp_path / "run", level_db=-20.0)
    tokenizer = tokenizer_lib.F3Tokenizer.from_pretrained(str(tmp_path / "run"))
    options = dict(sample_rate=rate, resample=True)
    sounds = [_sound(), 0.02 * _sound()]
    latents = tokenizer.encode(sounds, **options)
    np.testing.assert_allclose(latents.values[0], latents.values[1], atol=1e-3)
    assert latents.gains[1] == pytest.approx(50 * latents.gains[0], rel=1e-4)
    decoded = tokenizer.decode(latents)
    scale = np.std(decoded[0])
    np.testing.assert_allclose(decoded[1], 0.02 * decoded[0], atol=0.02 * 1e-3 * scale)
    # Mere latents have no gain: their sound has the model's level.
    plain = tokenizer.decode(latents.values[:1], lengths=[len(latents.rows[0])])
    assert rate != 16_000 or np.std(plain) == pytest.approx(scale * latents.gains[0], rel=0.05)
    for name, sound in zip(("loud", "quiet"), sounds):
        soundfile.write(tmp_path / f"{name}.wav", sound, rate, subtype="FLOAT")
        found = tokenizer.encode_file(tmp_path / f"{name}.wav")
        latent_file.save(found, tmp_path / f"{name}.npz")
        loaded = latent_file.load(tmp_path / f"{name}.npz")
        assert loaded.gains == found.gains
        (wanted,) = tokenizer.encode([sound], **options).gains
        assert found.gains == pytest.approx((wanted,), rel=1e-4)
        np.testing.assert_allclose(
            tokenizer.decode(loaded)[0], decoded[int(name == "quiet")], atol=1e-3 * scale
        )


def test_gains_are_one_of_each_row(tokenizer):
    latents = tokenizer.encode(_sound())
    with pytest.raises(ValueError, match="gains must be one of each row, 1, or none, got 2"):
        dataclasses.replace(latents, gains=(1.0, 2.0))


def test_a_gain_of_a_stream_is_undone(tokenizer):
    sound = _sound(7_000)[None]
    latents = list(tokenizer.encode_stream([sound], gain=0.5))
    np.testing.assert_allclose(latents[0], tokenizer.encode(0.5 * sound).values, atol=1e-4)
    once, half = (
        np.concatenate(list(tokenizer.decode_stream(latents, gain=gain)), axis=1)
        for gain in (1.0, 0.5)
    )
    np.testing.assert_allclose(half, 2 * once, rtol=1e-6)
    for gain in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="gain must be a factor above 0"):
            tokenizer.encode_stream([sound], gain=gain)


def test_files_say_what_arrays_say(tokenizer, tmp_path):
    path = tmp_path / "in.wav"
    soundfile.write(path, _sound(), 22_050, subtype="FLOAT")
    encoded = tokenizer.encode_file(path)
    latents = tokenizer.encode(_sound(), sample_rate=22_050, resample=True)
    np.testing.assert_allclose(encoded.values[0], latents.values, atol=1e-4)
    assert encoded.fingerprint == tokenizer.fingerprint
    tokenizer.decode_file(encoded, tmp_path / "out.wav")
    decoded, rate = soundfile.read(tmp_path / "out.wav", dtype="float32")
    assert rate == 22_050
    # 16 bits.
    np.testing.assert_allclose(decoded, np.clip(tokenizer.decode(latents), -1, 1), atol=2e-4)
    represented = tokenizer.represent_file(path)
    np.testing.assert_allclose(
        represented.values[0], tokenizer.represent(latents).values, atol=1e-4
    )
    assert represented.kind == frames.REPRESENTATIONS
    assert represented.num_samples == encoded.num_samples == [3_000]
    assert tokenizer.transcribe_file(path) == tokenizer.transcribe(latents)
    written = tokenizer.generate_file(
        "", tmp_path / "more.wav", prompt=path, max_seconds=0.2, sampler=dict(num_steps=1)
    )
    assert soundfile.info(tmp_path / "more.wav").frames == written.num_samples > 0
    with pytest.raises(ValueError, match="nowhere.wav cannot be encoded"):
        tokenizer.generate_file("", tmp_path / "x.wav", prompt="/nowhere.wav", max_seconds=1.0)
    assert not (tmp_path / "x.wav").exists()
