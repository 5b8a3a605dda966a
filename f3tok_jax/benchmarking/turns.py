# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Timing calls in turn: what else the machine does meets all of them alike."""

from collections.abc import Callable, Mapping, Sequence
import time
from typing import Any

import numpy as np

from data_pipelines import command
from f3tok_jax.runs import results


def measure(
    calls: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    amounts: Mapping[str, float],
    unit: str = "audio_seconds",
) -> list[results.Timing]:
    """Times calls in turn; the first round, which compiles, does not count.

    Args:
        calls: by name; the first is what the others are compared with.
        rounds: that count.
        amounts: of `unit`, that each call makes.
        unit: what speed is told in.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    first = next(iter(times.values()))[1:]
    rows = []
    for name, found in times.items():
        ratios = [one / other for one, other in zip(found[1:], first, strict=True)]
        rows.append(
            results.Timing(
                name=name,
                amount=amounts[name],
                unit=unit,
                seconds=_quartiles(found[1:]),
                best=min(found[1:]),
                times_the_first=_quartiles(ratios),
            )
        )
    return rows


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    return tuple(float(value) for value in np.percentile(values, (25, 50, 75)))


def say(title: str, rows: Sequence[results.Timing]) -> None:
    """Prints a table."""
    unit = rows[0].unit.replace("_", "-")
    command.say(
        f"{title}: ms (quartiles; best), {unit} per second, times {rows[0].name} (quartiles)"
    )
    width = max(len(row.name) for row in rows)
    for row in rows:
        low, middle, high = (1000 * value for value in row.seconds)
        least, ratio, most = row.times_the_first
        rate = f"{row.amount / row.seconds[1]:10.1f}" if row.amount else f"{'':10}"
        command.say(
            f"  {row.name:{width}s} {middle:9.1f} ({low:.1f} to {high:.1f}; {1000 * row.best:.1f}) "
            f"{rate}  {ratio:.2f} ({least:.2f} to {most:.2f})"
        )
