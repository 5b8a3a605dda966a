# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What every probe has in common, and the one that learns nothing: nearest neighbours."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple, Protocol

import numpy as np


@dataclasses.dataclass(frozen=True)
class Learnt:
    """What a probe learns from.

    Attributes:
        features: [n, d] float32, or [n, parts, d] of attentive pooling; finite.
        classes: [n] int, in [0, num_classes).
        num_classes: of the label.
        groups: [n] of str: what is alike, such as the clips of a speaker, has one name.
    """

    features: np.ndarray
    classes: np.ndarray
    num_classes: int
    groups: np.ndarray

    def __post_init__(self):
        counts = len(self.features), len(self.classes), len(self.groups)
        if self.features.ndim not in (2, 3) or len(set(counts)) > 1 or not counts[0]:
            raise ValueError(
                "a probe needs features [n, d] or [n, parts, d] of at least one example, and a class "
                f"and a group for each, got {list(self.features.shape)}, {counts[1]} classes and "
                f"{counts[2]} groups"
            )
        if not np.isfinite(self.features).all():
            raise ValueError("features of a probe must be finite, got some that are not")

    def check_test(self, test: np.ndarray) -> None:
        """Raises ValueError unless features to be tested, [m, ...], are of the same kind."""
        if test.shape[1:] != self.features.shape[1:] or not len(test):
            raise ValueError(
                f"a probe of features {list(self.features.shape)} needs something to test of the "
                f"same shape, got {list(test.shape)}"
            )
        if not np.isfinite(test).all():
            raise ValueError("features of a probe must be finite, got some to test that are not")

    def shuffled(self, seed: int) -> np.ndarray:
        """The classes in another order, [n]: what is learnt from them is nothing of the sound."""
        return np.random.default_rng([seed, 2]).permutation(self.classes)


class Predicted(NamedTuple):
    """Answers, [k, m] int32 for m examples, of k seeds or of one fit; and how it was fitted."""

    classes: np.ndarray
    fit: Mapping[str, Any]


class Recipe(Protocol):
    """How a linear probe learns: a dataclass of its settings."""

    name: str

    def predict(self, learnt: Learnt, test: np.ndarray, *, seeds: Sequence[int]) -> Predicted:
        """Learns, and answers for `test` [m, ...]; ValueError where it is not taken to its end."""

    def predict_shuffled(
        self, learnt: Learnt, test: np.ndarray, *, seeds: Sequence[int], fit: Mapping[str, Any]
    ) -> np.ndarray:
        """[seeds, m] answers of a probe that learnt, as `fit` did, classes shuffled by each seed."""


def nearest_neighbours(
    learnt: Learnt, test: np.ndarray, *, num_neighbours: int = 10, temperature: float = 0.07
) -> np.ndarray:
    """Lets the most similar training examples vote, by the softmax of their cosines.

    Source: the second probe of X-ARES (github.com/jimbozhang/xares, Apache-2.0) for clips.

    Args:
        learnt: with features [n, d].
        test: [m, d] float32.
        num_neighbours: that vote; all of them where there are fewer.
        temperature: of the softmax.

    Returns:
        [m] int32, predicted classes.
    """
    learnt.check_test(test)
    memory = _unit(learnt.features)
    count = min(num_neighbours, len(memory))
    predictions = []
    for start in range(0, len(test), 1024):  # bounds the memory
        cosines = _unit(test[start : start + 1024]) @ memory.T
        nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        similarity = np.take_along_axis(cosines, nearest, axis=1) / temperature
        weights = np.exp(similarity - similarity.max(axis=1, keepdims=True))
        votes = np.zeros((len(cosines), learnt.num_classes))
        np.add.at(votes, (np.arange(len(cosines))[:, None], learnt.classes[nearest]), weights)
        predictions.append(votes.argmax(axis=1))
    return np.concatenate(predictions).astype(np.int32)


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)
