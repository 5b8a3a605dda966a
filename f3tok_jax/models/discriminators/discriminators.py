# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The discriminators of adversarial training: multi-period and multi-band complex STFT.

Both look at what descript-audio-codec's (DAC) look at, and compute it folded: the published ones
keep 1 to 32 channels on long maps, a quarter or less of a TPU's 128 lanes. Here neighbouring steps
of a period's row, and neighbouring bins and frames of a spectrum, become channels first, and fewer,
wider layers follow, with nearly the same receptive fields. Every layer is a matrix product over
positions, and discriminators of one kind, which then have equal shapes, are computed as one stack
(stacked_layers.py): the TPU compiler takes a fraction of the time of a convolution per
discriminator, and a CPU differentiates matrix products fast. Weight norm, which DAC has, is left
out.
"""

from collections.abc import Sequence

from flax import linen as nn
import jax
import jax.numpy as jnp

from f3tok_jax.models.discriminators import bands as bands_lib
from f3tok_jax.models.discriminators import periods as periods_lib

_PEAK = 0.8  # that a waveform is scaled to (DAC)
# Below this peak (-60 dBFS) a waveform is not raised further: DAC's 1e-9 would amplify silence, and
# its gradient, by up to 8e8.
_PEAK_FLOOR = 1e-3


class Discriminators(nn.Module):
    """All discriminators side by side.

    Attributes:
        periods: samples; one discriminator each.
        period_fold: steps of a row that become channels before the first layer.
        period_channels: widths of the layers of a period discriminator, at least two.
        stft_windows: samples; one discriminator each. The hop is a quarter.
        stft_bands: increasing edges as fractions of the Nyquist frequency, from 0 to 1.
        stft_fold: neighbouring bins that become channels before the first layer.
        stft_channels: width of the layers of an STFT discriminator.
        compute_dtype: of the layers; preparation and STFT are float32, parameters float32.
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
        """Discriminates `waveform` [b, n], float32.

        Returns:
            One list per discriminator, periods first, in the order of the fields: feature maps
            [b, positions, c] in the compute dtype, then, last, the logits [b, positions, 1] in
            float32. Where maps of a stack differ in length, the shorter end in zeros; logits do
            not.
        """
        if waveform.ndim != 2:
            raise ValueError(f"waveform must be [batch, samples], got shape {waveform.shape}")
        with jax.named_scope("discriminators"):
            waveform = prepare(waveform)
            maps = []
            if self.periods:
                maps += periods_lib.PeriodDiscriminators(
                    periods=self.periods,
                    fold=self.period_fold,
                    channels=self.period_channels,
                    compute_dtype=self.compute_dtype,
                    name="period",
                )(waveform)
            if self.stft_windows:
                maps += bands_lib.STFTDiscriminators(
                    windows=self.stft_windows,
                    bands=self.stft_bands,
                    fold=self.stft_fold,
                    channels=self.stft_channels,
                    compute_dtype=self.compute_dtype,
                    name="stft",
                )(waveform)
            return maps


def prepare(waveform: jax.Array) -> jax.Array:
    """Removes the mean of `waveform` [b, n] and scales its peak to 0.8, in float32 (DAC)."""
    waveform = waveform.astype(jnp.float32)
    waveform = waveform - jnp.mean(waveform, axis=-1, keepdims=True)
    peak = jnp.max(jnp.abs(waveform), axis=-1, keepdims=True)
    return waveform * (_PEAK / jnp.maximum(peak, _PEAK_FLOOR))
