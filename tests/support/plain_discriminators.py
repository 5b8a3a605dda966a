# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The folded discriminators by their definition: a plain convolution per period, window and band.

For sounds that are valid as a whole, in the order of the modules' stacks: per stack a list of layers,
each a list of one map [b, positions, c] per entry; the logits of a window are those of all its bands.
"""

import jax
from jax import lax
import jax.numpy as jnp

from f3tok_jax.models.discriminators import bands as bands_lib
from f3tok_jax.models.discriminators import discriminators as discriminators_lib


def all_maps(
    params, waveform: jax.Array, module: discriminators_lib.Discriminators
) -> list[list[list[jax.Array]]]:
    """What `module` makes of a waveform [b, n]."""
    waveform -= jnp.mean(waveform, axis=1, keepdims=True)
    waveform *= 0.8 / jnp.max(jnp.abs(waveform), axis=1, keepdims=True)
    of_rows = of_periods(
        params["period"], waveform, periods=module.periods, fold=module.period_fold
    )
    sizes = dict(windows=module.stft_windows, bands=module.stft_bands, fold=module.stft_fold)
    return [of_rows, *of_windows(params["stft"], waveform, **sizes)]


def of_periods(params, waveform, *, periods, fold) -> list[list[jax.Array]]:
    """Layers of the period discriminators, logits last, of each a map per period."""
    names = sorted(name[:-7] for name in params if name.startswith("conv") and "kernel" in name)
    layers = [[] for _ in (*names, "logits")]
    for index, period in enumerate(periods):
        padded = jnp.pad(waveform, ((0, 0), (0, -waveform.shape[1] % (period * 3 * fold))))
        rows = [padded[:, row::period].reshape(len(waveform), -1, fold) for row in range(period)]
        for layer, name in enumerate((*names, "logits")):
            stride, padding = {0: (1, 2), 1: (3, 0)}.get(layer, (1, 1))
            kernel, bias = params[f"{name}_kernel"][index], params[f"{name}_bias"][index]
            rows = [_conv(x, kernel, stride, padding) + bias for x in rows]
            if name != "logits":
                rows = [_leaky(x) for x in rows]
            layers[layer].append(jnp.concatenate(rows, axis=1))
    return layers


def of_windows(params, waveform, *, windows, bands, fold) -> list[list[list[jax.Array]]]:
    """Per window layers of its bands, of each a map per band; last the logits of all together."""
    stacks = []
    for index, window in enumerate(windows):
        hop = window // bands_lib.HOPS_PER_WINDOW
        padded = jnp.pad(waveform, ((0, 0), (0, -waveform.shape[1] % (2 * hop))))
        spectrum = bands_lib.folded_stft(padded, window=window, fold=fold)
        # A frame of padding, whose window reaches back into the sound, is none of the sound's.
        num_frames = -(-waveform.shape[1] // hop)
        spectrum *= (jnp.arange(spectrum.shape[1]) < num_frames)[None, :, None, None]
        edges = bands_lib.band_edges(bands, num_groups=window // 2 // fold)
        layers, parts = [[], [], []], []
        for band, (low, high) in enumerate(zip(edges[:-1], edges[1:])):
            stacked = index * (len(bands) - 1) + band
            # A band of odd width gets a group of zeros, so that blocks of 2 x 2 cover it.
            x = jnp.pad(spectrum[:, :, low:high], ((0, 0), (0, 0), (0, (high - low) % 2), (0, 0)))
            for layer, (stride, padding) in enumerate(((1, 1), (2, 0), (1, 1))):
                kernel = params[f"conv_{layer}_kernel"][stacked]
                bias = params[f"conv_{layer}_bias"][stacked][None]
                x = _leaky(_conv(x, kernel, stride, padding) + bias)
                layers[layer].append(x.reshape(len(waveform), -1, x.shape[-1]))
            parts.append(x)
        kernel = params["logits_kernel"][index].reshape(3, 3, -1, 1)
        logits = _conv(jnp.concatenate(parts, axis=2), kernel, 1, 1)
        logits += params["logits_bias"][index][None]
        stacks.append([*layers, [logits.reshape(len(waveform), -1, 1)]])
    return stacks


def _leaky(x):
    return jnp.where(x > 0, x, 0.1 * x)


def _conv(x, kernel, stride, padding):
    """[b, *places, c] with [*taps, c, d]."""
    axes = "HW"[: x.ndim - 2]
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride,) * len(axes),
        [(padding, padding)] * len(axes),
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        precision="highest",
    )
