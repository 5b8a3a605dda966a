# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Short-time and mel spectra against SciPy and formulas written here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.signal import spectra


def _noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_hann_window_is_periodic():
    signal = pytest.importorskip("scipy.signal")
    # float32 storage of a float64 formula.
    np.testing.assert_allclose(
        spectra.hann_window(480), signal.get_window("hann", 480, fftbins=True), atol=1e-7
    )


@pytest.mark.parametrize(
    "frame_length, hop_length", [(64, 16), (48, 16), (50, 20), (16, 16), (100, 33)]
)
def test_frame_equals_slices(frame_length, hop_length):
    waveform = _noise(2, 333)
    frames = spectra.frame(jnp.asarray(waveform), frame_length=frame_length, hop_length=hop_length)
    count = 1 + (333 - frame_length) // hop_length
    expected = np.stack(
        [waveform[:, i * hop_length : i * hop_length + frame_length] for i in range(count)], axis=1
    )
    np.testing.assert_array_equal(frames, expected)


def test_frame_refuses_a_waveform_shorter_than_a_frame():
    with pytest.raises(ValueError, match="at least frame_length=64 samples, got 63"):
        spectra.frame(jnp.zeros((1, 63)), frame_length=64, hop_length=16)


@pytest.mark.parametrize("method", spectra.STFT_METHODS)
@pytest.mark.parametrize("frame_length, hop_length", [(64, 16), (512, 128), (480, 240), (100, 33)])
def test_stft_equals_scipy(method, frame_length, hop_length):
    signal = pytest.importorskip("scipy.signal")
    waveform = _noise(2000)
    count = 1 + (len(waveform) - frame_length) // hop_length
    transform = signal.ShortTimeFFT(
        signal.get_window("hann", frame_length, fftbins=True), hop_length, fs=1.0, phase_shift=None
    )
    # Its slice 0 has its middle at sample 0; half a frame of zeros makes it start at sample 0 of
    # ours.
    middle = transform.m_num_mid
    expected = np.stack(
        [
            transform.stft(
                waveform[i * hop_length : i * hop_length + frame_length], p0=q, p1=q + 1, k_offset=k
            )[:, 0]
            for i in range(count)
            for q, k in [(0, middle)]
        ]
    )
    real, imaginary = spectra.stft(
        jnp.asarray(waveform), frame_length=frame_length, hop_length=hop_length, method=method
    )
    # Sums of 512 products of size about 1 in float32.
    np.testing.assert_allclose(np.asarray(real) + 1j * np.asarray(imaginary), expected, atol=2e-4)


def test_stft_methods_have_equal_gradients():
    waveform, weights = jnp.asarray(_noise(2, 1500)), jnp.asarray(_noise(2, 12, 129, seed=1))

    def gradient(method):
        def loss(x):
            real, imaginary = spectra.centered_stft(
                x, frame_length=256, hop_length=128, method=method
            )
            return jnp.sum(weights * spectra.magnitude(real, imaginary))

        return jax.grad(loss)(waveform)

    # A float32 rounding of spectra of size about 10, times the slope 1 of a magnitude.
    np.testing.assert_allclose(gradient("matmul"), gradient("fft"), atol=1e-4)


@pytest.mark.parametrize("deadlocks", [False, True])
def test_programs_for_a_cpu_call_no_fft_that_would_deadlock(monkeypatch, deadlocks):
    monkeypatch.setattr(spectra, "_CPU_FFT_DEADLOCKS", deadlocks)

    def loss(waveform):
        real, imaginary = spectra.stft(waveform, frame_length=512, hop_length=128)
        return jnp.sum(real**2 + imaginary**2)

    program = jax.jit(jax.grad(loss)).trace(jnp.zeros((2, 2048))).lower(lowering_platforms=("cpu",))
    assert ("stablehlo.fft" in program.as_text()) is not deadlocks


@pytest.mark.parametrize(("passes", "least", "most"), [(1, 1e-3, 2e-3), (3, 2e-6, 4e-6)])
def test_passes_of_bfloat16_err_by_what_is_said_of_the_frames_level(passes, least, most):
    """What a TPU's product of float32 does at PRECISION, three passes, in NumPy."""
    frames, matrix = _noise(20, 512), spectra._windowed_dft(512)
    matrix = matrix / np.sqrt(np.sum(np.square(spectra.hann_window(512))))  # to unit noise gain
    exact = frames.astype(np.float64) @ matrix
    rounded = lambda x: np.asarray(jnp.asarray(x).astype(jnp.bfloat16), np.float32)
    (high, low), (by_high, by_low) = (
        (rounded(x), rounded(x - rounded(x))) for x in (frames, matrix)
    )
    products = [(high, by_high), (high, by_low), (low, by_high)][:passes]
    error = sum(one.astype(np.float64) @ two for one, two in products) - exact
    assert least < np.sqrt(np.mean(error**2) / np.mean(frames**2)) < most
    assert spectra.PRECISION == jax.lax.Precision.HIGH


def test_unknown_method_is_named():
    with pytest.raises(ValueError, match="got 'dct'"):
        spectra.stft(jnp.zeros((64,)), frame_length=64, hop_length=16, method="dct")


@pytest.mark.parametrize("num_samples", [1, 15, 16, 17, 160])
def test_centered_stft_has_one_frame_per_begun_hop(num_samples):
    real, _ = spectra.centered_stft(jnp.ones((3, num_samples)), frame_length=64, hop_length=16)
    assert real.shape == (3, -(-num_samples // 16), 33)


def test_centered_frame_sees_its_hop_in_the_middle():
    # An impulse in the middle of hop 5 has its largest magnitude in frame 5.
    waveform = jnp.zeros((160,)).at[5 * 16 + 8].set(1.0)
    real, imaginary = spectra.centered_stft(waveform, frame_length=64, hop_length=16)
    energy = np.sum(np.asarray(real) ** 2 + np.asarray(imaginary) ** 2, axis=-1)
    assert np.argmax(energy) == 5


@pytest.mark.parametrize("num_samples", [1, 160, 161, 4000])
@pytest.mark.parametrize("frame_length, hop_length, num_mels", [(400, 160, 40), (321, 160, 120)])
def test_mel_power_is_of_frames_centred_on_hops(num_samples, frame_length, hop_length, num_mels):
    waveform = np.random.default_rng(0).normal(size=num_samples).astype(np.float32)
    found = spectra.mel_power_on_host(
        waveform, 16_000, frame_length=frame_length, hop_length=hop_length, num_mels=num_mels
    )
    padded = np.pad(waveform.astype(np.float64), frame_length // 2)
    starts = range(0, len(padded) - frame_length + 1, hop_length)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame_length) / frame_length)
    frames = np.array([padded[start : start + frame_length] * window for start in starts])
    power = np.abs(np.fft.rfft(frames)) ** 2
    wanted = power @ spectra.mel_filterbank(16_000, frame_length, num_mels)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_mel_filterbank_equals_its_definition():
    sample_rate, n_fft, num_mels = 16_000, 512, 40

    def mel(hz):
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)

    def hertz(value):
        return value * 200 / 3 if value < 15 else 1000 * 6.4 ** ((value - 15) / 27)

    points = [hertz(m) for m in np.linspace(0, mel(8000.0), num_mels + 2)]
    expected = np.zeros((n_fft // 2 + 1, num_mels))
    for band in range(num_mels):
        low, centre, high = points[band : band + 3]
        for k in range(n_fft // 2 + 1):
            hz = k * sample_rate / n_fft
            if low < hz <= centre:
                expected[k, band] = (hz - low) / (centre - low)
            elif centre < hz < high:
                expected[k, band] = (high - hz) / (high - centre)
    np.testing.assert_allclose(
        spectra.mel_filterbank(sample_rate, n_fft, num_mels, unit_area=False), expected, atol=1e-6
    )
    area = 2.0 / (np.array(points[2:]) - np.array(points[:-2]))
    np.testing.assert_allclose(
        spectra.mel_filterbank(sample_rate, n_fft, num_mels), expected * area, atol=1e-8
    )


def test_mels_of_htk_are_equally_spaced_in_the_logarithm_of_hertz():
    filters = spectra.mel_filterbank(16_000, 512, 64, unit_area=False, scale="htk")
    edges = 700 * ((1 + 8000 / 700) ** (np.arange(66) / 65) - 1)
    hz = np.arange(257) * 16_000 / 512
    for band in (0, 20, 63):
        expected = np.interp(hz, edges[band : band + 3], [0, 1, 0])
        np.testing.assert_allclose(filters[:, band], expected, atol=1e-6)
    with pytest.raises(ValueError, match="the scale of mel filters must be one of .* got 'bark'"):
        spectra.mel_filterbank(16_000, 512, 64, scale="bark")


def test_mel_spectrogram_finds_a_tone():
    time = np.arange(16_000) / 16_000
    tone = jnp.asarray(np.sin(2 * np.pi * 3000 * time), jnp.float32)
    mel = spectra.mel_spectrogram(
        tone, sample_rate=16_000, frame_length=512, num_mels=40, unit_area=False
    )
    filters = spectra.mel_filterbank(16_000, 512, 40, unit_area=False)
    assert mel.shape == (125, 40)
    assert np.argmax(mel[60]) == np.argmax(filters[round(3000 / 16_000 * 512)])


def test_magnitude_has_a_finite_gradient_at_zero():
    gradient = jax.grad(lambda x: spectra.magnitude(x, x))(jnp.float32(0.0))
    assert gradient == 0.0


def test_cached_arrays_cannot_be_written():
    for array in (spectra.hann_window(64), spectra.mel_filterbank(16_000, 64, 10)):
        with pytest.raises(ValueError):
            array[0] = 1.0
