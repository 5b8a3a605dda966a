# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The maps of a report: clips as points of a plane, coloured and shaped by their labels."""

import collections
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from f3tok_jax.reporting import colors
from f3tok_jax.runs import history
from f3tok_jax.runs import probe_results

SIZE = 300.0  # units of a drawing, across and down
_MARGIN = 12.0
# Outlines around a point, in SVG's words, 8 units wide; with six colours they tell 18 classes
# apart.
_SHAPES = (
    "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "m-3.6-3.6h7.2v7.2h-7.2z",
    "m0-4.6l4.6 8.2h-9.2z",
)
_STYLES = tuple((color, shape) for shape in _SHAPES for color in colors.SERIES[:-1])
_GREY = (colors.SERIES[-1], _SHAPES[0])  # of rarer classes, together, and of clips without a label
# Of those grey ones, which no label is: a clip may be of a class called "others", or "none".
_OTHERS, _NONE = object(), object()
_SAID = {_OTHERS: "(all rarer classes)", _NONE: "(clips without a label)"}


class Class(NamedTuple):
    """What is drawn alike, with its points in units of the drawing."""

    name: str
    color: str
    shape: str
    points: Sequence[tuple[float, float]]


class Map(NamedTuple):
    """One feature of a run, by one label."""

    title: str
    shares: Sequence[float]  # of the variance, along x and y
    num_clips: int
    classes: Sequence[Class]  # the commonest first


def of(
    runs: Sequence[history.RunHistory], named: Mapping[str, probe_results.Probe]
) -> dict[tuple[str, str], list[Map]]:
    """Run or name of a probe, and label -> a map for each feature.

    Args:
        runs: with the results in their folders.
        named: name -> probes that are in no run's folder.
    """
    found = [(run.name, one) for run in runs for one in run.of(probe_results.Probe).values()]
    drawn: dict[tuple[str, str], list[Map]] = {}
    for owner, probe in [*found, *named.items()]:
        for label, values in (probe.map.labels if probe.map else {}).items():
            for feature, plane in probe.map.features.items():
                title = probe_results.title_of(feature)
                drawn.setdefault((owner, label), []).append(_map(title, plane, values))
    return drawn


def _map(title: str, plane: probe_results.Plane, labels: Sequence[str]) -> Map:
    """Both axes have one scale, so that distances are what they are."""
    ends = [(min(places, default=0.0), max(places, default=0.0)) for places in (plane.x, plane.y)]
    scale = (SIZE - 2 * _MARGIN) / (max(high - low for low, high in ends) or 1.0)
    (middle_x, middle_y) = (low + (high - low) / 2 for low, high in ends)
    common = [
        name for name, _ in collections.Counter(filter(None, labels)).most_common(len(_STYLES))
    ]
    points = {name: [] for name in (*common, _OTHERS, _NONE)}
    for x, y, label in zip(plane.x, plane.y, labels):
        place = SIZE / 2 + (x - middle_x) * scale, SIZE / 2 - (y - middle_y) * scale
        points[label if label in common else _OTHERS if label else _NONE].append(place)
    styles = dict(zip(common, _STYLES))
    classes = [
        Class(_SAID.get(name, name), *styles.get(name, _GREY), places)
        for name, places in points.items()
        if places
    ]
    return Map(title, plane.shares, sum(map(len, points.values())), classes)
