# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What is compared: figures out of the results of a chain, by name, and their spread over seeds."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from f3tok_jax.devices import slices
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
_CHIP = "v5e"  # whose peak says how long products would take at the least
_EXPLAINED = 0.9  # of the variance of latents, by as many directions as it takes
_MODEL = "model"  # the row of the run itself, and the beginning of those of disturbed latents
_SCORED, _JUDGED = "reconstruction", "reconstruction, published judges"  # groups of measures


def of_reconstruction(result: results.Reconstruction) -> Iterator[Figure]:
    """Scores of the model, of it under noise on its latents, its latents' statistics, and its cost."""
    for row in result.rows:
        if row.name.startswith(_MODEL):
            noisy = row.title.removeprefix(_MODEL)
            yield from _scores(f"{_SCORED}{noisy}", row, result.metrics)
    for row in result.judged.rows if result.judged else ():
        if row.name == _MODEL:
            yield from _scores(_JUDGED, row, result.judged.metrics)
    yield from _of_latents(result.latents)
    if result.flops_per_second:
        yield from _of_cost(result.flops_per_second)


def of_references(result: results.Reconstruction) -> dict[str, dict[str, float]]:
    """Figures of what no model made of the same sound, and judges' of the recordings, by title."""
    found: dict[str, dict[str, float]] = {}
    for group, table in ((_SCORED, result), (_JUDGED, result.judged)):
        for row in table.rows if table else ():
            if not row.name.startswith(_MODEL):
                figures = {name: value for name, _, value in _scores(group, row, table.metrics)}
                found.setdefault(row.title, {}).update(figures)
    return found


def _of_latents(latents: results.LatentStatistics) -> Iterator[Figure]:
    largest, rms = float(np.max(np.abs(latents.channel_mean))), max(latents.rms, 1e-12)
    told = {
        "width": latents.dim,
        "values per second": latents.dim * latents.rate,
        "rms": latents.rms,
        "largest mean of a channel over rms": largest / rms,
        "effective rank": latents.effective_rank,
    }
    if latents.drift_rms is not None:
        told["drift: mean of a channel over a sound, over rms"] = latents.drift_rms / rms
    if latents.spectrum:
        told["largest share of the variance in a direction"] = latents.spectrum[0]
        needed = 1 + int(np.sum(np.cumsum(latents.spectrum)[:-1] < _EXPLAINED))
        told[f"directions of {_EXPLAINED:.0%} of the variance"] = needed
    for title, value in told.items():
        yield _figure("latents", title, value)


def _of_cost(flops: results.Flops) -> Iterator[Figure]:
    """By formula, not compiled: what no implementation can do without."""
    group, seconds = "products with weights, per second of sound", flops.encode + flops.decode
    seconds /= slices.CHIPS[_CHIP].peak_flops
    yield _figure(group, "encoding, frozen models included", flops.encode / 1e9, "GFLOP", "lower")
    yield _figure(group, "decoding", flops.decode / 1e9, "GFLOP", "lower")
    title = f"both at the peak of a {_CHIP} chip, by formula"
    yield _figure(group, title, 1e6 * seconds, "µs", "lower")


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


def of_generation(said: Mapping[str, results.Generation]) -> Iterator[Figure]:
    """Of what generators, by name, make of texts by their own samplers, beside one another."""
    rows = {
        name: next(row for row in result.rows if row.name == _GENERATED_ROW)
        for name, result in said.items()
    }
    for field, (title, unit, better) in _GENERATED.items():
        for name, row in rows.items():
            value = getattr(row, field)
            if value is not None:
                yield _figure("sound from text", f"{title}, {name}", value, unit, better)


def _figure(group: str, title: str, value: float, unit: str = "", better: str = "") -> Figure:
    measure = comparison_results.Measure(group=group, title=title, unit=unit, better=better)
    return f"{group}/{title}", measure, value


def over_seeds(
    arms: Sequence[space.Arm],
    found: Mapping[str, Sequence[Sequence[Figure]]],
    semantic_encoders: Mapping[str, str],
) -> tuple[dict[str, comparison_results.Measure], tuple[comparison_results.Arm, ...]]:
    """The measures of all arms, and each arm with its figures' spread over seeds.

    Args:
        arms: what each changes, and of which recipe.
        found: name of each -> the figures of each seed.
        semantic_encoders: likewise, whose weights those are through which it hears; "" for none.
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
                semantic_encoder=semantic_encoders[arm.name],
                figures={name: measurement.spread(of_name) for name, of_name in values.items()},
            )
        )
    return measures, tuple(rows)
