# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a run is well: names spikes and collapses by the metrics of its steps."""

import collections
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from f3tok_jax.training import stage as stage_lib

_WINDOW = 128  # steps that a value is compared with; chosen
_LEAST = 64  # of them, before anything is a spike: until then a run finds its level; chosen
_DEVIATIONS = 10.0  # from the median, in standard deviations of a normal distribution; chosen
_MAD_TO_DEVIATION = 1.4826  # of a normal distribution
_SILENCE = 1000  # steps for which the same thing is not said again; chosen
_MAX_SPIKES = 1000  # that a process gives the examples of: a run that only spikes fills no disk


class Spike(NamedTuple):
    """A value far above those of the steps before: their median, and how many they are."""

    value: float
    median: float
    num_before: int


class Finding(NamedTuple):
    """What one step shows.

    Attributes:
        spikes: by metric; those whose examples are worth keeping.
        sentences: to be said.
    """

    spikes: Mapping[str, Spike]
    sentences: Sequence[str]


class Health:
    """Looks at the metrics of each finite step in order; keeps a bounded number of them.

    The rule for a spike is robust: more than ten deviations, estimated from the median of the
    distances, above the median of the last 128 steps, and more than a factor above it. A level that
    falls is none, and one that rises for good is none after half of the steps.
    """

    def __init__(self, watched: Sequence[stage_lib.Watched], signs: Sequence[stage_lib.Sign]):
        """Begins with nothing to compare with, as a run does that is restored.

        Args:
            watched: metrics that may spike.
            signs: what a collapse looks like.
        """
        self._watched, self._signs = watched, signs
        self._before = {one.metric: collections.deque(maxlen=_WINDOW) for one in watched}
        self._held = [0] * len(signs)
        self._names: set[str] = set()
        self._num_spikes = 0
        self._said: dict[object, int] = {}  # what was said -> at which step
        self._unsaid = collections.Counter[object]()  # how often it held since

    def look(self, step: int, values: Mapping[str, float]) -> Finding:
        """What the metrics of a step show; those without weight are absent."""
        if not values.keys() <= self._names:
            # A loss that joins changes the level of the gradients.
            self._names |= values.keys()
            for before in self._before.values():
                before.clear()
        watched = [one for one in self._watched if one.metric in values]
        found = {one: self._compare(one, values[one.metric]) for one in watched}
        spikes = {one: spike for one, spike in found.items() if spike}
        self._num_spikes += bool(spikes)
        is_kept = self._num_spikes <= _MAX_SPIKES
        sentences = []
        for one, spike in spikes.items():
            sentences += self._news(step, one, _described(step, one, spike, is_kept))
        for index, sign in enumerate(self._signs):
            if not values.keys() >= set(sign.metrics):
                continue
            sentence = sign.shows(*(values[name] for name in sign.metrics))
            self._held[index] = self._held[index] + 1 if sentence else 0
            if sentence and self._held[index] >= sign.steps:
                sentences += self._news(step, sign, f"at step {step}: {sentence}")
        kept = {one.metric: spike for one, spike in spikes.items()} if is_kept else {}
        return Finding(kept, sentences)

    def _compare(self, one: stage_lib.Watched, value: float) -> Spike | None:
        """The spike that a value is beside those before it, which it joins."""
        before, found = self._before[one.metric], None
        if len(before) >= _LEAST:
            median = float(np.median(before))
            spread = _MAD_TO_DEVIATION * float(np.median(np.abs(np.array(before) - median)))
            if value > median + _DEVIATIONS * spread and value > one.factor * median:
                found = Spike(value, median, len(before))
        before.append(value)
        return found

    def _news(self, step: int, what: object, sentence: str) -> list[str]:
        """The sentence; none where the same thing was said a short while ago, which is counted."""
        if step < self._said.get(what, -_SILENCE) + _SILENCE:
            self._unsaid[what] += 1
            return []
        if self._unsaid[what]:
            sentence += f" ({self._unsaid[what]} more since step {self._said[what]})"
        self._said[what], self._unsaid[what] = step, 0
        return [sentence]


def _described(step: int, one: stage_lib.Watched, spike: Spike, is_kept: bool) -> str:
    examples = "; its examples are in logs/spikes.jsonl: look at them, and" if is_kept else ":"
    return (
        f"{one.metric} of step {step} is {spike.value:.3g}, the median of the {spike.num_before} "
        f"steps before {spike.median:.3g}{examples} if it comes again {one.lever}"
    )
