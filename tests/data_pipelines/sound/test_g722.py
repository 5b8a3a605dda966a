# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Raw G.722: two samples a byte at 16 kHz, the sound as it was coded 22 samples later."""

import sys

import numpy as np
import pytest

from data_pipelines.sound import g722
from data_pipelines.sound import refusals
from tests.support import debs
from tests.support import sounds

_DELAY = 22  # samples of a coder and a decoder: the two filters of 24 taps that halve the band


def _file(tmp_path, waveform):
    path = tmp_path / "a.g722"
    path.write_bytes(debs.g722(waveform))
    return path


def _read(path):
    with g722.opened(path) as sound:
        return sound, np.concatenate(list(sound.blocks))


@pytest.mark.parametrize("hertz", [300.0, 5_500.0])  # of either half of the band
def test_sound_comes_back_with_the_delay_of_its_filters(hertz, tmp_path):
    waveform = 0.3 * sounds.tone(1.0, rate=16_000, hertz=hertz)
    sound, decoded = _read(_file(tmp_path, waveform))
    assert (sound.sample_rate, sound.num_frames) == (16_000, 16_000)
    assert decoded.shape == (16_000, 1) and decoded.dtype == np.float32

    def error_db(delay):
        late, early = decoded[delay:, 0], waveform[: len(waveform) - delay]
        settled = slice(1_000, None)
        return 10 * np.log10(np.mean((late - early)[settled] ** 2) / np.mean(waveform**2))

    # 6 bits a sample of the lower half and 2 of the upper; of what is a sample off, nothing is left.
    assert error_db(_DELAY) < (-25.0 if hertz < 4_000.0 else -10.0)
    assert np.argmin([error_db(delay) for delay in range(_DELAY - 1, _DELAY + 2)]) == 1


def test_it_starts_from_rest(tmp_path):
    waveform = 1e-3 * np.random.default_rng(0).standard_normal(8_000)
    _, decoded = _read(_file(tmp_path, waveform))
    assert np.abs(decoded[:800]).max() < 2.0 * np.abs(waveform).max()


def test_blocks_are_of_one_decoder(tmp_path, monkeypatch):
    path = _file(tmp_path, 0.3 * np.random.default_rng(1).standard_normal(16_000).clip(-3, 3))
    _, whole = _read(path)
    monkeypatch.setattr(g722, "_BLOCK_BYTES", 777)
    with g722.opened(path) as sound:
        blocks = list(sound.blocks)
    assert len(blocks) == 11
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_an_empty_file_and_one_that_is_not_there_are_refused(tmp_path):
    (tmp_path / "empty.g722").touch()
    for name, reason in (("empty", "empty"), ("absent", "unreadable")):
        with pytest.raises(refusals.Refused) as refused, g722.opened(tmp_path / f"{name}.g722"):
            pass
        assert refused.value.reason == reason


def test_without_its_package_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "G722", None)
    assert "pip install -e '.[recordings]'" in g722.missing()
