# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Poolings: what a classifier of clips gets of their frames."""

from collections.abc import Sequence

import numpy as np

ATTENTIVE = "attentive"
POOLINGS = ("mean", "mean_std", "thirds", ATTENTIVE)
ATTENTIVE_PARTS = 32  # of a clip, between which attention chooses: a batch is of one shape


def check(poolings: Sequence[str]) -> None:
    """Raises ValueError for none, for unknown ones and for one twice."""
    unknown = [how for how in poolings if how not in POOLINGS]
    if not poolings or unknown or len(set(poolings)) < len(poolings):
        raise ValueError(
            f"--pooling must be different ones of {', '.join(POOLINGS)}, got {','.join(poolings)!r}"
        )


def pool(frames: np.ndarray, how: str) -> np.ndarray:
    """Makes one array of a fixed shape of valid frames.

    Args:
        frames: [t, d] float32, at least one frame.
        how: "mean" over time; "mean_std", the standard deviations behind the means; "thirds", the
            means of the beginning, the middle and the end; or "attentive", the means of
            ATTENTIVE_PARTS parts, which the classifier itself learns to weigh.

    Returns:
        [d], [2 * d] or [3 * d] float32; [ATTENTIVE_PARTS, d] for "attentive".
    """
    check([how])
    if how == "mean":
        return frames.mean(0)
    if how == "mean_std":
        return np.concatenate([frames.mean(0), frames.std(0)])
    if how == "thirds":
        return _parts(frames, 3).ravel()
    return _parts(frames, ATTENTIVE_PARTS)


def _parts(frames: np.ndarray, count: int) -> np.ndarray:
    """Means of equal parts of the time, [count, d]."""
    # Every part has at least one frame; of a number that `count` does not divide they share some.
    edges = np.linspace(0, len(frames), count + 1)
    starts, ends = np.floor(edges[:-1]).astype(int), np.ceil(edges[1:]).astype(int)
    return np.stack([frames[start:end].mean(0) for start, end in zip(starts, ends)])
