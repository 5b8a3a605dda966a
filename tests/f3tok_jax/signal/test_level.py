# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The gain that brings a sound to a level: one formula on the host and in graphs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.signal import level

_RATE = 16_000
_OPTIONS = dict(level_db=-20.0, sample_rate=_RATE)


def _noise(seconds: float, rms: float = 0.1, seed: int = 0) -> np.ndarray:
    shape = round(seconds * _RATE)
    return (rms * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def _in_graph(rows, **changes):
    """Gains of rows with NaN behind their ends."""
    length = max(map(len, rows)) + 37
    waveform = np.full((len(rows), length), np.nan, np.float32)
    mask = np.zeros(waveform.shape, bool)
    for index, row in enumerate(rows):
        waveform[index, : len(row)], mask[index, : len(row)] = row, True
    found = jax.jit(lambda x, m: level.gains(x, m, **_OPTIONS | changes))(waveform, mask)
    return np.asarray(found)[:, 0]


_SOUNDS = {
    "noise": _noise(1.0, 0.03),
    "of any length": _noise(0.777, 0.5),
    "shorter than a frame": _noise(0.03, 0.2),
    "one sample": np.array([0.25], np.float32),
    "quiet": _noise(1.0, 2e-5),
    "zeros": np.zeros(4_000, np.float32),
    "one zero": np.zeros(1, np.float32),
    "with a pause": np.concatenate([_noise(0.5), 1e-4 * _noise(2.0, seed=1), _noise(0.5)]),
    "of the size of PCM16": 32_768 * _noise(0.5),
    "huge": np.full(3_000, 3e38, np.float32),
    "hardly anything": np.full(3_000, 1e-42, np.float32),
}


@pytest.mark.parametrize("name", _SOUNDS)
def test_graphs_and_the_host_agree_and_all_is_finite(name):
    (in_graph,) = _in_graph([_SOUNDS[name]])
    on_host = level.gain(_SOUNDS[name], **_OPTIONS)
    assert np.isfinite(in_graph) and in_graph > 0
    np.testing.assert_allclose(in_graph, on_host, rtol=1e-5)
    low, high = 10 ** (level.MIN_GAIN_DB / 20), 10 ** (level.MAX_GAIN_DB / 20)
    assert low * (1 - 1e-6) <= on_host <= high * (1 + 1e-6)


def test_rows_and_what_is_behind_their_ends_change_nothing():
    together = _in_graph(list(_SOUNDS.values()))
    for found, row in zip(together, _SOUNDS.values(), strict=True):
        np.testing.assert_allclose(found, level.gain(row, **_OPTIONS), rtol=1e-5)


@pytest.mark.parametrize("factor", [0.01, 0.1, 1.0, 3.0])
def test_a_sound_is_brought_to_its_level(factor):
    sound = factor * _SOUNDS["with a pause"]
    gain = level.gain(sound, **_OPTIONS)
    heard = gain * np.concatenate([sound[:8_000], sound[-8_000:]])
    assert 20 * np.log10(np.sqrt(np.mean(heard**2))) == pytest.approx(-20.0, abs=0.01)


def test_pauses_change_nothing_and_clicks_little():
    sound = _noise(2.0)
    alone = level.gain(sound, **_OPTIONS)
    silence = np.zeros(10 * _RATE, np.float32)
    for other in ([silence, sound], [sound, silence], [sound[:16_000], silence, sound[16_000:]]):
        assert level.gain(np.concatenate(other), **_OPTIONS) == pytest.approx(alone, rel=1e-6)
    clicked = sound.copy()
    clicked[5_000] = 1.0
    assert abs(20 * np.log10(level.gain(clicked, **_OPTIONS) / alone)) < 0.1


def test_what_is_below_the_limit_gets_the_largest_gain_and_no_more():
    for rms in (0.0, 1e-7, 0.9e-3):
        assert level.gain(_noise(1.0, rms), **_OPTIONS) == pytest.approx(100.0, rel=0.02)
    assert level.gain(_noise(1.0, 2e-3), **_OPTIONS) == pytest.approx(50.0, rel=0.02)
    assert level.gain(np.zeros(0, np.float32), **_OPTIONS) == pytest.approx(100.0)


@pytest.mark.parametrize("block", [1, 333, 1_600, 100_000])
def test_blocks_are_the_whole(block, monkeypatch):
    monkeypatch.setattr(level, "_CHUNK", 7_001)
    sound = np.concatenate([_noise(1.03), 1e-4 * _noise(0.5, seed=1)])
    meter = level.Meter(**_OPTIONS)
    for start in range(0, len(sound), block):
        meter.add(sound[start : start + block])
    assert meter.gain == pytest.approx(level.gain(sound, **_OPTIONS), rel=1e-12)


def test_without_a_level_sound_is_as_it_comes():
    options = dict(level_db=0.0)
    np.testing.assert_array_equal(_in_graph(list(_SOUNDS.values()), **options), 1.0)
    assert all(level.gain(row, **_OPTIONS | options) == 1.0 for row in _SOUNDS.values())


def test_no_gradient_flows_through_a_gain():
    mask = np.ones((1, 3_000), bool)
    grad = jax.grad(lambda x: jnp.sum(level.gains(x, mask, **_OPTIONS)))(_noise(0.1875)[None])
    np.testing.assert_array_equal(grad, 0.0)


@pytest.mark.parametrize("level_db", [1.0, -61.0, float("nan")])
def test_what_is_no_level_is_refused(level_db):
    with pytest.raises(ValueError, match="config.model.level_db must be dBFS of rms, -60 to below"):
        level.check(level_db)
    level.check(-20.0)
    level.check(0.0)
