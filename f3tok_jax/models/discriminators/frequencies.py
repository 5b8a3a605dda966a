# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""X-Codec's multi-frequency discriminators, of which LoSATok and DashengTokenizer each have one.

For comparison on a CPU or GPU: of 2 to 512 channels on long maps most of a TPU's lanes are empty.
Differences from the published code: no weight norm; zeros where it pads with reflections, so that
padding has no sound; spectra without Nyquist, and not warped by as many mel bands as they have bins,
of which the low ones lie between two bins. The two rivals' own code is not known.
"""

from collections.abc import Sequence

from flax import linen as nn
import jax
import jax.numpy as jnp

from f3tok_jax.models.discriminators import bands as bands_lib
from f3tok_jax.models.discriminators import stacked_layers

STRIDES = (1, 2, 1, 2, 1, 2)  # of frames and bins, per layer before the logits
_SLOPE = 0.2  # of the leaky ReLU
_LEAST_POWER = 1e-7
_NOISE_GAIN = 0.375**0.5  # of folded_stft's spectra to those over the root of the window's length
# Levels are in dB above the lower of these, as a share of what lies between.
_SILENT_DB, _LOUD_DB = -80.0, 20.0


class MultiFrequencyDiscriminators(nn.Module):
    """Each looks at magnitudes and levels of one window size, in ever wider and coarser maps.

    Six convolutions of 3 x 3 frames and bins, of which every second has stride 2 in both, and the
    logits. What a map holds is what a layer says before its leaky ReLU, as published.

    Source: X-Codec (arXiv 2408.17175), MultiFrequencyDiscriminator of domain "double".
    """

    windows: Sequence[int]  # samples; the hop is a quarter
    channels: int  # the most of any layer
    compute_dtype: str

    @nn.compact
    def __call__(
        self, waveform: jax.Array, num_samples: jax.Array
    ) -> tuple[list[list[jax.Array]], list[list[jax.Array]]]:
        """Waveform [b, n] and its valid samples [b] -> what `Discriminators` returns."""
        each = [self._of_window(waveform, num_samples, window) for window in self.windows]
        return [maps for maps, _ in each], [valid for _, valid in each]

    def _of_window(self, waveform, num_samples, window):
        hop = window // bands_lib.HOPS_PER_WINDOW
        x = magnitudes_and_levels(waveform, window=window)
        x = _kept(x, bands_lib.valid_rows(x.shape[1], hop, num_samples))
        maps, valid = [], []
        for layer, (width, stride) in enumerate(zip(widths(window, self.channels), STRIDES)):
            x = nn.Conv(
                width,
                (3, 3),
                stride,
                padding=1,
                dtype=self.compute_dtype,
                name=f"{window}_conv_{layer}",
            )(nn.leaky_relu(x, _SLOPE) if layer else x)
            hop *= stride
            is_valid = bands_lib.valid_rows(x.shape[1], hop, num_samples)
            x = _kept(x, is_valid)
            maps.append(stacked_layers.as_stack(x))
            valid.append(_as_valid(is_valid, x))
        x = nn.leaky_relu(x.astype(jnp.float32), _SLOPE)
        logits = nn.Conv(1, (3, 3), padding=1, name=f"{window}_logits")(x)
        return [*maps, stacked_layers.as_stack(logits)[..., 0]], [*valid, valid[-1]]


def widths(window: int, channels: int) -> list[int]:
    """Of the layers before the logits: doubling up to two hops' samples, at most `channels`.

    Raises:
        ValueError: where the first would have none.
    """
    last = min(window // 2, channels)
    if last % 32:
        raise ValueError(
            "a multi_frequency discriminator's last layer must be a multiple of 32 wide, got "
            f"{last}, the least of half a window of {window} samples and of stft_channels={channels} "
            "(config.discriminators)"
        )
    return [last // 2**halvings for halvings in range(len(STRIDES) - 1, -1, -1)]


def magnitudes_and_levels(waveform: jax.Array, *, window: int) -> jax.Array:
    """Of [b, n]: [b, ceil(n / hop), window / 2, 2] float32.

    Magnitudes are of spectra over the root of the window's length; levels are 0 at -80 dB and below, 1
    at 20 dB and above.
    """
    parts = _NOISE_GAIN * bands_lib.folded_stft(waveform, window=window, fold=1)
    power = jnp.maximum(jnp.sum(jnp.square(parts), axis=-1), _LEAST_POWER)
    level_db = 10.0 * jnp.log10(power)
    level = jnp.clip((level_db - _SILENT_DB) / (_LOUD_DB - _SILENT_DB), 0.0, 1.0)
    return jnp.stack([jnp.sqrt(power), level], axis=-1)


def _kept(x: jax.Array, is_valid: jax.Array) -> jax.Array:
    """A map [b, frames, bins, c] with zeros where its frames [b, frames] are not of sound."""
    return jnp.where(is_valid[:, :, None, None], x, 0)


def _as_valid(is_valid: jax.Array, x: jax.Array) -> jax.Array:
    """Which places of a map [b, frames, bins, c] are valid, as a stack: [1, frames, bins, b]."""
    places = jnp.broadcast_to(is_valid[:, :, None, None], (*x.shape[:3], 1))
    return stacked_layers.as_stack(places)[..., 0]
