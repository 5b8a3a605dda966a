# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Training losses of the autoencoder and its discriminators.

Every loss returns (sum, weight), two float32 scalars; sum / weight is the loss, formed once after
the pairs of all microbatches have been added. `mask` is boolean [b, n], True where a sample is
valid: what lies elsewhere, NaN included, reaches neither a loss nor a gradient.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.signal import spectra
from f3tok_jax.signal import stft

Loss = tuple[jax.Array, jax.Array]

MEL_FLOOR = 1e-5  # DAC


def multi_scale_mel(
    target: jax.Array,
    output: jax.Array,
    mask: jax.Array,
    *,
    sample_rate: int,
    windows: Sequence[int],
    bands: Sequence[int],
    unit_area: bool = True,
    floor: float = MEL_FLOOR,
    method: str = "auto",
) -> Loss:
    """L1 distance of log10 mel spectra, summed over windows.

    Each window's part is the mean over bands and frames, the hop a quarter of the window. A frame
    weighs as many samples as its hop has valid ones, so the weight is the same for every window.

    Args:
        target: [b, n], float32; no gradient flows to it.
        output: [b, n], float32.
        mask: [b, n], bool.
        sample_rate: Hz.
        windows: samples.
        bands: mel bands, one number per window.
        unit_area: of the mel filters, see `spectra.mel_filterbank`; True is DAC's, False what
            `metrics.mel_distance` measures: quiet sound counts for more.
        floor: of mel magnitudes: what lies below counts as this, and has no gradient.
        method: of the STFT, see `spectra.stft`.

    Returns:
        (sum, weight); the weight is the number of valid samples.

    Source: descript-audio-codec's MelSpectrogramLoss with log weight 1, magnitude weight 0, clamp
    1e-5 and power 1; differs in padding with zeros instead of reflections, and in the mask.
    """
    _check_waveforms(target, output, mask)
    if len(windows) != len(bands):
        got = f"got {len(windows)} and {len(bands)}"
        raise ValueError(f"windows and bands must be equally many, {got}")
    target, output = _masked(target, output, mask)

    options = dict(sample_rate=sample_rate, unit_area=unit_area, method=method)

    def log_mel(waveform: jax.Array, **window: int) -> jax.Array:
        mel = spectra.mel_spectrogram(waveform, **window, **options)
        return spectra.log10_mel(mel, floor=floor)

    total = jnp.float32(0.0)
    for window, num_mels in zip(windows, bands):
        sizes = dict(frame_length=window, num_mels=num_mels)
        difference = jnp.abs(log_mel(target, **sizes) - log_mel(output, **sizes))
        total += jnp.sum(jnp.mean(difference, axis=-1) * _frame_weight(mask, window // 4))
    return total, jnp.sum(mask, dtype=jnp.float32)


def multi_resolution_stft(
    target: jax.Array,
    output: jax.Array,
    mask: jax.Array,
    *,
    windows: Sequence[int],
    method: str = "auto",
) -> Loss:
    """L1 distance of magnitudes plus L1 distance of log10 squared magnitudes, summed over windows.

    No spectral convergence: its ratio of norms does not add over batches.

    Args:
        target: [b, n], float32; no gradient flows to it.
        output: [b, n], float32.
        mask: [b, n], bool.
        windows: samples; the hop is a quarter.
        method: of the STFT, see `spectra.stft`.

    Returns:
        (sum, weight); the weight is the number of valid samples.

    Source: descript-audio-codec's MultiScaleSTFTLoss (clamp 1e-5, power 2, both weights 1).
    """
    _check_waveforms(target, output, mask)
    target, output = _masked(target, output, mask)

    def spectrum(waveform: jax.Array, window: int) -> jax.Array:
        sizes = dict(frame_length=window, hop_length=window // 4)
        return spectra.magnitude(*spectra.centered_stft(waveform, **sizes, method=method))

    total = jnp.float32(0.0)
    for window in windows:
        target_magnitude, output_magnitude = spectrum(target, window), spectrum(output, window)
        difference = jnp.abs(target_magnitude - output_magnitude) + 2.0 * jnp.abs(
            spectra.log10_mel(target_magnitude) - spectra.log10_mel(output_magnitude)
        )
        total += jnp.sum(jnp.mean(difference, axis=-1) * _frame_weight(mask, window // 4))
    return total, jnp.sum(mask, dtype=jnp.float32)


def compressed_spectrum(
    target: jax.Array,
    output: jax.Array,
    mask: jax.Array,
    *,
    hop_length: int,
    exponent: float,
    num_bins: int,
) -> Loss:
    """Mean square difference of spectra with their phases, magnitudes raised to `exponent`.

    What a decoder says is expanded before it is sound, which takes the gradient away from what is
    quiet: by a distance of samples a decoder that has fallen silent, of phases that it does not know
    yet, stays so. By this one it does not.

    Args:
        target: [b, n], float32; no gradient flows to it.
        output: [b, n], float32.
        mask: [b, n], bool.
        hop_length: samples; a frame is two hops, as the autoencoder's own.
        exponent: of the magnitudes, see `stft.compress`.
        num_bins: the lowest, that are compared: of those above, whose phases the latents cannot hold,
            it would have silence made.

    Returns:
        (sum, weight); the weight is the number of valid samples.

    Source: the complex term of Braun and Tashev, "Data augmentation and loss normalization for deep
    noise suppression", 2020.
    """
    _check_waveforms(target, output, mask)
    target, output = _masked(target, output, mask)
    missing = -target.shape[1] % hop_length

    def spectrum(waveform: jax.Array) -> jax.Array:
        waveform = jnp.pad(waveform, ((0, 0), (hop_length, missing)))
        found = stft.waveform_to_spectrum(waveform, hop_length=hop_length)
        return stft.compress(found[..., : 2 * num_bins], exponent)

    difference = jnp.square(spectrum(target) - spectrum(output)).sum(axis=-1) / num_bins
    return jnp.sum(difference * _frame_weight(mask, hop_length)), jnp.sum(mask, dtype=jnp.float32)


def waveform_l1(target: jax.Array, output: jax.Array, mask: jax.Array) -> Loss:
    """Absolute difference of samples; the weight is the number of valid samples."""
    _check_waveforms(target, output, mask)
    target, output = _masked(target, output, mask)
    return jnp.sum(jnp.abs(target - output)), jnp.sum(mask, dtype=jnp.float32)


def _masked(target: jax.Array, output: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both waveforms in float32 with zeros where they are not valid, the target detached."""
    target = jax.lax.stop_gradient(target).astype(jnp.float32)
    return jnp.where(mask, target, 0.0), jnp.where(mask, output.astype(jnp.float32), 0.0)


def _frame_weight(mask: jax.Array, hop_length: int) -> jax.Array:
    """Valid samples in each hop: [b, ceil(n / hop_length)], float32."""
    batch_size, num_samples = mask.shape
    count = spectra.num_frames(num_samples, hop_length)
    mask = jnp.pad(mask, ((0, 0), (0, count * hop_length - num_samples)))
    return jnp.sum(mask.reshape(batch_size, count, hop_length), axis=-1, dtype=jnp.float32)


def _check_waveforms(target: jax.Array, output: jax.Array, mask: jax.Array) -> None:
    if not target.ndim == 2 or not target.shape == output.shape == mask.shape:
        raise ValueError(
            f"target, output and mask must be [batch, samples] of one shape, got {target.shape}, "
            f"{output.shape} and {mask.shape}; trim the output to the target's length"
        )
    if mask.dtype != np.bool_:
        raise ValueError(f"mask must be boolean, True where valid, got {mask.dtype}")
