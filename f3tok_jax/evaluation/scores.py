# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Values of metrics, added up example by example into the tables of an evaluation."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from f3tok_jax.evaluation import distributions
from f3tok_jax.evaluation import metrics
from f3tok_jax.runs import results


def latent_statistics(moments: distributions.Moments, *, rate: float) -> results.LatentStatistics:
    """Mean and rms per channel of latent frames at `rate` Hz, and their effective rank, centred."""
    power = np.diag(moments.second_moment)
    return results.LatentStatistics(
        rate=rate,
        dim=len(power),
        num_frames=moments.count,
        channel_mean=moments.mean.tolist(),
        channel_rms=np.sqrt(power).tolist(),
        rms=float(np.sqrt(np.mean(power))),
        effective_rank=metrics.effective_rank(moments.covariance),
    )


class Scores:
    """The values of every metric for every row, example by example."""

    def __init__(self):
        self._values: dict[tuple[str, str], list[float]] = {}
        self._undefined: dict[tuple[str, str], dict[str, int]] = {}

    def add(self, row: str, values: Mapping[str, float], undefined: Mapping[str, str]) -> None:
        """Adds what `metrics.compare` returned for an example."""
        for name, value in values.items():
            self._values.setdefault((row, name), []).append(value)
        for name, reason in undefined.items():
            reasons = self._undefined.setdefault((row, name), {})
            reasons[reason] = reasons.get(reason, 0) + 1

    def summary(self, row: str, name: str) -> results.Score:
        """Mean over the examples with a value, its standard error, and why others have none."""
        values = np.array(self._values.get((row, name), []))
        error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else None
        return results.Score(
            mean=float(np.mean(values)) if len(values) else None,
            standard_error=None if error is None else float(error),
            count=len(values),
            undefined=self._undefined.get((row, name), {}),
        )

    def scored(self, row: Any) -> results.ScoredRow:
        """All scores of a row with name, title and description."""
        names = [name for name in metrics.METRICS if name not in metrics.missing()]
        return results.ScoredRow(
            name=row.name,
            title=row.title,
            description=row.description,
            metrics={name: self.summary(row.name, name) for name in names},
        )


def columns() -> dict[str, results.Metric]:
    """What the metrics are, in words."""
    fields = [field.name for field in dataclasses.fields(results.Metric)]
    return {
        name: results.Metric(**{field: getattr(metric, field) for field in fields})
        for name, metric in metrics.METRICS.items()
    }


def format_table(found: results.Reconstruction) -> str:
    """The rows of an evaluation as text: mean, standard error, and the count where it is not all."""
    names = [name for name in found.metrics if name not in found.missing]
    header = ["mean +- standard error"]
    for name in names:
        metric = found.metrics[name]
        unit = f" {metric.unit}" if metric.unit else ""
        header.append(f"{metric.title}{unit} ({'higher' if metric.higher_is_better else 'lower'})")
    lines = [header]
    for row in found.rows:
        cells = [format_score(row.metrics[name], found.num_examples) for name in names]
        lines.append([row.title, *cells])
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(_justify(line, widths) for line in lines)


def format_score(score: results.Score, num_examples: int) -> str:
    """One cell: "1.23 +- 0.04", with [n] where fewer than all examples have a value."""
    if score.mean is None:
        return "undefined"
    text = f"{score.mean:.3f}"
    if score.standard_error is not None:
        text += f" +- {score.standard_error:.3f}"
    return text if score.count == num_examples else f"{text} [{score.count}]"


def _justify(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    return "  ".join([first, *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:]))])
