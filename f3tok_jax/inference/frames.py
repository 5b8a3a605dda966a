# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Arrays of one sound or of a padded batch: to the valid part of each row, and back."""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.inference import batched

LATENTS, REPRESENTATIONS = "latents", "representations"

_SHAPES = {1: "[n] or [b, n]", 2: "[t, d] or [b, t, d]"}


class Form(NamedTuple):
    """What an array is: of one sequence or of a batch, NumPy's or JAX's."""

    is_batch: bool
    is_jax: bool

    def join(self, rows: Sequence[np.ndarray]) -> tuple[np.ndarray | jax.Array, np.ndarray]:
        """An array of this form, zero behind the end of each row, and its mask."""
        array, mask = batched.padded(rows, len(rows), max(map(len, rows)))
        if not self.is_batch:
            array, mask = array[0], mask[0]
        return jnp.asarray(array) if self.is_jax else array, mask


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frames:
    """Latents or representations of one sound or of a batch, and what it takes to get it back.

    Attributes:
        rows: frames [k, d] of each sound, or of each channel of one; float32.
        num_samples: of each, at `sample_rate`; decoding gives as many.
        sample_rate: Hz, of the sound that was encoded.
        latent_rate: Hz.
        fingerprint: of the autoencoder's weights; others decode to noise.
        gains: by which each sound was multiplied before it was encoded; decoding divides by them.
            Where none are given, 1.
        kind: LATENTS, or REPRESENTATIONS, which no decoder understands.
        form: of `values`.
    """

    rows: Sequence[np.ndarray]
    num_samples: Sequence[int]
    sample_rate: int
    latent_rate: float
    fingerprint: str
    kind: str = LATENTS
    gains: Sequence[float] = ()
    form: Form = Form(is_batch=True, is_jax=False)

    def __post_init__(self):
        gains = tuple(map(float, self.gains)) or (1.0,) * len(self.num_samples)
        if len(gains) != len(self.num_samples):
            raise ValueError(
                f"gains must be one of each row, {len(self.num_samples)}, or none, got {len(gains)}"
            )
        object.__setattr__(self, "gains", gains)

    @functools.cached_property
    def _joined(self) -> tuple[np.ndarray | jax.Array, np.ndarray]:
        return self.form.join(self.rows)

    @property
    def values(self) -> np.ndarray | jax.Array:
        """[t, d], or [b, t, d] with zeros behind the end of each row."""
        return self._joined[0]

    @property
    def mask(self) -> np.ndarray:
        """[t] or [b, t] bool, True where a frame is valid."""
        return self._joined[1]


def split(
    values: Any, *, rank: int, lengths: Any = None, mask: Any = None, what: str = "waveform"
) -> tuple[list[np.ndarray], Form]:
    """The valid part of one sequence, or of each row of a batch; and the form of the array.

    Args:
        values: float array of `rank` axes, one more for a batch, or a list of such sequences.
        rank: 1 for waveforms, 2 for frames.
        lengths: [b] int, valid elements of each row; all if None.
        mask: [b, n] bool in place of lengths, True where a row is valid: from its beginning on.
        what: is in the values, for messages.

    Returns:
        float32 arrays; what is behind the end of a row is never looked at.

    Raises:
        ValueError: for other shapes or dtypes, or values that are not finite.
    """
    if isinstance(values, (list, tuple)):
        if lengths is not None or mask is not None or not values:
            raise ValueError(
                f"a list of {what} must hold one at least and has its own lengths: leave lengths "
                "and mask out"
            )
        parts = [split(one, rank=rank, what=what) for one in values]
        return [row for rows, _ in parts for row in rows], parts[0][1]._replace(is_batch=True)
    array = np.asarray(values)
    if (
        array.ndim not in (rank, rank + 1)
        or not len(array)
        and array.ndim > rank
        or not jnp.issubdtype(array.dtype, jnp.floating)
    ):
        raise ValueError(
            f"{what} must be {_SHAPES[rank]} of floats, got {array.dtype} {list(array.shape)}"
        )
    if rank == 1 and array.ndim == 2 and array.shape[0] > array.shape[1]:
        raise ValueError(
            f"a batch has a row for each sound, got {list(array.shape)}, which is what files of "
            "several channels are read as: give the array transposed"
        )
    form = Form(array.ndim > rank, isinstance(values, jax.Array))
    array = array if form.is_batch else array[None]
    counts = _counts(array.shape[:2], lengths, mask, what)
    rows = [row[:count].astype(np.float32) for row, count in zip(array, counts)]
    for number, row in enumerate(rows):
        if not len(row) or not np.isfinite(row).all():
            raise ValueError(
                f"{what} must hold at least one value, all of them finite, got {len(row)} in row "
                f"{number}, {np.count_nonzero(~np.isfinite(row))} of them not finite: leave it out "
                "or give lengths that end before"
            )
    return rows, form


def blocks(stream: Iterable[Any], *, width: int | None = None) -> Iterator[np.ndarray]:
    """Blocks [c, any number] of a stream, or [c, any number, width], as float32.

    Raises:
        ValueError: for other shapes or dtypes, other channels than before, or values that are not
            finite.
    """
    channels = None
    for number, block in enumerate(stream):
        array = np.asarray(block)
        channels = array.shape[:1] if channels is None else channels
        is_shaped = array.ndim == (2 if width is None else 3) and array.shape[:1] == channels != (
            0,
        )
        if not is_shaped or array.shape[2:] != (() if width is None else (width,)):
            wanted = ["channels", "any number", *([] if width is None else [width])]
            raise ValueError(
                f"a block of a stream must be [{', '.join(map(str, wanted))}] with the channels of "
                f"those before, got {list(array.shape)} in block {number}"
            )
        if not jnp.issubdtype(array.dtype, jnp.floating) or not np.isfinite(array).all():
            raise ValueError(
                f"a block of a stream must be of finite floats, got {array.dtype} in block {number}"
                f", {np.count_nonzero(~np.isfinite(array))} of them not finite"
            )
        yield array.astype(np.float32)


def _counts(shape: tuple[int, int], lengths: Any, mask: Any, what: str) -> np.ndarray:
    """[b] int: valid elements of each row."""
    if lengths is not None and mask is not None:
        raise ValueError(f"{what} must come with lengths or with a mask, got both")
    counts = np.full(shape[0], shape[1]) if lengths is None else np.atleast_1d(lengths)
    if mask is not None:
        mask = np.atleast_2d(np.asarray(mask, bool))
        counts = mask.sum(axis=1)
        if mask.shape != shape or (mask != (np.arange(shape[1]) < counts[:, None])).any():
            raise ValueError(
                f"a mask of {what} must be {list(shape)}, True from the beginning of a row to its "
                f"end, got {list(mask.shape)}"
            )
    is_whole = np.issubdtype(counts.dtype, np.integer)
    if counts.shape != shape[:1] or not is_whole or ((counts < 0) | (counts > shape[1])).any():
        raise ValueError(
            f"lengths of {what} {list(shape)} must be {shape[0]} whole numbers up to {shape[1]}, "
            f"got {counts.tolist()}"
        )
    return counts
