# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Discriminators of complex spectra, band by band: DAC's multi-band STFT ones, folded."""

from collections.abc import Sequence

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.models.discriminators import stacked_layers

HOPS_PER_WINDOW = 4  # DAC
NUM_LAYERS = 3  # of every band, before the logits


class STFTDiscriminators(nn.Module):
    """Each looks at the complex spectrum of one window size: every band by weights of its own, then
    all.

    Layers per band: kernel 3 x 3 over frames and groups of folded bins; kernel and stride 2 x 2;
    kernel 3 x 3; then jointly over the bands 3 x 3 to the logits. A position is a block of 2 x 2,
    which the second layer joins; a row is a frame of blocks. Bands that are narrower than the
    widest are padded with zeros to its width.
    """

    windows: Sequence[int]  # samples
    bands: Sequence[float]  # edges as fractions of Nyquist
    fold: int  # bins that become channels
    channels: int
    compute_dtype: str

    @nn.compact
    def __call__(
        self, waveform: jax.Array, num_samples: jax.Array
    ) -> tuple[list[list[jax.Array]], list[list[jax.Array]]]:
        """Waveform [b, n] and its valid samples [b] -> what `Discriminators` returns: per window the
        maps of all bands, layer after layer, and the logits of all bands."""
        num_bands, width = len(self.bands) - 1, self.channels
        x, grids = self._blocks(waveform, num_samples)
        stack = x.shape[0]
        rows = [rows for bands in grids for rows in bands]
        positions, maps = stacked_layers.Positions(rows, x.shape[2], num_samples), []
        # One product makes the four outputs of a block, side by side as channels.
        kernel, bias = stacked_layers.weights(self, "conv_0", (stack, 3, 3, 2 * self.fold, width))
        kernel, bias = _for_whole_block(kernel), jnp.tile(bias, 4)
        x = positions.keep_valid(stacked_layers.layer(x, kernel, bias))
        maps.append(stacked_layers.unstack(x))
        kernel, bias = stacked_layers.weights(self, "conv_1", (stack, 2, 2, width, width))
        x = positions.keep_valid(stacked_layers.layer(x, kernel.reshape(stack, -1, width), bias))
        maps.append(stacked_layers.unstack(x))
        kernel, bias = stacked_layers.weights(self, "conv_2", (stack, 3, 3, width, width))
        x = _over_frames_and_blocks(x, kernel, positions, grids) + bias
        x = positions.keep_valid(stacked_layers.leaky_relu(x))
        maps.append(stacked_layers.unstack(x))
        # The logits see all bands of a window: products per band, their sums across bands.
        kernel, bias = stacked_layers.weights(self, "logits", (len(self.windows), 9, width, 1))
        kernel = jnp.repeat(kernel[..., 0].swapaxes(1, 2), num_bands, axis=0)
        taps = jnp.einsum("sbpc,sck->sbpk", x, kernel, preferred_element_type=jnp.float32)
        outputs, valid = [], []
        of_bands = [part[..., 0] for part in stacked_layers.unstack(positions.valid)]
        for index, bands in enumerate(grids):
            chosen = slice(index * num_bands, (index + 1) * num_bands)
            logits = _joint_logits(taps[chosen], bands) + bias[index].astype(jnp.float32)
            layers = [layer for stacked in maps for layer in stacked[chosen]]
            outputs.append([*layers, logits.reshape(logits.shape[0], -1, 1)])
            of_frames = valid_rows(logits.shape[1], bands[0].row_samples, num_samples)
            of_logits = jnp.broadcast_to(of_frames[..., None], logits.shape)
            valid.append([*of_bands[chosen] * len(maps), of_logits.reshape(logits.shape[0], -1)])
        return outputs, valid

    def _blocks(
        self, waveform: jax.Array, num_samples: jax.Array
    ) -> tuple[jax.Array, list[list[stacked_layers.Rows]]]:
        """Waveform [b, n] -> what the first layer sees of every band of every window.

        Returns:
            [windows * bands, b, positions, channels], and per window and band its rows: the
            frames, each of as many blocks as the window's widest band has.
        """
        # An even number of frames of the longest window makes all windows' positions equally many.
        multiple = 2 * max(self.windows) // HOPS_PER_WINDOW
        waveform = stacked_layers.pad_to(waveform, multiple=multiple, axis=1)
        grids, blocks = [], []
        for window in self.windows:
            hop = window // HOPS_PER_WINDOW
            spectrum = folded_stft(waveform, window=window, fold=self.fold)
            # A frame of padding, whose window reaches back into the sound, is none of the sound's.
            of_sound = valid_rows(spectrum.shape[1], hop, num_samples)
            spectrum = jnp.where(of_sound[:, :, None, None], spectrum, 0.0)
            edges = band_edges(self.bands, num_groups=spectrum.shape[2])
            bands = _band_blocks(spectrum.astype(self.compute_dtype), edges)
            valid = [-(-(high - low) // 2) for low, high in zip(edges[:-1], edges[1:])]
            # A row is a pair of frames.
            grids.append(
                [stacked_layers.Rows(*bands.shape[2:4], steps, 2 * hop) for steps in valid]
            )
            blocks.append(bands.reshape(*bands.shape[:2], -1, bands.shape[-1]))
        length = max(block.shape[2] for block in blocks)
        x = jnp.concatenate([stacked_layers.pad_to(block, length, axis=2) for block in blocks])
        return x, grids


def valid_rows(num_rows: int, row_samples: int, num_samples: jax.Array) -> jax.Array:
    """Which rows of that many samples have any of the valid `num_samples` [b]: [b, num_rows]."""
    return (np.arange(num_rows) * row_samples)[None] < num_samples[:, None]


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
    if window % HOPS_PER_WINDOW or (window // 2) % fold:
        raise ValueError(
            f"an STFT window must be a multiple of {HOPS_PER_WINDOW} whose half is a multiple of "
            f"stft_fold={fold}, got {window} (config.discriminators.stft_windows)"
        )
    hop = window // HOPS_PER_WINDOW
    margin = (window - hop) // 2
    waveform = stacked_layers.pad_to(waveform, multiple=hop, axis=1)
    waveform = jnp.pad(waveform, ((0, 0), (margin, window - hop - margin)))
    blocks = waveform.reshape(waveform.shape[0], -1, hop)
    num_frames = blocks.shape[1] - HOPS_PER_WINDOW + 1
    frames = jnp.concatenate(
        [blocks[:, hops : hops + num_frames] for hops in range(HOPS_PER_WINDOW)], axis=-1
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


def _over_frames_and_blocks(
    x: jax.Array,
    kernel: jax.Array,
    positions: stacked_layers.Positions,
    grids: Sequence[Sequence[stacked_layers.Rows]],
) -> jax.Array:
    """A convolution of 3 x 3 over frames and blocks, of every band by itself.

    Neighbours in frequency are joined before the product, those in time after it: nine taps beside
    each other would be three times as wide as either.

    Args:
        x: [stack, b, positions, in].
        kernel: [stack, 3, 3, in, out].
        positions: of the stack.
        grids: per window and band, its rows.
    """
    x = positions.joined(x)
    width = kernel.shape[-1]
    kernel = kernel.transpose(0, 2, 3, 1, 4).reshape(x.shape[0], x.shape[-1], 3 * width)
    before, now, after = jnp.split(stacked_layers.product(x, kernel), 3, axis=-1)
    return _shift_frames(before, -1, grids) + now + _shift_frames(after, 1, grids)


def _shift_frames(
    x: jax.Array, offset: int, grids: Sequence[Sequence[stacked_layers.Rows]]
) -> jax.Array:
    """What the frame `offset` after holds; a frame is longer in one window than in another."""
    parts = zip(jnp.split(x, len(grids)), grids)
    return jnp.concatenate(
        [stacked_layers.shift(part, offset * bands[0].steps) for part, bands in parts]
    )


def _joint_logits(taps: jax.Array, bands: Sequence[stacked_layers.Rows]) -> jax.Array:
    """A 3 x 3 convolution over all bands, from its nine products.

    The products stay the innermost axis: to split positions there, a TPU's lanes, into frames and
    blocks takes the compiler minutes.

    Args:
        taps: [bands, b, positions, 9], of one window.
        bands: their rows: the frames; positions beyond them, and steps not valid, are ignored.

    Returns:
        [b, frames, blocks of all bands].
    """
    frames, blocks = bands[0].num_rows, bands[0].steps
    taps = taps[:, :, : frames * blocks].reshape(*taps.shape[:2], frames, blocks, 9)
    joint = jnp.concatenate(
        [band[:, :, : rows.valid_steps] for band, rows in zip(taps, bands)], axis=2
    )
    joint = jnp.pad(joint, ((0, 0), (1, 1), (1, 1), (0, 0)))
    width, chosen = joint.shape[2] - 2, np.eye(9, dtype=np.float32)
    total = sum(
        joint[:, i : i + frames, j : j + width] * chosen[3 * i + j][None, None, None]
        for i in range(3)
        for j in range(3)
    )
    return jnp.sum(total, axis=-1)


def _for_whole_block(kernel: jax.Array) -> jax.Array:
    """A kernel [s, 3, 3, in, out] for a block of 2 x 2 outputs: [s, 16 * in, 4 * out]."""
    places = [(i, j) for i in range(2) for j in range(2)]
    shifted = [jnp.pad(kernel, ((0, 0), (i, 1 - i), (j, 1 - j), (0, 0), (0, 0))) for i, j in places]
    kernel = jnp.concatenate(shifted, axis=-1)
    return kernel.reshape(kernel.shape[0], -1, kernel.shape[-1])
