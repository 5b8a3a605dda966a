# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Values of metrics, added up example by example into the tables of an evaluation."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses

import numpy as np

from f3tok_jax.evaluation import distributions
from f3tok_jax.evaluation import metrics
from f3tok_jax.runs import results


def latent_statistics(
    moments: distributions.Moments, means: distributions.Moments, *, rate: float
) -> results.LatentStatistics:
    """Mean and rms per channel of latent frames at `rate` Hz, and their directions, centred.

    Args:
        moments: of all frames.
        means: of the mean frame of each sound.
        rate: Hz.
    """
    power = np.diag(moments.second_moment)
    variances = np.maximum(np.linalg.eigvalsh(moments.covariance)[::-1], 0.0)
    return results.LatentStatistics(
        rate=rate,
        dim=len(power),
        num_frames=moments.count,
        channel_mean=moments.mean.tolist(),
        channel_rms=np.sqrt(power).tolist(),
        rms=float(np.sqrt(np.mean(power))),
        effective_rank=metrics.effective_rank(moments.covariance),
        drift_rms=float(np.sqrt(np.mean(np.diag(means.second_moment)))),
        spectrum=(variances / max(variances.sum(), np.finfo(float).tiny)).tolist(),
    )


class Scores:
    """The values of every metric for every row, example by example."""

    def __init__(self):
        self._values: dict[tuple[str, str], list[tuple[float, float]]] = {}
        self._undefined: dict[tuple[str, str], dict[str, int]] = {}

    def add(
        self,
        row: str,
        values: Mapping[str, float],
        undefined: Mapping[str, str],
        weights: Mapping[str, float] = {},
    ) -> None:
        """Adds what `metrics.compare` or a judge said of an example; weights are 1 where absent."""
        for name, value in values.items():
            self._values.setdefault((row, name), []).append((value, weights.get(name, 1.0)))
        for name, reason in undefined.items():
            reasons = self._undefined.setdefault((row, name), {})
            reasons[reason] = reasons.get(reason, 0) + 1

    def said(self, row: str) -> set[str]:
        """Of which metrics anything was added to a row, a value or why there is none."""
        return {name for owner, name in [*self._values, *self._undefined] if owner == row}

    def summary(self, row: str, name: str) -> results.Score:
        """Mean over the examples with a value, its standard error, and why others have none.

        Of weights the weighted mean, such as of rates by the words that they are of, and the
        standard error of that ratio.
        """
        found = np.array(self._values.get((row, name), [])).reshape(-1, 2)
        values, weights = found.T
        count, mean, error = len(values), None, None
        if count:
            share = weights / weights.sum()
            mean = float(share @ values)
        if count > 1:
            error = np.sqrt(count / (count - 1) * np.sum(np.square(share * (values - mean))))
        return results.Score(
            mean=mean,
            standard_error=None if error is None else float(error),
            count=count,
            undefined=self._undefined.get((row, name), {}),
        )

    def scored(
        self, name: str, title: str, description: str = "", *, figures: Iterable[str]
    ) -> results.ScoredRow:
        """The scores of a row for some metrics."""
        return results.ScoredRow(
            name=name,
            title=title,
            description=description,
            metrics={figure: self.summary(name, figure) for figure in figures},
        )


def columns() -> dict[str, results.Metric]:
    """What the metrics are, in words."""
    fields = [field.name for field in dataclasses.fields(results.Metric)]
    return {
        name: results.Metric(**{field: getattr(metric, field) for field in fields})
        for name, metric in metrics.METRICS.items()
    }


def format_table(found: results.Reconstruction) -> str:
    """The rows of an evaluation as text; see `format_rows`."""
    names = [name for name in found.metrics if name not in found.missing]
    return format_rows(found.rows, found.metrics, names, found.num_examples)


def format_rows(
    rows: Sequence[results.ScoredRow],
    metrics_of: Mapping[str, results.Metric],
    names: Sequence[str],
    num_examples: int,
) -> str:
    """Rows as text: mean, standard error, and the count where it is not all; why it is not."""
    header = ["mean +- standard error"]
    for name in names:
        metric = metrics_of[name]
        unit = f" {metric.unit}" if metric.unit else ""
        header.append(f"{metric.title}{unit} ({'higher' if metric.higher_is_better else 'lower'})")
    lines = [header]
    for row in rows:
        cells = [format_score(row.metrics.get(name), num_examples) for name in names]
        lines.append([row.title, *cells])
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    table = [_justify(line, widths) for line in lines]
    return "\n".join([*table, *_undefined(rows, metrics_of, names, num_examples)])


def _undefined(
    rows: Sequence[results.ScoredRow],
    metrics_of: Mapping[str, results.Metric],
    names: Sequence[str],
    num_examples: int,
) -> Iterator[str]:
    """Of every metric without a value for some examples, how many that are, and why."""
    for name in names:
        most: dict[str, int] = {}
        for row in rows:
            for reason, count in row.metrics[name].undefined.items() if name in row.metrics else ():
                most[reason] = max(count, most.get(reason, 0))
        for reason, count in most.items():
            yield (
                f"{metrics_of[name].title} has no value for up to {count} of {num_examples} "
                f"examples: {reason}"
            )


def format_score(score: results.Score | None, num_examples: int) -> str:
    """One cell: "1.23 +- 0.04", with [n] where fewer than all examples have a value."""
    if score is None:  # nothing to compare with
        return ""
    if score.mean is None:
        return "undefined"
    text = f"{score.mean:.3f}"
    if score.standard_error is not None:
        text += f" +- {score.standard_error:.3f}"
    return text if score.count == num_examples else f"{text} [{score.count}]"


def _justify(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    return "  ".join([first, *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:]))])
