# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Discriminators of every n-th sample: the multi-period ones of HiFi-GAN and DAC, folded."""

from collections.abc import Sequence

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.models.discriminators import stacked_layers

_KERNEL = 5  # folded steps that the first layer sees (DAC's kernel)
_STRIDE = 3  # of the second layer; with a fold of 27 the total is 81, as DAC's
_BOTH_NEIGHBOURS = ((1, 1),)  # padding of a kernel of 3


class PeriodDiscriminators(nn.Module):
    """Each looks at every `period`-th sample as a row of its own; the rows share the weights.

    Layers: kernel 5; kernel and stride 3; kernel 3 from there on. A position is a block of three
    folded steps of a row, which the second layer joins: they share a position from the start. Rows
    follow each other with a position of zeros between, so that none sees another.
    """

    periods: Sequence[int]  # samples
    fold: int  # steps of a row that become channels
    channels: Sequence[int]  # widths of at least two layers
    compute_dtype: str

    @nn.compact
    def __call__(
        self, waveform: jax.Array, num_samples: jax.Array
    ) -> tuple[list[list[jax.Array]], list[list[jax.Array]]]:
        """Waveform [b, n] and its valid samples [b] -> what `Discriminators` returns: one stack."""
        if len(self.channels) < 2:
            got = f"{self.channels} (config.discriminators)"
            raise ValueError(f"period_channels must name at least 2 widths, got {got}")
        stack = len(self.periods)
        x, valid = self._blocks(waveform, num_samples)
        # One product makes the three steps of a block, side by side as channels.
        shape = (stack, _KERNEL, self.fold, self.channels[0])
        kernel, bias = stacked_layers.weights(self, "conv_0", shape)
        kernel, bias = _for_whole_block(kernel), jnp.tile(bias, _STRIDE)
        maps = [stacked_layers.layer(x, kernel, bias, valid)]
        for index, width in enumerate(self.channels[1:], start=1):
            x = maps[-1]
            if index == 1:  # its three inputs lie side by side already
                kernel, bias = self._weights(index, (stack, 3, x.shape[-1] // 3, width))
                kernel = kernel.reshape(stack, -1, width)
                maps.append(stacked_layers.layer(x, kernel, bias, valid))
            else:
                kernel, bias = self._weights(index, (stack, 3, x.shape[-1], width))
                maps.append(stacked_layers.layer(x, kernel, bias, valid, _BOTH_NEIGHBOURS))
        logits = self._logits(maps[-1])
        valid = valid[..., 0]
        return [[*maps, logits]], [[valid] * (len(maps) + 1)]

    def _weights(self, index: int, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
        return stacked_layers.weights(self, f"conv_{index}", shape)

    def _logits(self, x: jax.Array) -> jax.Array:
        """A convolution [stack, positions, b, c] -> [stack, positions, b], kernel 3, in float32."""
        shape = (x.shape[0], 3, x.shape[-1], 1)
        kernel, bias = stacked_layers.weights(self, "logits", shape)
        # The product with all taps first, then shifts of its narrow result, not of its wide
        # operand.
        taps = jnp.einsum("spbc,skc->kspb", x, kernel[..., 0], preferred_element_type=jnp.float32)
        taps = jnp.pad(taps, ((0, 0), (0, 0), (1, 1), (0, 0)))
        length = x.shape[1]
        seen = [taps[tap, :, tap : tap + length] for tap in range(3)]
        return sum(seen) + bias[..., 0]

    def _blocks(self, waveform: jax.Array, num_samples: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What the first layer sees of every block: [periods, positions, b, (kernel + 2) * fold],
        and which positions are valid: [periods, positions, b, 1]."""
        block, context = _STRIDE * self.fold, (_KERNEL // 2) * self.fold
        waveform = waveform.astype(self.compute_dtype)
        steps = [-(-waveform.shape[1] // (block * period)) for period in self.periods]
        # The last row needs no zeros after it.
        length = max((n + 1) * period for n, period in zip(steps, self.periods)) - 1
        entries, held, first_samples = [], [], []
        for n, period in zip(steps, self.periods):
            # One block of zeros more ends every row.
            padded = stacked_layers.pad_to(waveform, (n + 1) * block * period, axis=1)
            rows = period_view(padded, period=period, fold=block)
            rows = rows.reshape(-1, *rows.shape[2:])
            entries.append(jnp.pad(rows, ((1, length + 1 - len(rows)), (0, 0), (0, 0))))
            position = np.arange(length)
            row, step = position // (n + 1), position % (n + 1)
            held.append((row < period) & (step < n))
            # A row begins a sample after the one before it.
            first_samples.append(row + step * block * period)
        x = jnp.stack(entries)
        before, after = x[:, :-2, :, block - context :], x[:, 2:, :, :context]
        x = jnp.concatenate([before, x[:, 1:-1], after], axis=-1)
        valid = stacked_layers.valid_places(np.stack(held), np.stack(first_samples), num_samples)
        return x, valid


def period_view(waveform: jax.Array, *, period: int, fold: int) -> jax.Array:
    """Rows of every `period`-th sample, `fold` steps of a row side by side as channels.

    Args:
        waveform: [b, n]; zeros are added at its end up to a multiple of period x fold.
        period: samples between two steps of a row.
        fold: steps that become channels.

    Returns:
        [period, steps, b, fold] with out[r, s, :, i] = waveform[:, (s * fold + i) * period + r].
    """
    waveform = stacked_layers.pad_to(waveform, multiple=period * fold, axis=1)
    return waveform.reshape(waveform.shape[0], -1, fold, period).transpose(3, 1, 0, 2)


def _for_whole_block(kernel: jax.Array) -> jax.Array:
    """A kernel [s, k, in, out] for the three steps of a block: [s, (k + 2) * in, 3 * out]."""
    last = _STRIDE - 1
    shifted = [
        jnp.pad(kernel, ((0, 0), (step, last - step), (0, 0), (0, 0))) for step in range(_STRIDE)
    ]
    kernel = jnp.concatenate(shifted, axis=-1)
    return kernel.reshape(kernel.shape[0], -1, kernel.shape[-1])
