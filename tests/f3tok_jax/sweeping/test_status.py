# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The table of a sweep, of readings that were not finite."""

import math
import pathlib

from f3tok_jax.runs import sealed_lines
from f3tok_jax.sweeping import plan
from f3tok_jax.sweeping import status


def _write(folder: pathlib.Path, readings: dict[str, list[float | None]]) -> None:
    """A sweep by eval/mel whose runs have these readings at steps 1, 2, ..."""
    about = dict(recipe="r.py", overrides=(), metric="eval/mel", goal="minimize")
    plan.settle(plan.Plan(**about, runs=dict.fromkeys(readings, ())), str(folder), say=print)
    for name, values in readings.items():
        (folder / name).mkdir()
        lines = [{"step": step, "eval/mel": one} for step, one in enumerate(values, 1)]
        (folder / name / "metrics.jsonl").write_bytes(b"".join(map(sealed_lines.make, lines)))


def test_a_run_that_diverged_is_not_ranked_by_what_it_was_before(tmp_path):
    _write(tmp_path, {"diverged": [1.0, None], "good": [3.0, 2.0], "back": [None, 4.0]})
    found = status.read(str(tmp_path))
    assert [(row.name, row.best) for row in found.rows] == [
        ("good", 2.0),
        ("back", 4.0),
        ("diverged", None),
    ]
    assert status.format_table(found).splitlines()[3].endswith("eval/mel is not finite at step 2")
    folders = {name: str(tmp_path / name) for name in ("diverged", "good")}
    curves = status.curves(folders, "eval/mel")
    assert curves["diverged"].steps == (1.0, 2.0) and math.isnan(curves["diverged"].values[1])
