# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Discriminators of complex spectra, band by band: DAC's multi-band STFT ones, folded."""

from collections.abc import Sequence
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.models.discriminators import stacked_layers
from f3tok_jax.signal import spectra

HOPS_PER_WINDOW = 4  # DAC
NUM_LAYERS = 3  # of every band, before the logits

_NUM_TAPS = 9  # of a kernel of 3 x 3
_NO_NEIGHBOURS, _ALL_NEIGHBOURS = ((0, 0), (0, 0)), ((1, 1), (1, 1))  # padding


class STFTDiscriminators(nn.Module):
    """Each looks at the complex spectrum of one window size: every band by weights of its own, then
    all.

    Layers per band: kernel 3 x 3 over frames and groups of folded bins; kernel and stride 2 x 2;
    kernel 3 x 3; then jointly over the bands 3 x 3 to the logits. A place is a block of 2 x 2,
    which the second layer joins; a row is a pair of frames. Bands that are narrower than the widest
    are padded with zeros to its width. The bands of a window are a stack [bands, blocks, rows, b,
    c].
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
        """Waveform [b, n] and its valid samples [b] -> what `Discriminators` returns: a stack of
        bands per window."""
        num_windows, width = len(self.windows), self.channels
        stack = num_windows * (len(self.bands) - 1)
        layers = [
            stacked_layers.weights(self, name, (stack, *shape))
            for name, shape in (
                ("conv_0", (3, 3, 2 * self.fold, width)),
                ("conv_1", (2, 2, width, width)),
                ("conv_2", (3, 3, width, width)),
            )
        ]
        shape = (num_windows, _NUM_TAPS, width, 1)
        layers.append(stacked_layers.weights(self, "logits", shape))
        # A split, whose gradient is one concatenation; slices would add up as many padded arrays.
        split = [[jnp.split(x, num_windows) for x in layer] for layer in layers]
        each = [
            self._of_window(
                waveform,
                num_samples,
                window,
                [(kernels[index], biases[index]) for kernels, biases in split],
            )
            for index, window in enumerate(self.windows)
        ]
        return [maps for maps, _ in each], [valid for _, valid in each]

    def _of_window(self, waveform, num_samples, window, weights):
        """Maps of a window, and which of their places are valid."""
        edges = band_edges(self.bands, num_groups=num_groups(window, self.fold))
        x = block_spectra(waveform, num_samples, window=window, fold=self.fold, edges=edges)
        num_rows = x.shape[2] - 1  # of frames; a row sees two pairs of them
        held = np.repeat(_held_blocks(edges)[..., None], num_rows, axis=-1)
        row_samples = 2 * window // HOPS_PER_WINDOW
        first_samples = np.broadcast_to(np.arange(num_rows) * row_samples, held.shape)
        valid = stacked_layers.valid_places(held, first_samples, num_samples)
        # One product makes the four outputs of a block, side by side as channels.
        kernel, bias = weights[0]
        kernel, bias = _for_whole_block(kernel), jnp.tile(bias, 4)
        x = x.astype(self.compute_dtype)
        maps = [stacked_layers.layer(x, kernel, bias, valid, _NO_NEIGHBOURS)]
        kernel, bias = weights[1]
        kernel = kernel.reshape(kernel.shape[0], -1, kernel.shape[-1])
        maps.append(stacked_layers.layer(maps[-1], kernel, bias, valid))
        kernel, bias = weights[2]
        kernel = kernel.swapaxes(1, 2)  # of frames and groups -> of blocks and rows
        maps.append(stacked_layers.layer(maps[-1], kernel, bias, valid, _ALL_NEIGHBOURS))
        kernel, bias = weights[3]
        # The logits see all bands: products per band, their sums across bands.
        taps = jnp.einsum(
            "snrbc,kc->ksnrb", maps[-1], kernel[0, ..., 0], preferred_element_type=jnp.float32
        )
        logits = _joint_logits(taps, held[..., 0].sum(axis=1)) + bias.astype(jnp.float32)
        of_rows = valid_rows(num_rows, row_samples, num_samples).T
        of_logits = jnp.broadcast_to(of_rows[None, None], logits.shape)
        return [*maps, logits], [*[valid[..., 0]] * len(maps), of_logits]


def valid_rows(num_rows: int, row_samples: int, num_samples: jax.Array) -> jax.Array:
    """Which rows of that many samples have any of the valid `num_samples` [b]: [b, num_rows]."""
    return (np.arange(num_rows) * row_samples)[None] < num_samples[:, None]


def num_groups(window: int, fold: int) -> int:
    """Groups of `fold` bins of a spectrum without Nyquist; raises ValueError where it has none."""
    if window % HOPS_PER_WINDOW or (window // 2) % fold:
        raise ValueError(
            f"an STFT window must be a multiple of {HOPS_PER_WINDOW} whose half is a multiple of "
            f"stft_fold={fold}, got {window} (config.discriminators.stft_windows)"
        )
    return window // 2 // fold


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
    groups, hop = num_groups(window, fold), window // HOPS_PER_WINDOW
    waveform = stacked_layers.pad_to(waveform, multiple=hop, axis=1)
    frames = _frames(waveform, window=window, step=hop, first=0)
    spectrum = jnp.matmul(frames, _dft(window), precision=spectra.PRECISION)
    return spectrum.reshape(*spectrum.shape[:2], groups, 2 * fold)


def block_spectra(
    waveform: jax.Array,
    num_samples: jax.Array,
    *,
    window: int,
    fold: int,
    edges: Sequence[int],
) -> jax.Array:
    """What a 3 x 3 kernel sees of each block of 2 x 2 of `folded_stft`, a pair of frames at a time.

    A row of blocks sees a pair and the next. The product's columns lie in the order of the bands, so
    that pairs of groups are all that is moved after it.

    Args:
        waveform: [b, n].
        num_samples: [b], valid samples; a frame that begins no valid hop is all zeros, though its
            window may reach back into the sound.
        window: samples.
        fold: bins of a group.
        edges: of the bands in groups; beyond a band there are zeros.

    Returns:
        [bands, blocks, ceil(n / hop / 2) + 1, b, 16 * fold] float32; pair i are the frames 2 i - 1
        and 2 i; channels are (2 frames, 4 groups, bin, real or imaginary).
    """
    hop = window // HOPS_PER_WINDOW
    waveform = stacked_layers.pad_to(waveform, multiple=2 * hop, axis=1)
    matrix, seen = _dft_of_bands(window, fold, tuple(edges)), []
    for first in (-1, 0):  # frames of the pairs' first halves, then of their second
        frames = _frames(waveform, window=window, step=2 * hop, first=first)
        spectrum = jnp.einsum("brk,kq->rbq", frames, matrix, precision=spectra.PRECISION)
        frame = (2 * np.arange(len(spectrum)) + first)[:, None]
        of_sound = (frame >= 0) & (frame * hop < num_samples[None])
        spectrum = jnp.where(of_sound[..., None], spectrum, 0.0)
        # [pairs, b, (bands, pairs of groups, c)] -> [bands, pairs of groups, pairs, b, c]
        spectrum = spectrum.reshape(*spectrum.shape[:2], len(edges) - 1, -1, 4 * fold)
        spectrum = spectrum.transpose(2, 3, 0, 1, 4)
        seen += [spectrum[:, :-1], spectrum[:, 1:]]
    return jnp.concatenate(seen, axis=-1)


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


def _frames(waveform: jax.Array, *, window: int, step: int, first: int) -> jax.Array:
    """Frames [b, t, window] of [b, n] whose middle hops begin every `step` samples.

    Args:
        waveform: a multiple of `step` long, which is one hop or two.
        window: samples.
        step: samples.
        first: hop of the first frame; 0, or -1, the hop before the sound.
    """
    hop = window // HOPS_PER_WINDOW
    left = (window - hop) // 2 - first * hop
    # As many frames as steps; of two hops one more, for the last pair.
    num_frames = waveform.shape[1] // step + (step > hop)
    right = (num_frames - 1) * step + window - left - waveform.shape[1]
    waveform = jnp.pad(waveform, ((0, 0), (left, right)))
    return spectra.frame(waveform, frame_length=window, hop_length=step)


@functools.lru_cache
def _dft(window: int) -> np.ndarray:
    """Hann-windowed DFT as a matrix [window, window]: columns are (bin, real or imaginary)."""
    sample = np.arange(window)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * sample / window)
    angle = 2 * np.pi * (np.outer(sample, np.arange(window // 2)) % window) / window
    matrix = np.stack([np.cos(angle), -np.sin(angle)], axis=-1) * hann[:, None, None]
    return (matrix.reshape(window, window) / np.sqrt(np.sum(hann**2))).astype(np.float32)


@functools.lru_cache
def _dft_of_bands(window: int, fold: int, edges: tuple[int, ...]) -> np.ndarray:
    """`_dft` with the columns that blocks see: (band, pair of groups, group, bin, part).

    A block is two groups, and sees one more on either side: with the pair before its second group
    and the pair of it, so of n blocks n + 1 pairs. Beyond its band columns are zeros.
    """
    groups = _dft(window).reshape(window, -1, 2 * fold)
    num_columns = 2 * (_held_blocks(edges).shape[1] + 1)
    bands = [
        np.pad(groups[:, low:high], ((0, 0), (1, num_columns - 1 - (high - low)), (0, 0)))
        for low, high in zip(edges[:-1], edges[1:])
    ]
    return np.stack(bands, axis=1).reshape(window, -1)


def _held_blocks(edges: Sequence[int]) -> np.ndarray:
    """Bool [bands, blocks of the widest]: which blocks a band has."""
    counts = np.array([-(-(high - low) // 2) for low, high in zip(edges[:-1], edges[1:])])
    return np.arange(max(counts)) < counts[:, None]


def _joint_logits(taps: jax.Array, num_blocks: Sequence[int]) -> jax.Array:
    """A 3 x 3 convolution over all bands, from its nine products.

    Args:
        taps: [9, bands, blocks, rows, b], of one window; the first axis is (rows, blocks).
        num_blocks: that each band has; those beyond are ignored.

    Returns:
        [1, blocks of all bands, rows, b].
    """
    joint = jnp.concatenate(
        [taps[:, band, :count] for band, count in enumerate(num_blocks)], axis=1
    )
    blocks, rows = joint.shape[1:3]
    joint = jnp.pad(joint, ((0, 0), (1, 1), (1, 1), (0, 0)))
    seen = [joint[3 * i + j, j : j + blocks, i : i + rows] for i in range(3) for j in range(3)]
    return sum(seen)[None]


def _for_whole_block(kernel: jax.Array) -> jax.Array:
    """A kernel [s, 3, 3, in, out] for a block of 2 x 2 outputs, over two pairs of frames: [s, 1, 2,
    8 * in, 4 * out]."""
    places = [(i, j) for i in range(2) for j in range(2)]
    shifted = [jnp.pad(kernel, ((0, 0), (i, 1 - i), (j, 1 - j), (0, 0), (0, 0))) for i, j in places]
    kernel = jnp.concatenate(shifted, axis=-1)
    return kernel.reshape(kernel.shape[0], 1, 2, -1, kernel.shape[-1])
