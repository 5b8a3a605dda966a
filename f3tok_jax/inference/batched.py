# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Lists of sequences of unlike lengths through a module: the one way that all programs use.

A compiled program has one shape; sequences are sorted into a few lengths, padded to them with zeros
and taken in whole batches, with smaller ones for what is left.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from f3tok_jax.devices import sharding

_NUM_LENGTHS = 3


@dataclasses.dataclass(eq=False, repr=False)
class Lists:
    """A function of a module for lists of sequences, on all of this host's devices.

    It is compiled when it is first called.

    Attributes:
        function: of parameters, values [b, n, ...] float32 and a mask [b, n], True where a
            sequence is; gives [b, length_of(n), ...] without looking at what is padded.
        params: of the function.
        stream: the same of one sequence, [n, ...] to [length_of(n), ...], in bounded memory.
        longest: elements of a sequence that is still taken whole; longer ones are streamed.
        multiple: of which padded lengths are.
        length_of: length of a sequence -> length of its result.
    """

    function: Callable[[Any, jax.Array, jax.Array], jax.Array]
    params: Any
    _: dataclasses.KW_ONLY
    stream: Callable[[np.ndarray], np.ndarray]
    longest: int
    multiple: int = 1
    length_of: Callable[[int], int] = lambda length: length
    _expected: int = dataclasses.field(default=0, init=False)

    def __call__(
        self, sequences: Sequence[np.ndarray], *, batch_size: int, expected: int = 0
    ) -> list[np.ndarray]:
        """The result [length_of(n), ...] of each sequence [n, ...] float, in order.

        Args:
            sequences: of at least one element each.
            batch_size: sequences at a time, at most; rounded up to a multiple of the devices.
            expected: elements of the longest sequence that other calls may bring: the shapes then
                stay the same.
        """
        compiled, num_devices = self._compiled
        short = [sequence for sequence in sequences if len(sequence) <= self.longest]
        # The longest so far decides the shapes, so that later lists are padded to the same ones.
        most = max(self._expected, expected, 1, *map(len, short))
        self._expected = min(most, self.longest)
        # Few sequences of one length are no whole batch.
        rows = {-(-rows // num_devices) for rows in (-(-batch_size // 4), batch_size)}
        found = apply(
            compiled,
            short,
            lengths=lengths(self._expected, multiple=self.multiple),
            batch_sizes=[num_devices * count for count in rows],
            length_of=self.length_of,
        )
        in_order = iter(found)
        return [
            next(in_order) if len(sequence) <= self.longest else self.stream(sequence)
            for sequence in sequences
        ]

    @functools.cached_property
    def _compiled(self) -> tuple[Callable[[np.ndarray, np.ndarray], jax.Array], int]:
        """The function with its parameters where it runs, and the number of devices there."""
        mesh = sharding.make_mesh(dict(replica=1, fsdp=-1, tensor=1), jax.local_devices())
        params = jax.device_put(self.params, sharding.replicated(mesh))
        function = jax.jit(self.function, out_shardings=sharding.batch_sharding(mesh))

        def compiled(values: np.ndarray, mask: np.ndarray) -> jax.Array:
            placed = sharding.host_to_global({"values": values, "mask": mask}, mesh)
            return function(params, placed["values"], placed["mask"])

        return compiled, sharding.num_data_shards(mesh)


def lengths(longest: int, *, multiple: int = 1) -> list[int]:
    """`longest`, its half and its quarter, rounded up to a multiple; in rising order."""
    return sorted({-(-longest // (multiple << i)) * multiple for i in range(_NUM_LENGTHS)})


def apply(
    function: Callable[[np.ndarray, np.ndarray], Any],
    sequences: Sequence[np.ndarray],
    *,
    lengths: Sequence[int],
    batch_sizes: Sequence[int],
    length_of: Callable[[int], int] = lambda length: length,
) -> list[np.ndarray]:
    """What a function of padded batches says of every sequence, in their order.

    Args:
        function: of values [rows, length, ...] float32 and a mask [rows, length], True where a
            sequence is; gives [rows, length_of(length), ...].
        sequences: arrays [n, ...] with 0 < n <= lengths[-1].
        lengths: to pad to, in rising order.
        batch_sizes: rows of a batch that may be asked for.
        length_of: length of a sequence -> length of its result.

    Returns:
        One array [length_of(n), ...] for each sequence of n elements.

    Raises:
        ValueError: where a sequence is empty or longer than all lengths.
    """
    result: list[Any] = [None] * len(sequences)
    for length, shorter in zip(lengths, [0, *lengths]):
        indices = [i for i, sequence in enumerate(sequences) if shorter < len(sequence) <= length]
        for chunk, num_rows in _batches(indices, sorted(batch_sizes)):
            values, mask = padded([sequences[index] for index in chunk], num_rows, length)
            found = np.asarray(function(values, mask))
            for row, index in enumerate(chunk):
                # Copied: a view would keep the whole batch.
                result[index] = found[row, : length_of(len(sequences[index]))].copy()
    if any(found is None for found in result):
        raise ValueError(
            f"sequences must have between 1 and {lengths[-1]} elements, got lengths "
            f"{sorted({len(s) for s, found in zip(sequences, result) if found is None})}"
        )
    return result


def padded(
    sequences: Sequence[np.ndarray], num_rows: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sequences [n, ...] as rows [num_rows, length, ...] float32, zero where the mask is False."""
    values = np.zeros((num_rows, length, *sequences[0].shape[1:]), np.float32)
    mask = np.zeros((num_rows, length), bool)
    for row, sequence in enumerate(sequences):
        values[row, : len(sequence)], mask[row, : len(sequence)] = sequence, True
    return values, mask


def _batches(indices: Sequence[int], sizes: Sequence[int]) -> Iterator[tuple[Sequence[int], int]]:
    """Indices with the rows to put them into, for which the fewest rows stay empty."""
    start = 0
    while start < len(indices):
        left = len(indices) - start
        # The largest batch that is filled, or that would need no fewer rows in smaller ones.
        num_rows = next(size for size in reversed(sizes) if -(-left // sizes[0]) * sizes[0] >= size)
        yield indices[start : start + num_rows], num_rows
        start += num_rows
