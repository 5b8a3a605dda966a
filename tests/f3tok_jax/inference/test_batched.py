# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Lists of sequences in padded batches."""

import jax.numpy as jnp
import numpy as np
import pytest

from f3tok_jax.inference import batched


class _Sums:
    """Sums of `hop` neighbours, as a program that remembers the shapes it was asked for."""

    def __init__(self, hop: int):
        self.hop, self.shapes = hop, []

    def __call__(self, values: np.ndarray, mask: np.ndarray) -> np.ndarray:
        assert not values[~mask].any()
        self.shapes.append(values.shape)
        inside = np.where(mask[..., None], values, 0.0)
        return inside.reshape(len(values), -1, self.hop, values.shape[-1]).sum(2)


@pytest.mark.parametrize("hop", [1, 4])
@pytest.mark.parametrize(
    "count, rows", [(1, {8}), (20, {8}), (24, {8}), (25, {32}), (32, {32}), (70, {32, 8})]
)
def test_every_sequence_gets_its_own_result_from_few_shapes(count, rows, hop):
    sums, rng = _Sums(hop), np.random.default_rng(0)
    sequences = [rng.normal(size=(13 if i % 2 else 50, 2)) for i in range(2 * count)]
    lengths = batched.lengths(64, multiple=hop)
    found = batched.apply(
        sums,
        sequences,
        lengths=lengths,
        batch_sizes=(32, 8),
        length_of=lambda count: -(-count // hop),
    )
    for sequence, result in zip(sequences, found, strict=True):
        padded = np.pad(sequence, ((0, -len(sequence) % hop), (0, 0)))
        # float32 sums of a few numbers near 1
        np.testing.assert_allclose(result, padded.reshape(-1, hop, 2).sum(1), atol=1e-6)
        assert result.base is None
    assert set(sums.shapes) == {(r, length, 2) for r in rows for length in (16, 64)}


def test_lengths_are_the_longest_its_half_and_its_quarter():
    assert batched.lengths(100) == [25, 50, 100]
    assert batched.lengths(100, multiple=8) == [32, 56, 104]
    assert batched.lengths(1) == [1]


@pytest.mark.parametrize("size", [0, 17])
def test_what_fits_no_length_is_refused(size):
    with pytest.raises(ValueError, match=rf"between 1 and 16 elements, got lengths \[{size}\]"):
        batched.apply(
            _Sums(1), [np.ones((3, 2)), np.ones((size, 2))], lengths=[4, 16], batch_sizes=[2]
        )


def _cumulative(params, values, mask):
    return params * jnp.cumsum(jnp.where(mask[..., None], values, jnp.nan), axis=1)


def test_what_is_too_long_for_a_batch_is_streamed_and_order_is_kept():
    streamed = []

    def stream(sequence):
        streamed.append(len(sequence))
        return 3.0 * np.cumsum(sequence, axis=0)

    lists = batched.Lists(_cumulative, jnp.float32(3.0), stream=stream, longest=20)
    sequences = [np.ones((n, 2), np.float32) for n in (4, 30, 20, 1, 21)]
    for sequence, found in zip(sequences, lists(sequences, batch_size=3), strict=True):
        # The padding is NaN and never seen.
        np.testing.assert_array_equal(found, 3.0 * np.cumsum(sequence, axis=0))
    assert streamed == [30, 21] and lists([], batch_size=3) == []


def test_shapes_stay_the_same_for_shorter_lists(monkeypatch):
    shapes = []
    monkeypatch.setattr(
        batched, "lengths", lambda longest, multiple: shapes.append(longest) or [64]
    )
    lists = batched.Lists(_cumulative, jnp.float32(1.0), stream=len, longest=64)
    for length, expected in ((3, 0), (9, 0), (3, 0), (3, 40), (5, 0), (3, 90)):
        lists([np.ones((length, 2))], batch_size=2, expected=expected)
    assert shapes == [3, 9, 9, 40, 40, 64]
