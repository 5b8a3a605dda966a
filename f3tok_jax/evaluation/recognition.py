# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a classifier that has learned from recordings alone hears in sounds that should say
something known."""

from collections.abc import Callable, Sequence

import numpy as np

from data_pipelines.reading import sources
from data_pipelines.records import pcm16
from f3tok_jax.evaluation import classifier


class LabelAccuracy:
    """Whether a classifier hears the right label in each sound.

    A label of several classes, such as "3 1 4" where the classifier knows digits, says what is heard
    in as many equal parts of the sound, one after the other.
    """

    def __init__(
        self,
        predict: Callable[[Sequence[np.ndarray]], np.ndarray],
        classes: Sequence[str],
        labels: Sequence[str],
    ):
        """Takes a classifier and what it should hear.

        Args:
            predict: waveforms [n] to classes [number of waveforms].
            classes: their names, in order.
            labels: of each sound.

        Raises:
            ValueError: for a label that is no class and no sequence of classes.
        """
        places = {name: place for place, name in enumerate(classes)}
        self._predict = predict
        self._wanted = [
            [places.get(part) for part in ([label] if label in places else label.split())]
            for label in labels
        ]
        for label, wanted in zip(labels, self._wanted):
            if not wanted or None in wanted:
                raise ValueError(
                    f"--classifier_shards must hold every label that is to be heard, got {label!r} "
                    f"to hear and recordings of {', '.join(classes)}"
                )

    @classmethod
    def learn(
        cls,
        shards: str,
        name: str,
        labels: Sequence[str],
        *,
        sample_rate: int,
        say: Callable[[str], None],
    ) -> "LabelAccuracy":
        """Trains a classifier on a set of recordings.

        Args:
            shards: the set.
            name: of the label that the classifier tells apart.
            labels: of the sounds to be recognized.
            sample_rate: of them, Hz.
            say: where progress goes.

        Raises:
            ValueError: where the set has less than two values of the label, or lacks one of
                `labels`.
        """
        source = sources.open_sound(shards, sample_rate=sample_rate)
        records = (source[index] for index in range(len(source)))
        heard = [record for record in records if name in record.labels]
        classes = sorted({record.labels[name] for record in heard})
        if len(classes) < 2:
            raise ValueError(
                f"--classifier_shards must hold records of at least two values of the label "
                f"{name!r}, got {len(classes)} in {shards}"
            )
        say(f"training the classifier of {name!r} on {len(heard)} recordings")
        trained = classifier.train(
            [pcm16.to_float(record.waveform) for record in heard],
            np.array([classes.index(record.labels[name]) for record in heard]),
            sample_rate=sample_rate,
            num_classes=len(classes),
            seed=0,
        )
        return cls(trained.predict, classes, labels)

    def __call__(self, waveforms: Sequence[np.ndarray]) -> float:
        """The share of labels that is heard in the sounds [n], or in their parts."""
        parts = [
            part
            for waveform, wanted in zip(waveforms, self._wanted, strict=True)
            for part in _equal_parts(waveform, len(wanted))
        ]
        return float(np.mean(self._predict(parts) == np.concatenate(self._wanted)))


def _equal_parts(waveform: np.ndarray, count: int) -> list[np.ndarray]:
    """The parts of a sound, one after the other; one sample each where there are too few."""
    bounds = np.linspace(0, len(waveform), count + 1).round().astype(int)
    return [
        waveform[first : max(last, first + 1)] if first < len(waveform) else waveform[-1:]
        for first, last in zip(bounds, bounds[1:])
    ]
