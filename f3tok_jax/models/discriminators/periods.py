# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Discriminators of every n-th sample: the multi-period ones of HiFi-GAN and DAC, folded."""

from collections.abc import Sequence

from flax import linen as nn
import jax
import jax.numpy as jnp

from f3tok_jax.models.discriminators import stacked_layers

_KERNEL = 5  # folded steps that the first layer sees (DAC's kernel)
_STRIDE = 3  # of the second layer; with a fold of 27 the total is 81, as DAC's
_SUBLANES = 8  # of a TPU: a stack's length is a multiple of it


class PeriodDiscriminators(nn.Module):
    """Each looks at every `period`-th sample as a row of its own; the rows share the weights.

    Layers: kernel 5; kernel and stride 3; kernel 3 from there on. A position is a block of three
    folded steps of a row, which the second layer joins: they share a position from the start.
    """

    periods: Sequence[int]  # samples
    fold: int  # steps of a row that become channels
    channels: Sequence[int]  # widths of at least two layers
    compute_dtype: str

    @nn.compact
    def __call__(
        self, waveform: jax.Array, num_samples: jax.Array
    ) -> tuple[list[list[jax.Array]], list[list[jax.Array]]]:
        """Waveform [b, n] and its valid samples [b] -> what `Discriminators` returns."""
        if len(self.channels) < 2:
            got = f"{self.channels} (config.discriminators)"
            raise ValueError(f"period_channels must name at least 2 widths, got {got}")
        stack = len(self.periods)
        x, positions = self._blocks(waveform, num_samples)
        # One product makes the three steps of a block, side by side as channels.
        context = (_KERNEL // 2) * self.fold  # of the blocks before and after
        before, after = positions.before(x), positions.after(x)
        x = jnp.concatenate([before[..., -context:], x, after[..., :context]], axis=-1)
        shape = (stack, _KERNEL, self.fold, self.channels[0])
        kernel, bias = stacked_layers.weights(self, "conv_0", shape)
        kernel, bias = _for_whole_block(kernel), jnp.tile(bias, _STRIDE)
        x = positions.keep_valid(stacked_layers.layer(x, kernel, bias))
        maps = [stacked_layers.unstack(x)]
        for index, width in enumerate(self.channels[1:], start=1):
            if index > 1:  # the second layer's three inputs lie side by side already
                x = positions.joined(x)
            shape = (stack, 3, x.shape[-1] // 3, width)
            kernel, bias = stacked_layers.weights(self, f"conv_{index}", shape)
            x = positions.keep_valid(stacked_layers.layer(x, kernel, bias))
            maps.append(stacked_layers.unstack(x))
        kernel, bias = stacked_layers.weights(self, "logits", (stack, 3, x.shape[-1], 1))
        # The product with all taps first, then shifts of its narrow result, not of its wide
        # operand.
        taps = jnp.einsum("sbpc,skcd->ksbpd", x, kernel, preferred_element_type=jnp.float32)
        logits = positions.before(taps[0]) + taps[1] + positions.after(taps[2]) + bias
        lengths = positions.held.sum(axis=(1, 2, 3))
        maps.append([x[:, :n] for x, n in zip(stacked_layers.unstack(logits), lengths)])
        # Of every map the same positions.
        valid = [
            [valid[..., 0]] * len(self.channels) + [valid[:, :n, 0]]
            for valid, n in zip(stacked_layers.unstack(positions.valid), lengths)
        ]
        return [list(layers) for layers in zip(*maps)], valid

    def _blocks(
        self, waveform: jax.Array, num_samples: jax.Array
    ) -> tuple[jax.Array, stacked_layers.Positions]:
        """Waveform [b, n] -> [periods, b, positions, 3 * fold], and how rows lie on positions."""
        block = _STRIDE * self.fold
        views = [
            period_view(waveform, period=period, fold=block).astype(self.compute_dtype)
            for period in self.periods
        ]
        rows = [
            # A row begins a sample after the one before it.
            stacked_layers.Rows(*view.shape[1:3], view.shape[2], 1, block * period)
            for view, period in zip(views, self.periods)
        ]
        longest = max(entry.num_rows * entry.steps for entry in rows)
        length = -(-longest // _SUBLANES) * _SUBLANES
        views = [view.reshape(view.shape[0], -1, block) for view in views]
        x = jnp.stack([stacked_layers.pad_to(view, length, axis=1) for view in views])
        return x, stacked_layers.Positions(rows, length, num_samples)


def period_view(waveform: jax.Array, *, period: int, fold: int) -> jax.Array:
    """Rows of every `period`-th sample, `fold` steps of a row side by side as channels.

    Args:
        waveform: [b, n]; zeros are added at its end up to a multiple of period x fold.
        period: samples between two steps of a row.
        fold: steps that become channels.

    Returns:
        [b, period, steps, fold] with out[:, r, s, i] = waveform[:, (s * fold + i) * period + r].
    """
    waveform = stacked_layers.pad_to(waveform, multiple=period * fold, axis=1)
    return waveform.reshape(waveform.shape[0], -1, fold, period).transpose(0, 3, 1, 2)


def _for_whole_block(kernel: jax.Array) -> jax.Array:
    """A kernel [s, k, in, out] for the three steps of a block: [s, (k + 2) * in, 3 * out]."""
    last = _STRIDE - 1
    shifted = [
        jnp.pad(kernel, ((0, 0), (step, last - step), (0, 0), (0, 0))) for step in range(_STRIDE)
    ]
    kernel = jnp.concatenate(shifted, axis=-1)
    return kernel.reshape(kernel.shape[0], -1, kernel.shape[-1])
