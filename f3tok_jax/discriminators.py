# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The judges of adversarial training: multi-period and multi-band complex STFT discriminators.

Both are descript-audio-codec's (DAC) in what they look at, and folded in how they compute: the early
layers of the published ones keep 1 to 32 channels on long maps, a quarter or less of a TPU's 128 lanes.
Here neighbouring steps of a period's row, and neighbouring bins of a spectrum, become channels first,
and fewer, wider layers follow. Weight norm, which DAC has, is left out: with AdamW and clipped gradients
nothing here showed a need for it, and every use costs a pass over the weights.
"""

from collections.abc import Sequence

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

_SLOPE = 0.1  # of the leaky ReLU (DAC)
_PEAK = 0.8  # that a waveform is scaled to (DAC)
# Below this peak (-60 dBFS) a waveform is not raised further: DAC's 1e-9 would amplify silence, and
# its gradient, by up to 8e8.
_PEAK_FLOOR = 1e-3
# (kernel, stride) of a period discriminator's layers along its row. With a fold of 27 the total stride
# is 81, as DAC's four layers of stride 3 have.
_PERIOD_LAYERS = ((5, 1), (5, 3), (3, 1))
_STFT_LAYERS = 3  # 3 x 3 convolutions of each band before the joint one
_HOPS_PER_WINDOW = 4  # DAC


class Discriminators(nn.Module):
    """All discriminators side by side.

    Attributes:
        periods: samples; one discriminator each.
        period_fold: steps of a row that become channels before the first layer.
        period_channels: widths of the layers of a period discriminator.
        stft_windows: samples; one discriminator each. The hop is a quarter.
        stft_bands: increasing edges as fractions of the Nyquist frequency, from 0 to 1.
        stft_fold: neighbouring bins that become channels before the first layer.
        stft_channels: width of the layers of an STFT discriminator.
        compute_dtype: of the convolutions; preparation and STFT are float32, parameters float32.
    """

    periods: Sequence[int]
    period_fold: int
    period_channels: Sequence[int]
    stft_windows: Sequence[int]
    stft_bands: Sequence[float]
    stft_fold: int
    stft_channels: int
    compute_dtype: str = "float32"

    @nn.compact
    def __call__(self, waveform: jax.Array) -> list[list[jax.Array]]:
        """Judges `waveform` [b, n], float32.

        Returns:
            One list per discriminator, periods first, in the order of the fields: feature maps in the
            compute dtype, then, last, the logits in float32. Every map has the batch as first axis and
            channels (1 for logits) as last.
        """
        if waveform.ndim != 2:
            raise ValueError(f"waveform must be [batch, samples], got shape {waveform.shape}")
        with jax.named_scope("discriminators"):
            waveform = prepare(waveform)
            maps = []
            for period in self.periods:
                judge = PeriodDiscriminator(
                    period=period, fold=self.period_fold, channels=self.period_channels,
                    compute_dtype=self.compute_dtype, name=f"period_{period}")
                maps.append(judge(waveform))
            for window in self.stft_windows:
                judge = STFTDiscriminator(
                    window=window, bands=self.stft_bands, fold=self.stft_fold,
                    channels=self.stft_channels, compute_dtype=self.compute_dtype,
                    name=f"stft_{window}")
                maps.append(judge(waveform))
            return maps


class PeriodDiscriminator(nn.Module):
    """Judges every `period`-th sample as a row of its own; the rows share the weights."""

    period: int  # samples
    fold: int  # steps of a row that become channels
    channels: Sequence[int]
    compute_dtype: str

    @nn.compact
    def __call__(self, waveform: jax.Array) -> list[jax.Array]:
        """Waveform [b, n] -> feature maps [b, period, steps, c] and logits [b, period, steps, 1]."""
        batch = waveform.shape[0]
        x = period_view(waveform, period=self.period, fold=self.fold).astype(self.compute_dtype)
        x = x.reshape(batch * self.period, *x.shape[2:])
        maps = []
        for index, width in enumerate(self.channels):
            kernel, stride = _PERIOD_LAYERS[min(index, len(_PERIOD_LAYERS) - 1)]
            x = nn.Conv(width, (kernel,), strides=(stride,), padding=(kernel // 2,),
                        dtype=self.compute_dtype, name=f"conv_{index}")(x)
            x = nn.leaky_relu(x, _SLOPE)
            maps.append(x)
        logits = nn.Conv(1, (3,), padding=(1,), dtype=self.compute_dtype, name="logits")(x)
        maps.append(logits.astype(jnp.float32))
        return [m.reshape(batch, self.period, *m.shape[1:]) for m in maps]


class STFTDiscriminator(nn.Module):
    """Judges the complex spectrum of one window size: each band by layers of its own, then all."""

    window: int  # samples
    bands: Sequence[float]  # edges as fractions of Nyquist
    fold: int  # bins that become channels
    channels: int
    compute_dtype: str

    @nn.compact
    def __call__(self, waveform: jax.Array) -> list[jax.Array]:
        """Waveform [b, n] -> feature maps [b, t, bins / fold, c], band by band, and logits."""
        spectrum = folded_stft(waveform, window=self.window, fold=self.fold)
        spectrum = spectrum.astype(self.compute_dtype)
        edges = band_edges(self.bands, num_groups=spectrum.shape[2])
        maps, outputs = [], []
        for band, (low, high) in enumerate(zip(edges[:-1], edges[1:])):
            x = spectrum[:, :, low:high]
            for layer in range(_STFT_LAYERS):
                x = nn.Conv(self.channels, (3, 3), padding=(1, 1), dtype=self.compute_dtype,
                            name=f"band_{band}_conv_{layer}")(x)
                x = nn.leaky_relu(x, _SLOPE)
                maps.append(x)
            outputs.append(x)
        x = jnp.concatenate(outputs, axis=2)
        logits = nn.Conv(1, (3, 3), padding=(1, 1), dtype=self.compute_dtype, name="logits")(x)
        return [*maps, logits.astype(jnp.float32)]


def prepare(waveform: jax.Array) -> jax.Array:
    """Removes the mean of `waveform` [b, n] and scales its peak to 0.8, in float32 (DAC)."""
    waveform = waveform.astype(jnp.float32)
    waveform = waveform - jnp.mean(waveform, axis=-1, keepdims=True)
    peak = jnp.max(jnp.abs(waveform), axis=-1, keepdims=True)
    return waveform * (_PEAK / jnp.maximum(peak, _PEAK_FLOOR))


def period_view(waveform: jax.Array, *, period: int, fold: int) -> jax.Array:
    """Rows of every `period`-th sample, `fold` steps of a row side by side as channels.

    Args:
        waveform: [b, n]; zeros are added at its end up to a multiple of period x fold.
        period: samples between two steps of a row.
        fold: steps that become channels.

    Returns:
        [b, period, steps, fold] with out[:, r, s, i] = waveform[:, (s * fold + i) * period + r].
    """
    batch, length = waveform.shape
    waveform = jnp.pad(waveform, ((0, 0), (0, -length % (period * fold))))
    return waveform.reshape(batch, -1, fold, period).transpose(0, 3, 1, 2)


def folded_stft(waveform: jax.Array, *, window: int, fold: int) -> jax.Array:
    """Complex STFT with a Hann window and a hop of a quarter, without Nyquist, bins folded.

    A matrix product rather than an FFT: the TPU compiler takes seconds instead of tens of seconds for
    it, and its cost is small beside the convolutions'. The hops of a window are the taps of a
    convolution over blocks of one hop, so that overlapping frames are never written out.

    Args:
        waveform: [b, n]; padded with zeros so that every hop is the middle of a frame.
        window: samples, a multiple of 4; the spectrum is scaled to unit noise gain.
        fold: neighbouring bins that become channels; divides window / 2.

    Returns:
        [b, ceil(n / hop), window / 2 / fold, 2 * fold] float32; channels are (bin, real or imaginary).
    """
    if window % _HOPS_PER_WINDOW or (window // 2) % fold:
        raise ValueError(
            f"an STFT window must be a multiple of {_HOPS_PER_WINDOW} whose half is a multiple of "
            f"stft_fold={fold}, got {window} (discriminators.stft_windows)")
    hop = window // _HOPS_PER_WINDOW
    batch, length = waveform.shape
    margin = (window - hop) // 2
    # The margin is 1.5 hops: shift by half a hop on the left and by a whole number of hops in all.
    waveform = jnp.pad(waveform, ((0, 0), (margin, -length % hop + window - hop - margin)))
    blocks = waveform.reshape(batch, -1, hop)
    spectrum = lax.conv_general_dilated(
        blocks, jnp.asarray(_dft(window).reshape(_HOPS_PER_WINDOW, hop, window)), (1,), "VALID",
        dimension_numbers=("NWC", "WIO", "NWC"), precision=lax.Precision.HIGHEST)
    return spectrum.reshape(batch, -1, window // 2 // fold, 2 * fold)


def band_edges(bands: Sequence[float], *, num_groups: int) -> list[int]:
    """Edges of the bands in groups of folded bins; raises ValueError where a band would be empty."""
    edges = [round(edge * num_groups) for edge in bands]
    increasing = all(low < high for low, high in zip(edges[:-1], edges[1:]))
    if edges[0] != 0 or edges[-1] != num_groups or not increasing:
        raise ValueError(
            f"stft_bands must increase from 0.0 to 1.0 with at least one of the {num_groups} groups of "
            f"bins in each band, got {tuple(bands)}; use fewer bands, a smaller stft_fold or longer "
            f"stft_windows (config.discriminators)")
    return edges


def _dft(window: int) -> np.ndarray:
    """Hann-windowed DFT as a matrix [window, window]: columns are (bin, real or imaginary)."""
    sample = np.arange(window)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * sample / window)
    angle = 2 * np.pi * (np.outer(sample, np.arange(window // 2)) % window) / window
    matrix = np.stack([np.cos(angle), -np.sin(angle)], axis=-1) * hann[:, None, None]
    return (matrix.reshape(window, window) / np.sqrt(np.sum(hann**2))).astype(np.float32)
