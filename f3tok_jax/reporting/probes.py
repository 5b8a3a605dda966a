# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The tables of a report with what features know: a run's own probes, and those of ablations."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib

from f3tok_jax.reporting import tables
from f3tok_jax.runs import history
from f3tok_jax.runs import results

_REFERENCES = (results.COMMONEST, "log_mel", "latents")


@dataclasses.dataclass(frozen=True)
class Column:
    """What is predicted, and on what: a label, a test set, its examples."""

    label: str
    test: str
    num_examples: int
    num_unseen: int = 0  # of them of classes that were not learnt
    is_error: bool = False  # of transcripts: the less the better


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Of the linear probe, or an error rate, with its spread, and that of neighbours."""

    mean: float
    spread: float | None = None
    neighbours: float | None = None


@dataclasses.dataclass(frozen=True)
class Accuracies:
    """Columns, name of a row -> one accuracy per column, None where not measured, and how."""

    columns: tuple[Column, ...]
    rows: Mapping[str, tuple[Accuracy | None, ...]]
    said: str


@dataclasses.dataclass(frozen=True)
class Shown:
    """A table with its title, how it was measured, and the arms of an ablation in words."""

    title: str
    table: tables.Table
    said: str
    arms: Mapping[str, str]


def accuracies(result: results.Probe | results.Ablation) -> Accuracies:
    """What probes found, column by column."""
    columns, found = [], []
    names = [name for label in result.labels.values() for name in label.tests]
    for label, of_label in result.labels.items():
        for name, test in of_label.tests.items():
            columns.append(Column(label, _short(name, names), test.num_examples, test.num_unseen))
            found.append({results.COMMONEST: Accuracy(test.majority), **_rows(test)})
    for name, of_set in getattr(result, "transcripts", {}).items():
        for kind in ("characters", "words"):
            columns.append(Column(f"wrong {kind}", name, of_set.num_examples, is_error=True))
            rates = {row.name: getattr(row, kind) for row in of_set.rows}
            found.append({row: Accuracy(rate.mean, rate.std) for row, rate in rates.items()})
    rows = list(dict.fromkeys(name for of_column in found for name in of_column))
    return Accuracies(
        tuple(columns),
        {row: tuple(of_column.get(row) for of_column in found) for row in rows},
        _said(result),
    )


def _rows(test: results.ProbeTest | results.AblationTest) -> dict[str, Accuracy]:
    if isinstance(test, results.AblationTest):
        return {
            row.name: Accuracy(row.linear.mean, row.linear.std, row.neighbours.mean)
            for row in test.rows
        }
    return {
        name: Accuracy(one.linear.mean, one.linear.std, one.neighbours)
        for name, one in test.features.items()
    }


def _said(result: results.Probe | results.Ablation) -> str:
    """How it was measured."""
    seeds = f"{result.num_seeds} seeds of the linear probe"
    facts = [f"Frames are pooled over time by {result.pooling}."]
    if isinstance(result, results.Ablation):
        seeds = f"{len(result.seeds)} seeds of the training and {seeds}"
        facts.append(f"Every arm was trained for {result.num_steps:,} steps.")
    if result.exclude:
        facts.append(f"Kept out of what probes learn: {', '.join(result.exclude)}.")
    if result.only:
        facts.append(f"Tested alone: {', '.join(result.only)}.")
    return f"Mean and spread over {seeds}. {' '.join(facts)}"


def _short(name: str, names: Sequence[str]) -> str:
    """The last part of a path, where that tells it from the others."""
    last = pathlib.PurePath(name).name
    others = {pathlib.PurePath(other).name for other in names if other != name}
    return name if last in others or not last else last


def shown(
    runs: Sequence[history.RunHistory],
    colors: Mapping[str, str],
    named: Mapping[str, results.Probe | results.Ablation],
) -> list[Shown]:
    """Every table; probes of several runs that were measured alike share one.

    Args:
        runs: with the results in their folders.
        colors: of the runs.
        named: name -> results that are in no run's folder.
    """
    groups: dict[tuple, list[tuple[tables.Cell, Accuracies]]] = {}
    ablations = []
    found = [(run.name, file, one) for run in runs for file, one in run.of(results.Probes).items()]
    for owner, file, result in [*found, *(("", name, one) for name, one in named.items())]:
        name, measured = f"{owner} {file}".strip(), accuracies(result)
        if isinstance(result, results.Ablation):
            entries = [(row, tables.Cell(title(row)), one) for row, one in measured.rows.items()]
            arms = {
                arm: ", ".join(changes) or "both losses" for arm, changes in result.arms.items()
            }
            table = _table(measured.columns, entries)
            ablations.append(Shown(f"Ablation: {name}", table, measured.said, arms))
        else:
            of = tables.Cell("", (owner or name,), color=colors.get(owner, ""))
            groups.setdefault((measured.columns, measured.said), []).append((of, measured))
    return [_probes(members) for members in groups.values()] + ablations


def title(row: str) -> str:
    """What a row is called."""
    return results.TITLES.get(row, row)


def _probes(members: Sequence[tuple[tables.Cell, Accuracies]]) -> Shown:
    """One table of the probes of several runs; what is the same of all is shown once."""
    entries, first = [], members[0][1]
    for name in dict.fromkeys(name for _, measured in members for name in measured.rows):
        having = [(of, one.rows[name]) for of, one in members if name in one.rows]
        if len(members) > 1 and (
            name not in _REFERENCES or len({found for _, found in having}) > 1
        ):
            named = [(dataclasses.replace(of, text=title(name)), found) for of, found in having]
        else:
            named = [(tables.Cell(title(name)), having[0][1])]
        entries += [(name, *one) for one in named]
    return Shown("", _table(first.columns, entries), first.said, {})


def _table(
    columns: Sequence[Column],
    entries: Sequence[tuple[str, tables.Cell, tuple[Accuracy | None, ...]]],
) -> tables.Table:
    """Rows of features, columns of labels and test sets."""
    head = [tables.Cell("")]
    rows = [[cell] for _, cell, _ in entries]
    for index, column in enumerate(columns):
        unseen = f", {column.num_unseen:,} of unseen classes" if column.num_unseen else ""
        said = f"{column.test}: {column.num_examples:,}{unseen}"
        head.append(tables.Cell(column.label, (said,)))
        found = [measured[index] for *_, measured in entries]
        best = (min if column.is_error else max)((one.mean for one in found if one), default=None)
        latents = next(
            (measured[index] for name, _, measured in entries if name == "latents"), None
        )
        for (name, *_), one, row in zip(entries, found, rows):
            row.append(_cell(one, best, None if name in _REFERENCES else latents))
    return tables.Table(head, rows)


def _cell(one: Accuracy | None, best: float, latents: Accuracy | None) -> tables.Cell:
    if one is None:
        return tables.Cell("")
    small = []
    if one.spread is not None:
        small.append(f"± {one.spread:.3f}")
    if one.neighbours is not None:
        small.append(f"neighbours {one.neighbours:.3f}")
    if latents is not None:
        small.append(f"{one.mean - latents.mean:+.3f} to raw latents")
    return tables.Cell(f"{one.mean:.3f}", tuple(small), "best" if one.mean == best else "")
