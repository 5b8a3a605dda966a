# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Maps of features: clips as points in the plane in which their pooled features differ most."""

from collections.abc import Sequence

import numpy as np

from data_pipelines.reading import sources
from f3tok_jax.probing import features as features_lib
from f3tok_jax.runs import probe_results

MAX_CLIPS = 400  # more lie over each other, and a page holds them all
_DIGITS = 4  # significant, of what is drawn a few hundred pixels wide


def draw(
    examples: features_lib.Examples, labels: Sequence[str], *, max_clips: int = MAX_CLIPS
) -> probe_results.FeatureMap:
    """Projects the features of evenly spaced examples.

    Args:
        examples: at least one.
        labels: names of what points are coloured by.
        max_clips: that are drawn.
    """
    chosen = sources.spaced(len(examples.labels), max_clips)
    return probe_results.FeatureMap(
        labels={
            label: tuple(examples.labels[index].get(label, "") for index in chosen)
            for label in labels
        },
        features={
            name: plane(values[chosen])
            for name, values in examples.features.items()
            if values.ndim == 2  # of attentive pooling there is no vector before a probe has learnt
        },
    )


def plane(values: np.ndarray) -> probe_results.Plane:
    """The first two principal components of features that are centred and not scaled.

    Args:
        values: [n, d] float32, finite.

    Returns:
        [n] along each; a direction's largest weight is positive, so that maps do not flip.
    """
    centred = values.astype(np.float64) - values.mean(0, dtype=np.float64)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    directions = np.pad(directions[:2], ((0, max(0, 2 - len(directions))), (0, 0)))
    largest = np.abs(directions).argmax(1)[:, None]
    directions *= np.where(np.take_along_axis(directions, largest, 1) < 0, -1.0, 1.0)
    powers = np.pad(sizes**2, (0, 2))
    x, y = (tuple(map(_rounded, row)) for row in directions @ centred.T)
    shares = powers[:2] / max(powers.sum(), np.finfo(np.float64).tiny)
    return probe_results.Plane(x=x, y=y, shares=tuple(map(_rounded, shares)))


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
