# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The parts of the embedded sounds, against direct sums written out here."""

import numpy as np
import pytest

from data_pipelines.embedded import synthesis

_RATE = 8_000  # Hz


def test_modes_equal_the_direct_sum():
    frequencies = np.array([110.0, 333.3, 2000.0, 3900.0])
    amplitudes = np.array([1.0, 0.5, -0.2, 9.0])
    decay_times = np.array([0.5, 0.1, 0.02, 1.0])
    signal = synthesis.Span(1001, _RATE).modes(
        frequencies, amplitudes=amplitudes, decay_times=decay_times, phases=0.3
    )
    times = np.arange(1001) / _RATE
    expected = sum(
        amplitude * np.exp(-times / decay) * np.sin(2.0 * np.pi * frequency * times + 0.3)
        for frequency, amplitude, decay in zip(frequencies[:3], amplitudes, decay_times)
    )
    # The fourth mode is above 0.47 of the rate and left out; double precision otherwise.
    np.testing.assert_allclose(signal, expected, atol=1e-10)


def test_oscillator_equals_the_direct_sum():
    frequency = np.linspace(100.0, 400.0, 4000)
    span = synthesis.Span(len(frequency), _RATE)
    signal = span.oscillator(frequency, harmonics=np.array([1.0, 0.0, 0.5]))
    phase = 2.0 * np.pi * np.cumsum(frequency) / _RATE
    # Linear interpolation in a table of 4096 points errs by (2 pi 3 / 4096)**2 / 8 at most.
    np.testing.assert_allclose(signal, np.sin(phase) + 0.5 * np.sin(3.0 * phase), atol=1e-5)


def test_oscillator_leaves_out_what_would_alias():
    signal = synthesis.Span(4096, _RATE).oscillator(1500.0, harmonics=np.ones(10))
    power = np.abs(np.fft.rfft(signal * np.hanning(4096))) ** 2
    assert np.sort(power)[-8:].sum() > 0.999 * power.sum()  # 1.5 and 3 kHz, a few bins each


def test_convolve_equals_numpy():
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal(1000), rng.standard_normal(77)
    np.testing.assert_allclose(
        synthesis.convolve(left, right), np.convolve(left, right)[:1000], atol=1e-10
    )


def test_noise_follows_its_response():
    span = synthesis.Span(20_011, _RATE)
    noise = span.band_noise(np.random.default_rng(0), 500.0, 1000.0, slope=8.0)
    assert len(noise) == 20_011
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(1.0)
    power = np.abs(np.fft.rfft(noise)) ** 2
    frequencies = np.fft.rfftfreq(len(noise), 1.0 / _RATE)
    assert power[(frequencies > 400.0) & (frequencies < 1250.0)].sum() > 0.97 * power.sum()


def test_balanced_choice_gives_each_name_once_per_block():
    names = ("a", "b", "c", "d", "e")
    chosen = [
        synthesis.balanced_choice(names, stream="test", seed=1, index=index) for index in range(50)
    ]
    for block in range(10):
        assert sorted(chosen[5 * block : 5 * block + 5]) == list(names)
    assert len({tuple(chosen[5 * block : 5 * block + 5]) for block in range(10)}) > 5


def test_generator_depends_on_its_names_alone():
    # Written down once: a change would make every corpus another corpus.
    assert synthesis.generator("speech", 0, 1).integers(0, 2**32) == synthesis.generator(
        "speech", 0, 1
    ).integers(0, 2**32)
    assert synthesis.generator("golden", 0).integers(0, 2**32) == 613740919


def test_place_adds_and_cuts():
    parts = [(0.0, np.ones(3)), (0.25, np.ones(3)), (9.0, np.ones(3))]
    mixed = synthesis.Span(4, 8).place(parts)
    np.testing.assert_array_equal(mixed, [1.0, 1.0, 2.0, 1.0])


def test_finish_keeps_inside_the_range():
    for seed in range(20):
        waveform = synthesis.finish(
            np.sin(np.arange(8000) * 0.1), np.random.default_rng(seed), sample_rate=_RATE
        )
        assert waveform.dtype == np.float32
        assert 10.0 ** (-20.5 / 20.0) < np.abs(waveform).max() < 0.981
