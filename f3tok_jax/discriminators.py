# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The judges of adversarial training: multi-period and multi-band complex STFT discriminators.

Both look at what descript-audio-codec's (DAC) look at, and compute it folded: the published ones
keep 1 to 32 channels on long maps, a quarter or less of a TPU's 128 lanes. Here neighbouring steps
of a period's row, and neighbouring bins and frames of a spectrum, become channels first, and fewer,
wider layers follow, with nearly the same receptive fields. Every layer is a matrix product over
positions, and discriminators of one kind, which then have equal shapes, are computed as one stack:
the TPU compiler takes a fraction of the time of a convolution per discriminator, and a CPU
differentiates matrix products fast. Weight norm, which DAC has, is left out.
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
_PERIOD_KERNEL = 5  # folded steps that the first layer sees (DAC's kernel)
_PERIOD_STRIDE = 3  # of the second layer; with a fold of 27 the total is 81, as DAC's
_HOPS_PER_WINDOW = 4  # DAC
# The weights of all discriminators of a kind are one array; the first axis tells them apart.
_KERNEL_INIT = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", batch_axis=(0,))


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
        """Judges `waveform` [b, n], float32.

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
                maps += PeriodDiscriminators(
                    periods=self.periods,
                    fold=self.period_fold,
                    channels=self.period_channels,
                    compute_dtype=self.compute_dtype,
                    name="period",
                )(waveform)
            if self.stft_windows:
                maps += STFTDiscriminators(
                    windows=self.stft_windows,
                    bands=self.stft_bands,
                    fold=self.stft_fold,
                    channels=self.stft_channels,
                    compute_dtype=self.compute_dtype,
                    name="stft",
                )(waveform)
            return maps


class PeriodDiscriminators(nn.Module):
    """Each judges every `period`-th sample as a row of its own; the rows share the weights.

    Layers: kernel 5; kernel and stride 3; kernel 3 from there on. A position is a step of a row;
    the three steps that the second layer joins share a position from the start.
    """

    periods: Sequence[int]  # samples
    fold: int  # steps of a row that become channels
    channels: Sequence[int]  # widths of at least two layers
    compute_dtype: str

    @nn.compact
    def __call__(self, waveform: jax.Array) -> list[list[jax.Array]]:
        """Waveform [b, n] -> per period feature maps [b, positions, c] and logits."""
        if len(self.channels) < 2:
            raise ValueError(
                f"period_channels must name at least 2 widths, got {self.channels} "
                f"(config.discriminators)"
            )
        block = _PERIOD_STRIDE * self.fold
        views = [
            period_view(waveform, period=period, fold=block).astype(self.compute_dtype)
            for period in self.periods
        ]
        valid, first, last = _row_masks([view.shape[1:3] for view in views])
        views = [view.reshape(view.shape[0], -1, block) for view in views]
        x = jnp.stack([_pad_to(view, valid.shape[2], axis=1) for view in views])

        def neighbours(x: jax.Array) -> list[jax.Array]:
            return [jnp.where(first, 0, _shift(x, -1)), x, jnp.where(last, 0, _shift(x, 1))]

        context = (_PERIOD_KERNEL // 2) * self.fold
        before, x, after = neighbours(x)
        x = jnp.concatenate([before[..., -context:], x, after[..., :context]], axis=-1)
        maps = []
        for index, width in enumerate(self.channels):
            if index > 1:
                x = jnp.concatenate(neighbours(x), axis=-1)
            taps, inputs = (_PERIOD_KERNEL, self.fold) if index == 0 else (3, x.shape[-1] // 3)
            kernel, bias = _weights(self, f"conv_{index}", (len(self.periods), taps, inputs, width))
            if index == 0:
                kernel, bias = _side_by_side(kernel), jnp.tile(bias, _PERIOD_STRIDE)
            x = jnp.where(valid, _layer(x, kernel, bias), 0)
            maps.append(_unstack(x))
        kernel, bias = _weights(self, "logits", (len(self.periods), 3, x.shape[-1], 1))
        # The product with all taps first, then shifts of its narrow result, not of its wide
        # operand.
        taps = jnp.einsum("sbpc,skcd->ksbpd", x, kernel, preferred_element_type=jnp.float32)
        logits = (
            jnp.where(first, 0, _shift(taps[0], -1))
            + taps[1]
            + jnp.where(last, 0, _shift(taps[2], 1))
            + bias
        )
        lengths = valid.sum(axis=(1, 2, 3))
        maps.append([x[:, :length] for x, length in zip(_unstack(logits), lengths)])
        return [list(layers) for layers in zip(*maps)]


class STFTDiscriminators(nn.Module):
    """Each judges the complex spectrum of one window size: every band by weights of its own, then
    all.

    Layers per band: kernel 3 x 3 over frames and groups of folded bins; kernel and stride 2 x 2;
    kernel 3 x 3; then jointly over the bands 3 x 3 to the logits. A position is a block of 2 x 2,
    which the second layer joins. Bands that are narrower than the widest are padded with zeros to
    its width.
    """

    windows: Sequence[int]  # samples
    bands: Sequence[float]  # edges as fractions of Nyquist
    fold: int  # bins that become channels
    channels: int
    compute_dtype: str

    @nn.compact
    def __call__(self, waveform: jax.Array) -> list[list[jax.Array]]:
        """Waveform [b, n] -> per window feature maps [b, positions, c] of all bands, and logits."""
        num_bands, width = len(self.bands) - 1, self.channels
        # An even number of frames of the longest window makes all windows' positions equally many.
        waveform = _pad_to(waveform, multiple=2 * max(self.windows) // _HOPS_PER_WINDOW, axis=1)
        grids, counts, blocks = [], [], []
        for window in self.windows:
            spectrum = folded_stft(waveform, window=window, fold=self.fold)
            edges = band_edges(self.bands, num_groups=spectrum.shape[2])
            bands = _band_blocks(spectrum.astype(self.compute_dtype), edges)
            grids.append(bands.shape[2:4])
            counts.append([-(-(high - low) // 2) for low, high in zip(edges[:-1], edges[1:])])
            blocks.append(bands.reshape(*bands.shape[:2], -1, bands.shape[-1]))
        length = max(block.shape[2] for block in blocks)
        x = jnp.concatenate([_pad_to(block, length, axis=2) for block in blocks])
        valid, first, last = _grid_masks(grids, counts, length)

        def time_shift(x: jax.Array, offset: int) -> jax.Array:
            parts = jnp.split(x, len(self.windows))
            return jnp.concatenate(
                [_shift(part, offset * groups) for part, (_, groups) in zip(parts, grids)]
            )

        stack = x.shape[0]
        kernel, bias = _weights(self, "conv_0", (stack, 3, 3, 2 * self.fold, width))
        x = jnp.where(valid, _layer(x, _two_by_two(kernel), jnp.tile(bias, 4)), 0)
        maps = [_unstack(x)]
        kernel, bias = _weights(self, "conv_1", (stack, 2, 2, width, width))
        x = jnp.where(valid, _layer(x, kernel.reshape(stack, -1, width), bias), 0)
        maps.append(_unstack(x))
        kernel, bias = _weights(self, "conv_2", (stack, 3, 3, width, width))
        x = jnp.concatenate(
            [jnp.where(first, 0, _shift(x, -1)), x, jnp.where(last, 0, _shift(x, 1))], axis=-1
        )
        # Neighbours in frequency are joined before the product, those in time after it: nine taps
        # beside each other would be three times as wide as either.
        kernel = kernel.transpose(0, 2, 3, 1, 4).reshape(stack, 3 * width, 3 * width)
        before, now, after = jnp.split(jnp.einsum("sbpc,scd->sbpd", x, kernel), 3, axis=-1)
        x = time_shift(before, -1) + now + time_shift(after, 1) + bias
        x = jnp.where(valid, nn.leaky_relu(x, _SLOPE), 0)
        maps.append(_unstack(x))
        kernel, bias = _weights(self, "logits", (len(self.windows), 9, width, 1))
        kernel = jnp.repeat(kernel[..., 0].swapaxes(1, 2), num_bands, axis=0)
        taps = jnp.einsum("sbpc,sck->sbpk", x, kernel, preferred_element_type=jnp.float32)
        outputs = []
        for index, (grid, count) in enumerate(zip(grids, counts)):
            chosen = slice(index * num_bands, (index + 1) * num_bands)
            logits = _joint_logits(taps[chosen], grid, count) + bias[index].astype(jnp.float32)
            layers = [layer for bands in maps for layer in bands[chosen]]
            outputs.append([*layers, logits.reshape(logits.shape[0], -1, 1)])
        return outputs


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
    waveform = _pad_to(waveform, multiple=period * fold, axis=1)
    return waveform.reshape(waveform.shape[0], -1, fold, period).transpose(0, 3, 1, 2)


def folded_stft(waveform: jax.Array, *, window: int, fold: int) -> jax.Array:
    """Complex STFT with a Hann window and a hop of a quarter, without Nyquist, bins folded.

    A matrix product rather than an FFT: the TPU compiler takes seconds instead of tens of seconds
    for it, and its cost is small beside that of the layers.

    Args:
        waveform: [b, n]; padded with zeros so that every hop is the middle of a frame.
        window: samples, a multiple of 4; the spectrum is scaled to unit noise gain.
        fold: neighbouring bins that become channels; divides window / 2.

    Returns:
        [b, ceil(n / hop), window / 2 / fold, 2 * fold] float32; channels are (bin, real or
        imaginary).
    """
    if window % _HOPS_PER_WINDOW or (window // 2) % fold:
        raise ValueError(
            f"an STFT window must be a multiple of {_HOPS_PER_WINDOW} whose half is a multiple of "
            f"stft_fold={fold}, got {window} (config.discriminators.stft_windows)"
        )
    hop = window // _HOPS_PER_WINDOW
    margin = (window - hop) // 2
    waveform = _pad_to(waveform, multiple=hop, axis=1)
    waveform = jnp.pad(waveform, ((0, 0), (margin, window - hop - margin)))
    blocks = waveform.reshape(waveform.shape[0], -1, hop)
    num_frames = blocks.shape[1] - _HOPS_PER_WINDOW + 1
    frames = jnp.concatenate(
        [blocks[:, hops : hops + num_frames] for hops in range(_HOPS_PER_WINDOW)], axis=-1
    )
    spectrum = jnp.matmul(frames, _dft(window), precision=lax.Precision.HIGHEST)
    return spectrum.reshape(*spectrum.shape[:2], -1, 2 * fold)


def band_edges(bands: Sequence[float], *, num_groups: int) -> list[int]:
    """Edges of the bands in groups of folded bins; raises ValueError where a band would be
    empty."""
    edges = [round(edge * num_groups) for edge in bands]
    increasing = all(low < high for low, high in zip(edges[:-1], edges[1:]))
    if edges[0] != 0 or edges[-1] != num_groups or not increasing:
        raise ValueError(
            f"stft_bands must increase from 0.0 to 1.0 with at least one of the {num_groups} "
            f"groups of bins in each band, got {tuple(bands)}; use fewer bands, a smaller "
            f"stft_fold or longer stft_windows (config.discriminators)"
        )
    return edges


def _dft(window: int) -> np.ndarray:
    """Hann-windowed DFT as a matrix [window, window]: columns are (bin, real or imaginary)."""
    sample = np.arange(window)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * sample / window)
    angle = 2 * np.pi * (np.outer(sample, np.arange(window // 2)) % window) / window
    matrix = np.stack([np.cos(angle), -np.sin(angle)], axis=-1) * hann[:, None, None]
    return (matrix.reshape(window, window) / np.sqrt(np.sum(hann**2))).astype(np.float32)


def _band_blocks(spectrum: jax.Array, edges: Sequence[int]) -> jax.Array:
    """What a 3 x 3 kernel sees of each block of 2 x 2, band by band.

    Args:
        spectrum: [b, t, groups, c] with an even t.
        edges: of the bands in groups; beyond a band there are zeros.

    Returns:
        [bands, b, t / 2, blocks, 16 * c]; channels are (4 frames, 4 groups, c).
    """
    widest = max(high - low for low, high in zip(edges[:-1], edges[1:]))
    num_blocks = -(-widest // 2)
    bands = []
    for low, high in zip(edges[:-1], edges[1:]):
        band = spectrum[:, :, low:high]
        padding = ((0, 0), (1, 1), (1, 1 + 2 * num_blocks - (high - low)), (0, 0))
        bands.append(jnp.pad(band, padding))
    x = jnp.stack(bands)
    # Pairs first: 4 neighbours are a pair and the next pair.
    x = x.reshape(*x.shape[:3], num_blocks + 1, 2 * x.shape[-1])
    x = jnp.concatenate([x[:, :, :, :-1], x[:, :, :, 1:]], axis=-1)
    x = x.reshape(*x.shape[:2], -1, 2, *x.shape[3:])
    frames = [pairs[:, :, :, i] for pairs in (x[:, :, :-1], x[:, :, 1:]) for i in (0, 1)]
    return jnp.concatenate(frames, axis=-1)


def _joint_logits(taps: jax.Array, grid: tuple[int, int], counts: Sequence[int]) -> jax.Array:
    """A 3 x 3 convolution over all bands, from its nine products.

    The products stay the innermost axis: to split positions there, a TPU's lanes, into frames and
    blocks takes the compiler minutes.

    Args:
        taps: [bands, b, positions, 9].
        grid: (frames, blocks) of a band; positions beyond them are ignored.
        counts: blocks that each band really has.

    Returns:
        [b, frames, blocks of all bands].
    """
    frames, blocks = grid
    taps = taps[:, :, : frames * blocks].reshape(*taps.shape[:2], frames, blocks, 9)
    joint = jnp.concatenate([band[:, :, :count] for band, count in zip(taps, counts)], axis=2)
    joint = jnp.pad(joint, ((0, 0), (1, 1), (1, 1), (0, 0)))
    width, chosen = sum(counts), np.eye(9, dtype=np.float32)
    total = sum(
        joint[:, i : i + frames, j : j + width] * chosen[3 * i + j][None, None, None]
        for i in range(3)
        for j in range(3)
    )
    return jnp.sum(total, axis=-1)


def _row_masks(shapes: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where positions are valid, first and last in their row: bool [stack, 1, positions, 1].

    The length is the longest, rounded up to 8, a TPU's sublanes.
    """
    length = -(-max(rows * steps for rows, steps in shapes) // 8) * 8
    position = np.arange(length)
    masks = [
        (position < rows * steps, position % steps == 0, position % steps == steps - 1)
        for rows, steps in shapes
    ]
    return tuple(np.stack(mask)[:, None, :, None] for mask in zip(*masks))


def _grid_masks(
    grids: Sequence[tuple[int, int]],
    counts: Sequence[Sequence[int]],
    length: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where blocks are valid, first and last of their frame: bool [windows x bands, 1, length,
    1]."""
    position = np.arange(length)
    masks = [
        (
            (position < frames * blocks) & (position % blocks < count),
            position % blocks == 0,
            position % blocks == blocks - 1,
        )
        for (frames, blocks), bands in zip(grids, counts)
        for count in bands
    ]
    return tuple(np.stack(mask)[:, None, :, None] for mask in zip(*masks))


def _weights(
    module: nn.Module,
    name: str,
    shape: tuple[int, ...],
) -> tuple[jax.Array, jax.Array]:
    """Kernel of `shape` (stack first, in and out last) and bias [stack, 1, 1, out], compute
    dtype."""
    kernel = module.param(f"{name}_kernel", _KERNEL_INIT, shape)
    bias = module.param(f"{name}_bias", nn.initializers.zeros_init(), (shape[0], 1, 1, shape[-1]))
    return kernel.astype(module.compute_dtype), bias.astype(module.compute_dtype)


def _layer(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """[stack, b, positions, in] times [stack, in, out], or [stack, ..., in', out] flattened to
    it."""
    kernel = kernel.reshape(kernel.shape[0], x.shape[-1], -1)
    return nn.leaky_relu(jnp.einsum("sbpc,scd->sbpd", x, kernel) + bias, _SLOPE)


def _side_by_side(kernel: jax.Array) -> jax.Array:
    """A kernel [s, k, in, out] for three neighbouring outputs: [s, (k + 2) * in, 3 * out]."""
    last = _PERIOD_STRIDE - 1
    shifted = [
        jnp.pad(kernel, ((0, 0), (shift, last - shift), (0, 0), (0, 0)))
        for shift in range(_PERIOD_STRIDE)
    ]
    kernel = jnp.concatenate(shifted, axis=-1)
    return kernel.reshape(kernel.shape[0], -1, kernel.shape[-1])


def _two_by_two(kernel: jax.Array) -> jax.Array:
    """A kernel [s, 3, 3, in, out] for a block of 2 x 2 outputs: [s, 16 * in, 4 * out]."""
    shifted = [
        jnp.pad(kernel, ((0, 0), (i, 1 - i), (j, 1 - j), (0, 0), (0, 0)))
        for i in range(2)
        for j in range(2)
    ]
    kernel = jnp.concatenate(shifted, axis=-1)
    return kernel.reshape(kernel.shape[0], -1, kernel.shape[-1])


def _shift(x: jax.Array, offset: int) -> jax.Array:
    """x[:, :, i + offset] at position i of [s, b, positions, c], zeros beyond the ends."""
    length = x.shape[2]
    start, stop = max(offset, 0), length + min(offset, 0)
    return jnp.pad(x[:, :, start:stop], ((0, 0), (0, 0), (length - stop, start), (0, 0)))


def _pad_to(x: jax.Array, length: int = 0, *, axis: int, multiple: int = 1) -> jax.Array:
    """Zeros at the end of `axis` up to `length`, or up to a multiple."""
    missing = max(length - x.shape[axis], 0) or -x.shape[axis] % multiple
    return jnp.pad(x, [(0, missing if i == axis else 0) for i in range(x.ndim)])


def _unstack(x: jax.Array) -> list[jax.Array]:
    # A split, whose gradient is one concatenation; indexing would add up as many padded arrays.
    return [part[0] for part in jnp.split(x, x.shape[0])]
