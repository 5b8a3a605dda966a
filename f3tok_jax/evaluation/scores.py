# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Values of metrics and latents, added up example by example into the tables of an evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from f3tok_jax.evaluation import distributions
from f3tok_jax.evaluation import metrics


class LatentStatistics:
    """Moments of latent frames, added up batch by batch."""

    def __init__(self, latent_dim: int):
        self._moments = distributions.Moments(latent_dim)

    def add(self, frames: np.ndarray) -> None:
        """Adds frames [t, d]."""
        self._moments.add(frames)

    def summary(self) -> dict[str, Any]:
        """Mean and rms per channel, and the effective rank of the centred frames."""
        power = np.diag(self._moments.second_moment)
        return {
            "num_frames": self._moments.count,
            "channel_mean": self._moments.mean.tolist(),
            "channel_rms": np.sqrt(power).tolist(),
            "rms": float(np.sqrt(np.mean(power))),
            "effective_rank": metrics.effective_rank(self._moments.covariance),
        }


class SpectrumStatistics:
    """Moments of log spectra, row by row, to tell how far each row's are from the originals'."""

    def __init__(self, sample_rate: int):
        self._sample_rate = sample_rate
        self._rows: dict[str, distributions.Moments] = {}

    def add(self, row: str, waveform: np.ndarray) -> None:
        """Adds one sound [n] of a row."""
        spectrum = distributions.log_spectrum(waveform, sample_rate=self._sample_rate)
        self._rows.setdefault(row, distributions.Moments(spectrum.shape[1])).add(spectrum)

    def distances(self, original: str) -> dict[str, float]:
        """Row -> Frechet distance of its spectra from those of the row `original`."""
        truth = self._rows[original]
        return {
            name: distributions.frechet_distance(moments, truth)
            for name, moments in self._rows.items()
            if name != original
        }


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

    def summary(self, row: str, name: str) -> dict[str, Any]:
        """Mean over the examples with a value, its standard error, and why others have none."""
        values = np.array(self._values.get((row, name), []))
        error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else None
        return {
            "mean": float(np.mean(values)) if len(values) else None,
            "standard_error": None if error is None else float(error),
            "count": len(values),
            "undefined": self._undefined.get((row, name), {}),
        }


def table(contenders: Sequence[Any], scores: Scores) -> dict[str, Any]:
    """The table as JSON: what the columns mean, which are missing and why, and the rows.

    Args:
        contenders: with name, title and description.
        scores: of those names.
    """
    missing = metrics.missing()
    return {
        "missing": missing,
        "metrics": {
            name: {
                "title": metric.title,
                "unit": metric.unit,
                "explanation": metric.explanation,
                "higher_is_better": metric.higher_is_better,
            }
            for name, metric in metrics.METRICS.items()
        },
        "rows": [
            {
                "name": contender.name,
                "title": contender.title,
                "description": contender.description,
                "metrics": {
                    name: scores.summary(contender.name, name)
                    for name in metrics.METRICS
                    if name not in missing
                },
            }
            for contender in contenders
        ],
    }


def format_table(results: Mapping[str, Any]) -> str:
    """The rows of an evaluation as text: mean, standard error, and the count where it is not all.

    Args:
        results: what `evaluate` writes.
    """
    names = [name for name in results["metrics"] if name not in results["missing"]]
    header = ["mean +- standard error"]
    for name in names:
        metric = results["metrics"][name]
        unit = f" {metric['unit']}" if metric["unit"] else ""
        header.append(
            f"{metric['title']}{unit} ({'higher' if metric['higher_is_better'] else 'lower'})"
        )
    lines = [header]
    for row in results["rows"]:
        cells = [format_value(row["metrics"][name], results["num_examples"]) for name in names]
        lines.append([row["title"], *cells])
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(_justify(line, widths) for line in lines)


def format_value(value: Mapping[str, Any], num_examples: int) -> str:
    """One cell: "1.23 +- 0.04", with [n] where fewer than all examples have a value."""
    if value["mean"] is None:
        return "undefined"
    text = f"{value['mean']:.3f}"
    if value["standard_error"] is not None:
        text += f" +- {value['standard_error']:.3f}"
    return text if value["count"] == num_examples else f"{text} [{value['count']}]"


def _justify(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    return "  ".join([first, *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:]))])
