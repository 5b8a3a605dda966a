# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a probe found, as text: a table per label and test set, with what guessing would give."""

from collections.abc import Iterator, Mapping
from typing import Any

from f3tok_jax.runs import probe_results


def format_table(results: probe_results.Probe) -> str:
    """The accuracies as text."""
    return "\n".join(
        line
        for label, found in results.labels.items()
        for name, test in found.tests.items()
        for line in _lines(results, label, found, name, test)
    )


def describe(
    label: str, found: probe_results.ProbedLabel, name: str, test: probe_results.Tested
) -> Iterator[str]:
    """Two lines: how much was learnt and tested, and what guessing would give."""
    groups = f"{found.num_groups} groups by {found.alike}" if found.alike else "groups not known"
    unseen = ""
    if test.num_unseen:
        unseen = f", {test.num_unseen} of {len(test.unseen_classes)} classes that were not learnt"
    yield (
        f"{label}: {len(found.classes)} classes, learnt from {found.num_train} examples in {groups}, "
        f"tested on {test.num_examples} of {name}{unseen}"
    )
    if test.chance is not None:
        deviation = (test.chance * (1 - test.chance) / test.num_examples) ** 0.5
        yield (
            f"  chance {test.chance:.3f}, ± {deviation:.3f} for so many examples; always the "
            f"commonest {test.majority:.3f}"
        )


def _lines(
    results: probe_results.Probe,
    label: str,
    found: probe_results.ProbedLabel,
    name: str,
    test: probe_results.Tested,
) -> Iterator[str]:
    yield from describe(label, found, name, test)
    how = f"mean ± std over {results.leave_out}s" if test.groups else "how it was fitted"
    yield f"  {'features':36} {'linear probe':>15} {'10 neighbours':>14}  {how}"
    shuffled = [one.shuffled for one in test.features.values() if one.shuffled]
    if shuffled:
        mean = sum(one.mean for one in shuffled) / len(shuffled)
        widest = max(one.std for one in shuffled)
        title = probe_results.title_of(probe_results.SHUFFLED)
        yield f"  {title:36} {_cell(mean, widest):>15} {'':>14}  all features, the widest spread"
    for number, (row, one) in enumerate(test.features.items(), 1):
        title = f"{number} {probe_results.title_of(row)}"
        linear = _cell(one.linear.mean, one.linear.std if len(one.linear.values) > 1 else None)
        neighbours = "" if one.neighbours is None else f"{one.neighbours:.3f}"
        yield f"  {title:36} {linear:>15} {neighbours:>14}  {_fit(one)}".rstrip()
    for group, of_group in (test.groups or {}).items():
        cells = (
            f"{number}: {one.linear.mean:.3f}"
            for number, one in enumerate(of_group.features.values(), 1)
        )
        size = f"{of_group.num_examples} tested"
        if of_group.num_unseen:
            size += f", {of_group.num_unseen} of unseen classes"
        yield f"  {results.leave_out} {group} left out ({size})  {'  '.join(cells)}"


def _cell(mean: float, deviation: float | None) -> str:
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"


def _fit(one: probe_results.FeatureAccuracy) -> str:
    """How the probe came to its end; of a mean over groups, how much seeds change."""
    if one.seeds_std is not None:
        return f"seeds ± {one.seeds_std:.3f}"
    fit: Mapping[str, Any] = one.fit or {}
    if "l2" in fit:
        return f"L2 {fit['l2']:g}, gradient {fit['gradient']:.0e}"
    if "num_epochs" in fit:
        return f"{fit['num_epochs']} epochs, {100 * fit['late_share']:.0f} % of the fall late"
    return ""
