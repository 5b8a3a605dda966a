# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Streams of sound at another rate, and of an exact length."""

from collections.abc import Iterable, Iterator

import numpy as np

from data_pipelines.sound import transforms


def resampled(blocks: Iterable[np.ndarray], from_rate: int, to_rate: int) -> Iterator[np.ndarray]:
    """A stream of blocks [channels, any number] at another rate, Hz; of some sound, some comes."""
    resamplers, heard, said = None, 0, 0
    for block, last in _with_last(blocks):
        resamplers = resamplers or [transforms.Resampler(from_rate, to_rate) for _ in block]
        made = np.stack([resample(row, last=last) for resample, row in zip(resamplers, block)])
        heard, said = heard + block.shape[1], said + made.shape[1]
        # Sound of less than a sample at the new rate is rounded to none.
        yield np.zeros((len(block), 1), np.float32) if last and heard and not said else made


def exactly(blocks: Iterable[np.ndarray], num_samples: int) -> Iterator[np.ndarray]:
    """A stream of blocks [channels, k] cut, or filled up with zeros, to so many samples."""
    for block, last in _with_last(blocks):
        block = block[:, :num_samples]
        num_samples -= block.shape[1]
        # Rates that do not divide may leave the last sample unsaid.
        yield np.pad(block, ((0, 0), (0, num_samples))) if last else block


def _with_last(items: Iterable) -> Iterator:
    """Pairs every item with whether it is the last."""
    items = iter(items)
    held = next(items, None)
    while held is not None:
        following = next(items, None)
        yield held, following is None
        held = following
