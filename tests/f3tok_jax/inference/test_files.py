# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Files of sound: exact lengths and rates, refusals."""

import numpy as np
import pytest
import soundfile

from data_pipelines.sound import audio_files
from f3tok_jax.inference import codec
from f3tok_jax.inference import files
from tests.support import tiny_models


@pytest.fixture(scope="module")
def model():
    autoencoder, variables = tiny_models.built()
    return codec.Codec(autoencoder, variables["params"])


def _sound(num_samples, channels=1):
    shape = (num_samples, channels)
    return 0.1 * np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _whole_wav() -> bytes:
    return audio_files.wav(_sound(3_000)[:, 0], 16_000)


@pytest.mark.parametrize(
    "suffix, rate, num_samples, channels",
    [
        (".wav", 16_000, 1, 1),
        (".wav", 44_100, 12_345, 2),
        (".flac", 8_000, 4_001, 1),
        (".ogg", 22_050, 30_001, 1),
        (".wav", 48_000, 96_003, 6),
        (".wav", 11_025, 777, 1),
    ],
)
@pytest.mark.parametrize("policy", files.CHANNEL_POLICIES)
def test_file_comes_back_with_its_length_and_rate(
    model, tmp_path, suffix, rate, num_samples, channels, policy
):
    path = tmp_path / f"in{suffix}"
    soundfile.write(path, _sound(num_samples, channels), rate)
    encoded = files.encode_file(model, path, channels=policy)
    assert len(encoded.rows) == (channels if policy == "keep" else 1)
    files.decode_file(model, encoded, tmp_path / "out.wav")
    info = soundfile.info(tmp_path / "out.wav")
    assert (info.samplerate, info.frames) == (rate, num_samples)
    assert info.channels == len(encoded.rows)


def test_channels_that_are_kept_are_encoded_by_themselves(model, tmp_path):
    sound = _sound(5_000, 2)
    for name, data in (("both", sound), ("left", sound[:, :1])):
        soundfile.write(tmp_path / f"{name}.wav", data, 16_000)
    both = files.encode_file(model, tmp_path / "both.wav", channels="keep").values
    left = files.encode_file(model, tmp_path / "left.wav").values
    np.testing.assert_allclose(both[:1], left, atol=1e-4)


@pytest.mark.parametrize("policy", files.CHANNEL_POLICIES)
def test_each_channel_is_heard_at_the_level_and_gets_its_own_back(tmp_path, policy, monkeypatch):
    autoencoder, variables = tiny_models.built()
    model = codec.Codec(autoencoder.clone(level_db=-20.0), variables["params"])
    sound = _sound(9_000, 2) * np.array([1.0, 0.05], np.float32)
    soundfile.write(tmp_path / "in.wav", sound, 16_000, subtype="FLOAT")
    found = files.encode_file(model, tmp_path / "in.wav", channels=policy)
    heard = list(sound.T) if policy == "keep" else [sound.mean(axis=1)]
    gains = model.gains(heard)
    np.testing.assert_allclose(found.gains, gains, rtol=1e-5)
    assert policy == "mix" or gains[1] == pytest.approx(20 * gains[0], rel=0.1)
    expected = model.encode(heard)
    np.testing.assert_allclose(found.values, np.stack(expected), atol=1e-4)
    files.decode_file(model, found, tmp_path / "out.wav")
    written, _ = soundfile.read(tmp_path / "out.wav", always_2d=True)
    decoded = np.stack(model.decode(expected, gains=gains), axis=1)[:9_000]
    np.testing.assert_allclose(written, np.clip(decoded, -1, 1), atol=1e-4)  # of 16 bits


def test_channels_that_cancel_each_other_are_said(model, tmp_path):
    sound, said = _sound(5_000), []
    for share, policy in ((-0.98, "mix"), (-0.98, "keep"), (0.5, "mix")):
        soundfile.write(tmp_path / "in.wav", np.concatenate([sound, share * sound], 1), 16_000)
        files.encode_file(model, tmp_path / "in.wav", channels=policy, name="in", say=said.append)
    assert said == ["in: its channels cancel each other, their mean is 40 dB below them"]


@pytest.mark.parametrize(
    "write, words",
    [
        (lambda path: path.write_bytes(b""), "no bytes"),
        (lambda path: path.write_bytes(b"RIFF nonsense"), "not of WAVE"),
        (lambda path: soundfile.write(path, np.zeros((0, 1)), 16_000), "without samples"),
        (
            lambda path: soundfile.write(path, np.full((99, 1), np.nan), 16_000, subtype="FLOAT"),
            "NaN",
        ),
        (
            lambda path: soundfile.write(path, np.full((99, 1), 1e30), 16_000, subtype="FLOAT"),
            "far beyond .*600.0 dB beyond full scale",
        ),
        (lambda path: soundfile.write(path, np.ones((99, 1)), 900), "a sample rate of 900 Hz"),
        (lambda path: path.write_bytes(_whole_wav()[:-500]), "its end is missing"),
    ],
)
def test_what_is_not_sound_is_refused(model, tmp_path, write, words):
    path = tmp_path / "bad.wav"
    write(path)
    with pytest.raises(ValueError, match=f"bad.wav cannot be encoded: .*{words}"):
        files.encode_file(model, path)


def test_latents_of_other_weights_are_refused(model, tmp_path):
    soundfile.write(tmp_path / "in.wav", _sound(5_000), 16_000)
    encoded = files.encode_file(model, tmp_path / "in.wav")
    autoencoder, variables = tiny_models.built(decoder_lookahead=0)
    params = {**variables["params"], "encoder": variables["params"]["decoder"]}
    other = codec.Codec(autoencoder, params)
    with pytest.raises(ValueError, match="made by weights"):
        files.decode_file(other, encoded, tmp_path / "out.wav")
    assert not (tmp_path / "out.wav").exists()


def test_unknown_ending_is_refused(model, tmp_path):
    soundfile.write(tmp_path / "in.wav", _sound(5_000), 16_000)
    with pytest.raises(ValueError, match="out.mp4 must end in"):
        files.decode_file(
            model, files.encode_file(model, tmp_path / "in.wav"), tmp_path / "out.mp4"
        )
