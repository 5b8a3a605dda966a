# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Lists of sequences of many lengths through a program of few shapes.

A compiled program has one shape; sequences are sorted into a few lengths, padded to them with zeros
and taken in whole batches, with smaller ones for what is left.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from f3tok_jax.devices import sharding
from f3tok_jax.models import autoencoder as autoencoder_lib

_NUM_LENGTHS = 3


def lengths(longest: int, *, multiple: int = 1) -> list[int]:
    """`longest`, its half and its quarter, rounded up to a multiple; in rising order."""
    return sorted({-(-longest // (multiple << i)) * multiple for i in range(_NUM_LENGTHS)})


def apply(
    function: Callable[[np.ndarray, np.ndarray], Any],
    sequences: Sequence[np.ndarray],
    *,
    lengths: Sequence[int],
    batch_sizes: Sequence[int],
    hop: int = 1,
) -> list[np.ndarray]:
    """What a function of padded batches says of every sequence, in their order.

    Args:
        function: of values [rows, length, ...] float32 and a mask [rows, length], True where a
            sequence is; gives [rows, ceil(length / hop), ...].
        sequences: arrays [n, ...] with 0 < n <= lengths[-1].
        lengths: to pad to, in rising order.
        batch_sizes: rows of a batch that may be asked for.
        hop: elements of a sequence for one of its result.

    Returns:
        One array [ceil(n / hop), ...] for each sequence of n elements.

    Raises:
        ValueError: where a sequence is empty or longer than all lengths.
    """
    result: list[Any] = [None] * len(sequences)
    for length, shorter in zip(lengths, [0, *lengths]):
        indices = [i for i, sequence in enumerate(sequences) if shorter < len(sequence) <= length]
        for chunk, num_rows in _batches(indices, sorted(batch_sizes)):
            values = np.zeros((num_rows, length, *sequences[chunk[0]].shape[1:]), np.float32)
            mask = np.zeros((num_rows, length), bool)
            for row, index in enumerate(chunk):
                values[row, : len(sequences[index])] = sequences[index]
                mask[row, : len(sequences[index])] = True
            found = np.asarray(function(values, mask))
            for row, index in enumerate(chunk):
                # Copied: a view would keep the whole batch.
                result[index] = found[row, : -(-len(sequences[index]) // hop)].copy()
    if any(found is None for found in result):
        raise ValueError(
            f"sequences must have between 1 and {lengths[-1]} elements, got lengths "
            f"{sorted({len(s) for s, found in zip(sequences, result) if found is None})}"
        )
    return result


def _batches(indices: Sequence[int], sizes: Sequence[int]) -> Iterator[tuple[Sequence[int], int]]:
    """Indices with the rows to put them into, for which the fewest rows stay empty."""
    start = 0
    while start < len(indices):
        left = len(indices) - start
        # The largest batch that is filled, or that would need no fewer rows in smaller ones.
        num_rows = next(size for size in reversed(sizes) if -(-left // sizes[0]) * sizes[0] >= size)
        yield indices[start : start + num_rows], num_rows
        start += num_rows


class Encoder:
    """An autoencoder's encoder for lists of sounds, in batches of a few fixed shapes.

    Batches are spread over this host's devices.
    """

    def __init__(
        self,
        autoencoder: autoencoder_lib.Autoencoder,
        params: Any,
        *,
        batch_size: int,
        max_samples: int,
    ):
        """Compiles nothing yet.

        Args:
            autoencoder: module.
            params: of it.
            batch_size: sounds at a time; rounded up to a multiple of the devices.
            max_samples: of a sound.
        """
        self._hop = autoencoder.samples_per_latent
        self._mesh = sharding.make_mesh(dict(replica=1, fsdp=-1, tensor=1), jax.local_devices())
        devices = sharding.num_data_shards(self._mesh)
        # A shard's few sounds of one length would leave most of a whole batch empty.
        self._batch_sizes = [
            -(-rows // devices) * devices for rows in (-(-batch_size // 4), batch_size)
        ]
        self._lengths = lengths(max_samples, multiple=self._hop)
        self._params = jax.device_put(params, sharding.replicated(self._mesh))
        self._encode = jax.jit(
            lambda params, waveform: autoencoder.apply(
                {"params": params}, waveform, method="waveform_to_latents"
            ),
            out_shardings=sharding.batch_sharding(self._mesh),
        )

    def __call__(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Latents [ceil(n / samples_per_latent), latent_dim] of each waveform [n], in order."""

        def encode(values: np.ndarray, mask: np.ndarray) -> jax.Array:
            del mask  # silence follows
            placed = sharding.host_to_global({"waveform": values}, self._mesh)
            return self._encode(self._params, placed["waveform"])

        return apply(
            encode,
            waveforms,
            lengths=self._lengths,
            batch_sizes=self._batch_sizes,
            hop=self._hop,
        )


class Represent:
    """A representation encoder for lists of latents, in batches of a few fixed shapes."""

    def __init__(self, module: Any, params: Any, batch_size: int):
        """Compiles nothing yet."""
        # Few sequences of one length are no whole batch.
        self._batch_sizes, self._longest = (-(-batch_size // 4), batch_size), 0
        self._apply = jax.jit(
            lambda latents, mask: module.apply(
                {"params": params}, latents, segments=mask.astype(jnp.int32)
            ).astype(jnp.float32)
        )

    def __call__(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Representations [t, width] float32 of each sequence of latents [t, d], in order."""
        # The longest so far decides the shapes, so that later lists are padded to the same ones.
        self._longest = max(self._longest, *(len(sequence) for sequence in sequences))
        return apply(
            self._apply,
            sequences,
            lengths=lengths(self._longest),
            batch_sizes=self._batch_sizes,
        )
