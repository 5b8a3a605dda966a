# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Losses against NumPy, at silence, and with NaN in the padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.losses import reconstruction as reconstruction_losses
from f3tok_jax.signal import spectra

_SPECTRUM = dict(hop_length=160, exponent=0.5, num_bins=60)
_MEL = dict(sample_rate=16_000, windows=(64, 512), bands=(10, 40))


def _pair(num_samples: int = 1600, batch: int = 2) -> tuple[jax.Array, jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    target, output = rng.uniform(-0.5, 0.5, (2, batch, num_samples)).astype(np.float32)
    return jnp.asarray(target), jnp.asarray(output), jnp.ones((batch, num_samples), bool)


_WAVEFORM_LOSSES = {
    "mel": jax.jit(lambda *args: reconstruction_losses.multi_scale_mel(*args, **_MEL)),
    "stft": jax.jit(
        lambda *args: reconstruction_losses.multi_resolution_stft(*args, windows=(512, 128))
    ),
    "spectrum": jax.jit(
        lambda *args: reconstruction_losses.compressed_spectrum(*args, **_SPECTRUM)
    ),
    "waveform": jax.jit(reconstruction_losses.waveform_l1),
}
waveform_losses = pytest.mark.parametrize("loss", _WAVEFORM_LOSSES.values(), ids=_WAVEFORM_LOSSES)


def _numpy_magnitude(waveform: np.ndarray, window: int) -> np.ndarray:
    """Frame by frame in float64: frame i has its middle in hop i."""
    hop = window // 4
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    rows = []
    for i in range(-(-len(waveform) // hop)):
        frame = np.zeros(window)
        for k in range(window):
            j = i * hop + k - (window - hop) // 2
            if 0 <= j < len(waveform):
                frame[k] = waveform[j]
        rows.append(np.abs(np.fft.rfft(frame * taper)))
    return np.array(rows)


def test_multi_scale_mel_equals_numpy():
    target, output, mask = _pair(640, batch=1)
    value, weight = reconstruction_losses.multi_scale_mel(target, output, mask, **_MEL)
    expected = 0.0
    for window, bands in zip(_MEL["windows"], _MEL["bands"]):
        # Its filters have their own test against the definition.
        filters = spectra.mel_filterbank(16_000, window, bands)
        a, b = (
            np.log10(np.maximum(_numpy_magnitude(np.asarray(x[0]), window) @ filters, 1e-5))
            for x in (target, output)
        )
        expected += np.mean(np.abs(a - b))
    # float32 spectra; a logarithm keeps their relative error.
    assert float(value / weight) == pytest.approx(expected, rel=1e-4)
    assert float(weight) == 640


def test_multi_resolution_stft_equals_numpy():
    target, output, mask = _pair(640, batch=1)
    value, weight = reconstruction_losses.multi_resolution_stft(
        target, output, mask, windows=(128,)
    )
    a, b = (_numpy_magnitude(np.asarray(x[0]), 128) for x in (target, output))
    log_difference = np.log10(np.maximum(a, 1e-5) ** 2) - np.log10(np.maximum(b, 1e-5) ** 2)
    expected = np.mean(np.abs(a - b)) + np.mean(np.abs(log_difference))
    assert float(value / weight) == pytest.approx(expected, rel=1e-4)


def test_compressed_spectrum_equals_numpy():
    """Frame i begins a hop before hop i; no Nyquist bin; white noise keeps its rms."""
    target, output, mask = _pair(800, batch=1)
    value, weight = reconstruction_losses.compressed_spectrum(target, output, mask, **_SPECTRUM)
    hop = _SPECTRUM["hop_length"]
    window = 0.5 - 0.5 * np.cos(np.pi * np.arange(2 * hop) / hop)

    def compressed(waveform: np.ndarray) -> np.ndarray:
        waveform = np.pad(waveform, (hop, 0)).astype(np.float64)
        frames = [waveform[i : i + 2 * hop] * window for i in range(0, 800, hop)]
        bins = np.fft.rfft(frames)[:, :60] / np.sqrt(np.sum(window**2))
        return bins / np.sqrt(np.abs(bins))

    a, b = (compressed(np.asarray(x[0])) for x in (target, output))
    assert float(value / weight) == pytest.approx(np.mean(np.abs(a - b) ** 2), rel=1e-3)


def test_the_compressed_spectrum_hears_phases():
    target, _, mask = _pair()
    value, weight = reconstruction_losses.compressed_spectrum(target, -target, mask, **_SPECTRUM)
    silent, _ = reconstruction_losses.compressed_spectrum(target, 0 * target, mask, **_SPECTRUM)
    assert float(value) == pytest.approx(4 * float(silent), rel=1e-4)
    mel = reconstruction_losses.multi_scale_mel(target, -target, mask, **_MEL)
    assert float(mel[0] / mel[1]) < 1e-5


@waveform_losses
def test_equal_sounds_have_no_loss_and_others_have(loss):
    target, output, mask = _pair()
    value, weight = loss(target, target, mask)
    # The two sides may be compiled into sums of another order.
    assert value / weight < 1e-5
    assert loss(target, output, mask)[0] > 0.0


@waveform_losses
def test_losses_are_float32_whatever_comes_in(loss):
    target, output, mask = _pair()
    value, weight = loss(target.astype(jnp.bfloat16), output.astype(jnp.bfloat16), mask)
    assert value.dtype == weight.dtype == jnp.float32 and value.shape == weight.shape == ()


@waveform_losses
def test_padding_with_nan_changes_nothing(loss):
    target, output, mask = _pair()
    mask = mask.at[0, 1000:].set(False).at[1].set(False)

    def value(target, output):
        total, weight = loss(target, output, mask)
        return total / weight

    clean = jax.value_and_grad(value, argnums=1)(
        jnp.where(mask, target, 0.3), jnp.where(mask, output, -0.1)
    )
    dirty = jax.value_and_grad(value, argnums=1)(
        jnp.where(mask, target, jnp.nan), jnp.where(mask, output, jnp.nan)
    )
    np.testing.assert_array_equal(clean[0], dirty[0])
    np.testing.assert_array_equal(clean[1], dirty[1])
    assert np.isfinite(clean[0]) and clean[0] > 0.0
    assert np.all(np.asarray(dirty[1])[~np.asarray(mask)] == 0.0)


@waveform_losses
@pytest.mark.parametrize("silent", ["target", "output", "both"])
def test_gradients_are_finite_at_digital_silence(loss, silent):
    target, output, mask = _pair()
    target = target * (silent == "output")
    output = output * (silent == "target")
    gradient = jax.grad(lambda x: loss(target, x, mask)[0])(output)
    assert np.all(np.isfinite(gradient))


@waveform_losses
def test_sums_and_weights_add_over_examples(loss):
    target, output, mask = _pair()
    mask = mask.at[0, 700:].set(False)
    whole = loss(target, output, mask)
    parts = [loss(target[i : i + 1], output[i : i + 1], mask[i : i + 1]) for i in range(2)]
    # Sums of positive float32 terms in another order.
    assert float(whole[0]) == pytest.approx(float(parts[0][0] + parts[1][0]), rel=1e-5)
    assert whole[1] == parts[0][1] + parts[1][1] == 700 + 1600


@waveform_losses
def test_no_gradient_flows_to_the_target(loss):
    target, output, mask = _pair()
    assert not np.any(jax.grad(lambda x: loss(x, output, mask)[0])(target))


def test_mask_must_be_boolean_and_shapes_must_agree():
    target, output, mask = _pair()
    with pytest.raises(ValueError, match="mask must be boolean"):
        reconstruction_losses.waveform_l1(target, output, mask.astype(jnp.float32))
    with pytest.raises(ValueError, match="trim the output"):
        reconstruction_losses.waveform_l1(target, output[:, :-1], mask)
    with pytest.raises(ValueError, match="equally many, got 2 and 1"):
        reconstruction_losses.multi_scale_mel(
            target, output, mask, sample_rate=16_000, windows=(64, 128), bands=(10,)
        )
