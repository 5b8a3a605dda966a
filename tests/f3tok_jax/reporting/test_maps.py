# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Maps of a report: points inside the drawing, classes told apart, whatever a file says."""

import pathlib

import pytest

from f3tok_jax.reporting import maps
from f3tok_jax.runs import history
from tests.support import reported_runs


def _maps(tmp_path, labels, x, y=None):
    plane = {"x": x, "y": x if y is None else y, "shares": [0.5, 0.25]}
    probe = reported_runs.probes(0.8) | {
        "map": {"labels": {"digit": labels}, "features": {"latents": plane}}
    }
    folder = reported_runs.write_representation(tmp_path / "run", 0.8, probe=probe)
    found = maps.of([history.read(pathlib.Path(folder), name="run")], {})
    (drawn,) = found["run", "digit"]
    return drawn


@pytest.mark.parametrize(
    "x, y",
    [([0.0, 1.0], [5.0, 5.0]), ([0.0, 0.0], [0.0, 0.0]), ([-1e99, 1e99], [1e-9, 2e-9]), ([], [])],
)
def test_points_lie_inside_the_drawing(tmp_path, x, y):
    drawn = _maps(tmp_path, ["a"] * len(x), x, y)
    points = [place for one in drawn.classes for place in one.points]
    assert drawn.num_clips == len(points) == len(x)
    assert all(0 < place < maps.SIZE for point in points for place in point)


def test_both_axes_have_one_scale_and_y_points_upwards(tmp_path):
    drawn = _maps(tmp_path, ["a", "a", "a"], [0.0, 4.0, 0.0], [0.0, 0.0, 1.0])
    (a,) = drawn.classes
    (left, low), (right, _), (_, high) = a.points
    assert right - left == pytest.approx(4 * (low - high)) and low > high


def test_classes_are_told_apart_and_rarer_ones_are_grey(tmp_path):
    labels = ["", ""] + [f"class {i:02d}" for i in range(20)] + ["class 19"] * 2
    drawn = _maps(tmp_path, labels, [float(i) for i in range(len(labels))])
    names = [one.name for one in drawn.classes]
    grey = ["(all rarer classes)", "(clips without a label)"]
    assert names[0] == "class 19" and names[-2:] == grey and len(names) == 18 + 2
    styles = [(one.color, one.shape) for one in drawn.classes]
    assert len({*styles[:-2]}) == 18 and styles[-1] == styles[-2]
    assert styles[-1] not in styles[:-2]


def test_classes_of_any_name_are_classes(tmp_path):
    labels = ["none", "", "others", "none", "", ""] + [f"class {i:02d}" for i in range(20)] * 2
    drawn = _maps(tmp_path, labels, [float(i) for i in range(len(labels))])
    counts = {one.name: len(one.points) for one in drawn.classes}
    assert len(counts) == len(drawn.classes) and counts["none"] == 2
    assert counts["(clips without a label)"] == 3 and counts["(all rarer classes)"] == 7
    few = _maps(tmp_path / "few", ["none", "", "others"], [0.0, 1.0, 2.0])
    names = [one.name for one in few.classes]
    assert names == ["none", "others", "(clips without a label)"]


def test_a_file_whose_lists_differ_in_length_shows_what_fits(tmp_path):
    assert _maps(tmp_path, ["a", "b"], [0.0, 1.0, 2.0], [0.0]).num_clips == 1


def test_runs_without_a_map_have_none(tmp_path):
    probe = reported_runs.probes(0.8)
    probe.pop("map")
    folder = reported_runs.write_representation(tmp_path / "run", 0.8, probe=probe)
    assert maps.of([history.read(pathlib.Path(folder), name="run")], {}) == {}
