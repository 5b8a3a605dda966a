# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Sound through the programs of opus-tools, and what is said where they are not."""

import numpy as np
import pytest

from f3tok_jax.evaluation import metrics
from f3tok_jax.evaluation import opus
from tests.support import sounds

_needs_opus = pytest.mark.skipif(bool(opus.missing()), reason=opus.missing() or "Opus is here")


@_needs_opus
@pytest.mark.parametrize("sample_rate", [16_000, 24_000, 48_000])
def test_sound_comes_back_at_its_length_and_in_its_place(sample_rate):
    sound = sounds.tone(0.7, rate=sample_rate)
    coded = opus.OpusCodec(sample_rate=sample_rate, kilobits=24).reconstruct(sound)
    assert coded.shape == sound.shape and coded.dtype == np.float32
    # Half a wave late, the correlation would be -1.
    middle = slice(len(sound) // 4, -len(sound) // 4)
    assert np.corrcoef(coded[middle], sound[middle])[0, 1] > 0.9
    assert metrics.level_difference(sound, coded, sample_rate) < 1.0


@_needs_opus
@pytest.mark.parametrize("num_samples", [1, 100, 2_401])
def test_short_and_loud_sounds_have_an_answer(num_samples):
    sound = np.full(num_samples, 1.5, np.float32)
    coded = opus.OpusCodec(sample_rate=24_000, kilobits=6).reconstruct(sound)
    assert coded.shape == (num_samples,) and np.isfinite(coded).all()


@_needs_opus
def test_the_same_sound_comes_back_the_same():
    codec = opus.OpusCodec(sample_rate=16_000, kilobits=12)
    sound = sounds.tone(0.3)
    np.testing.assert_array_equal(codec.reconstruct(sound), codec.reconstruct(sound))


@_needs_opus
def test_more_bits_are_nearer():
    rng = np.random.default_rng(0)
    sound = (0.1 * rng.normal(size=24_000) * np.linspace(0, 1, 24_000)).astype(np.float32)
    distances = [
        metrics.mel_distance(
            sound, opus.OpusCodec(sample_rate=24_000, kilobits=bits).reconstruct(sound), 24_000
        )
        for bits in opus.KILOBITS
    ]
    assert distances == sorted(distances, reverse=True) and distances[0] > 1.2 * distances[-1]


def test_programs_that_are_not_there_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert opus.missing() == "opusenc and opusdec not on PATH: apt-get install opus-tools"
    for name in ("opusenc", "opusdec"):
        (tmp_path / name).write_text("#!/bin/sh\necho it broke >&2\nexit 3\n")
        (tmp_path / name).chmod(0o755)
    assert not opus.missing()
    with pytest.raises(ValueError, match="got exit code 3 for one and 'it broke'"):
        opus.OpusCodec(sample_rate=16_000, kilobits=6).reconstruct(np.zeros(10, np.float32))
