# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Discriminators in descript-audio-codec's own geometry (DAC), as plain convolutions.

For comparison on a CPU or GPU; the folded ones (periods.py, bands.py) are the TPU's. Differences
from the published code: no weight norm; zeros where it pads with reflections, so that padding has no
sound; spectra without Nyquist and scaled to unit noise gain, where its are not scaled.
"""

from collections.abc import Sequence

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.models.discriminators import bands as bands_lib
from f3tok_jax.models.discriminators import stacked_layers

_PERIOD_WIDTHS = (32, 128, 512, 1024, 1024)
PERIOD_KERNEL, PERIOD_STRIDE = 5, 3  # the last layer has no stride
# (frames, bins) of a band's layers.
STFT_KERNELS = ((3, 9), (3, 9), (3, 9), (3, 9), (3, 3))
STFT_STRIDES = (1, 2, 2, 2, 1)  # of bins


class PeriodDiscriminators(nn.Module):
    """Each looks at every `period`-th sample as a row of its own; the rows share the weights."""

    periods: Sequence[int]  # samples
    channels: Sequence[int]  # widths of the five layers
    compute_dtype: str

    @nn.compact
    def __call__(
        self, waveform: jax.Array, num_samples: jax.Array
    ) -> tuple[list[list[jax.Array]], list[list[jax.Array]]]:
        """Waveform [b, n] and its valid samples [b] -> what `Discriminators` returns."""
        if len(self.channels) != len(_PERIOD_WIDTHS):
            raise ValueError(
                f"period_channels must name {len(_PERIOD_WIDTHS)} widths where "
                f"config.discriminators.kind is 'dac', as published {_PERIOD_WIDTHS}, got "
                f"{tuple(self.channels)} (config.discriminators)"
            )
        each = [self._of_period(waveform, num_samples, period) for period in self.periods]
        return [maps for maps, _ in each], [valid for _, valid in each]

    def _of_period(self, waveform, num_samples, period):
        x = stacked_layers.pad_to(waveform, multiple=period, axis=1).astype(self.compute_dtype)
        # [b, steps, rows] -> [b, rows, steps, 1]
        x = x.reshape(x.shape[0], -1, period).swapaxes(1, 2)[..., None]
        step_samples, maps, valid = period, [], []
        for layer, width in enumerate(self.channels):
            stride = PERIOD_STRIDE if layer < len(self.channels) - 1 else 1
            step_samples *= stride
            x = nn.Conv(
                width,
                (PERIOD_KERNEL,),
                stride,
                padding=PERIOD_KERNEL // 2,
                dtype=self.compute_dtype,
                name=f"{period}_conv_{layer}",
            )(x)
            first = np.arange(period)[:, None] + np.arange(x.shape[2])[None] * step_samples
            is_valid = first[None] < num_samples[:, None, None]
            x = jnp.where(is_valid[..., None], stacked_layers.leaky_relu(x), 0)
            maps.append(stacked_layers.as_stack(x))
            valid.append(stacked_layers.as_stack(is_valid[..., None])[..., 0])
        x = nn.Conv(1, (3,), padding=1, name=f"{period}_logits")(x.astype(jnp.float32))
        return [*maps, stacked_layers.as_stack(x)[..., 0]], [*valid, valid[-1]]


class STFTDiscriminators(nn.Module):
    """Each looks at the complex spectrum of one window size: every band by weights of its own, then
    all."""

    windows: Sequence[int]  # samples
    bands: Sequence[float]  # edges as fractions of Nyquist
    channels: int
    compute_dtype: str

    @nn.compact
    def __call__(
        self, waveform: jax.Array, num_samples: jax.Array
    ) -> tuple[list[list[jax.Array]], list[list[jax.Array]]]:
        """Waveform [b, n] and its valid samples [b] -> what `Discriminators` returns."""
        each = [self._of_window(waveform, num_samples, window) for window in self.windows]
        return [maps for maps, _ in each], [valid for _, valid in each]

    def _of_window(self, waveform, num_samples, window):
        spectrum = bands_lib.folded_stft(waveform, window=window, fold=1)
        edges = bands_lib.band_edges(self.bands, num_groups=window // 2)
        hop = window // bands_lib.HOPS_PER_WINDOW
        of_sound = bands_lib.valid_rows(spectrum.shape[1], hop, num_samples)  # [b, frames]

        def kept(x):
            return jnp.where(of_sound[:, :, None, None], x, 0)

        def stack(x):  # a map [b, frames, bins, c] and which of its places are valid
            is_valid = jnp.broadcast_to(of_sound[:, :, None, None], (*x.shape[:3], 1))
            return stacked_layers.as_stack(x), stacked_layers.as_stack(is_valid)[..., 0]

        spectrum = kept(spectrum).astype(self.compute_dtype)
        maps, last = [], []
        for band, (low, high) in enumerate(zip(edges[:-1], edges[1:])):
            x = spectrum[:, :, low:high]
            for layer, (kernel, stride) in enumerate(zip(STFT_KERNELS, STFT_STRIDES)):
                x = nn.Conv(
                    self.channels,
                    kernel,
                    (1, stride),
                    padding=[(size // 2, size // 2) for size in kernel],
                    dtype=self.compute_dtype,
                    name=f"{window}_band_{band}_conv_{layer}",
                )(x)
                x = kept(stacked_layers.leaky_relu(x))
                maps.append(stack(x))
            last.append(x)
        x = jnp.concatenate(last, axis=2).astype(jnp.float32)
        logits, is_valid = stack(nn.Conv(1, (3, 3), padding=1, name=f"{window}_logits")(x))
        maps.append((logits[..., 0], is_valid))
        return [values for values, _ in maps], [is_valid for _, is_valid in maps]
