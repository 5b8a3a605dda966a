# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Features whose content is known, for the tests of probes."""

from collections.abc import Sequence

import numpy as np

from f3tok_jax.probing import classifiers


def blobs(count=300, dim=20, classes=5, noise=0.5, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Classes around centres, [count, dim] float32, and their labels."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(100).standard_normal((classes, dim))
    labels = draw.integers(0, classes, count)
    features = centres[labels] + noise * draw.standard_normal((count, dim))
    return features.astype(np.float32), labels.astype(np.int32)


def slow(count=400, dim=40, classes=10, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Classes that small differences beside loud, common ones tell, as those of log-mel spectra."""
    features, labels = blobs(count, dim, classes, noise=0.4, seed=seed)
    loud = np.random.default_rng(101).standard_normal((3, dim))
    level = np.random.default_rng(seed + 1000).standard_normal((count, 3))
    return (0.25 * features + 3.0 * level @ loud).astype(np.float32), labels


def learnt(
    features: np.ndarray, labels: np.ndarray, groups: Sequence[str] | None = None
) -> classifiers.Learnt:
    """What a probe learns from; every example a group of its own where none are named."""
    names = [f"clip {index}" for index in range(len(features))] if groups is None else groups
    num_classes = int(labels.max()) + 1 if len(labels) else 1
    return classifiers.Learnt(features, labels, num_classes, np.array(names))
