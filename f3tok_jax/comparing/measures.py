# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is compared: figures out of the results of a chain, by name, and their spread over seeds."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from f3tok_jax.probing import measurement
from f3tok_jax.runs import comparison_results
from f3tok_jax.runs import probe_results
from f3tok_jax.runs import results
from f3tok_jax.sweeping import space

# Name, what it says, and its value.
Figure = tuple[str, comparison_results.Measure, float]

# Of generated rows: field -> what it is, its unit, what is better.
_GENERATED = {
    "frechet_distance": ("Fréchet distance of representations", "", "lower"),
    "text_sensitivity": ("another text over another noise", "", "higher"),
    "never_stopped": ("never stopped", "", "lower"),
    "duration_error": ("error of the length", "s", "lower"),
}
_GENERATED_ROW = "generated_0"  # by the run's own sampler
_MODEL = "model"  # the row of the run itself, and the beginning of those of disturbed latents


def of_reconstruction(result: results.Reconstruction) -> Iterator[Figure]:
    """Scores of the model, of it under noise on its latents, and its latents' statistics."""
    for row in result.rows:
        if row.name.startswith(_MODEL):
            noisy = row.title.removeprefix(_MODEL)
            yield from _scores(f"reconstruction{noisy}", row, result.metrics)
    for row in result.judged.rows if result.judged else ():
        if row.name == _MODEL:
            yield from _scores("reconstruction, published judges", row, result.judged.metrics)
    latents = result.latents
    drift = float(np.max(np.abs(latents.channel_mean)) / max(latents.rms, 1e-12))
    for title, value in (
        ("rms", latents.rms),
        (f"effective rank of {latents.dim}", latents.effective_rank),
        ("largest mean of a channel over rms", drift),
    ):
        yield _figure("latents", title, value)


def _scores(
    group: str, row: results.ScoredRow, metrics: Mapping[str, results.Metric]
) -> Iterator[Figure]:
    for name, score in row.metrics.items():
        if score.mean is not None:
            better = "higher" if metrics[name].higher_is_better else "lower"
            yield _figure(group, metrics[name].title, score.mean, metrics[name].unit, better)


def of_probe(result: probe_results.Probe) -> Iterator[Figure]:
    """Share of each label's values that the linear probe finds, in each kind of features."""
    for label, probed in result.labels.items():
        for tested in probed.tests.values():
            for row, accuracy in (tested.features or {}).items():
                title = f"{label}, {probe_results.title_of(row)}"
                yield _figure("what features know", title, accuracy.linear.mean, better="higher")


def of_generation(result: results.Generation) -> Iterator[Figure]:
    """Of what is generated from texts by the run's own sampler."""
    row = next(row for row in result.rows if row.name == _GENERATED_ROW)
    for field, (title, unit, better) in _GENERATED.items():
        value = getattr(row, field)
        if value is not None:
            yield _figure("sound from text", title, value, unit, better)


def _figure(group: str, title: str, value: float, unit: str = "", better: str = "") -> Figure:
    measure = comparison_results.Measure(group=group, title=title, unit=unit, better=better)
    return f"{group}/{title}", measure, value


def over_seeds(
    arms: Sequence[space.Arm], found: Mapping[str, Sequence[Sequence[Figure]]]
) -> tuple[dict[str, comparison_results.Measure], tuple[comparison_results.Arm, ...]]:
    """The measures of all arms, and each arm with its figures' spread over seeds.

    Args:
        arms: what each changes, and of which recipe.
        found: name of each -> the figures of each seed.
    """
    measures, rows = {}, []
    for arm in arms:
        values: dict[str, list[float]] = {}
        for name, measure, value in (figure for of_seed in found[arm.name] for figure in of_seed):
            measures[name] = measure
            values.setdefault(name, []).append(value)
        rows.append(
            comparison_results.Arm(
                name=arm.name,
                recipe=getattr(arm, "recipe", ""),
                changes=tuple(arm.changes),
                figures={name: measurement.spread(of_name) for name, of_name in values.items()},
            )
        )
    return measures, tuple(rows)
