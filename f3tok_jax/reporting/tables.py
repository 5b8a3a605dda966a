# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a report's tables hold: evaluations and probes, those that were measured alike together, and
what of their data runs have heard."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import NamedTuple

from f3tok_jax.runs import comparison_results
from f3tok_jax.runs import history
from f3tok_jax.runs import probe_results
from f3tok_jax.runs import results

RECORDING = "recording"  # the row of the recordings themselves, of judges
# Rows of probes that do not depend on what was trained, whatever their pooling.
_REFERENCES = (probe_results.COMMONEST, probe_results.SHUFFLED, "log_mel", "mfcc", "latents")

# Metrics that are shares of what a run was given -> what they say. Of those that end in a slash there
# are several, and what stands behind it is said too.
_HEARD = {
    "data/sound_cut": "of the sound, cut off behind the crop",
    "data/sound_left_out": "of the sound, left out: no row had room",
    "data/text_none": "of the records, without a text",
    "data/text_cut": "of the texts, lost: their sound was cut",
    "data/text_too_long": "of the texts, lost: they had too many tokens",
    "data/text_left_out": "of the texts, left out: no row had room",
    "data/answers_kept": "of the tokens of answers, taught",
    "data/padding/": "of the room of rows, empty",
    "train/lost/": "of what rows were given, dropped on the device",
    "train/filled": "of the batches, sound or text; the rest is padding",
}


class Member(NamedTuple):
    """An evaluation, and how it is told from others beside it."""

    name: str
    color: str
    result: results.Reconstruction


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Evaluations on the same sound; references that are the same of all are no member's rows."""

    members: Sequence[Member]
    metrics: Mapping[str, results.Metric]  # that were measured
    rows: Sequence[tuple[Member | None, results.ScoredRow]]
    best: Mapping[str, float | None]  # metric -> mean, of the undisturbed rows
    missing: Mapping[str, str]  # title of a metric -> why it was not measured


def evaluations(runs: Sequence[history.RunHistory], colors: Mapping[str, str]) -> list[Evaluation]:
    """All evaluations of reconstruction."""
    groups: dict[tuple, list[Member]] = {}
    for run in runs:
        found = run.of(results.Reconstruction)
        for file, result in found.items():
            name = run.name if len(found) == 1 else f"{run.name} {file}"
            key = (result.shards.fingerprint, result.num_examples)
            groups.setdefault(key, []).append(Member(name, colors[run.name], result))
    return [_evaluation(members) for members in groups.values()]


def _evaluation(members: Sequence[Member]) -> Evaluation:
    first, rows = members[0].result, []
    for member in members:
        for row in member.result.rows:
            if row.name.startswith("model"):
                rows.append((member, row))
            elif not any(row.metrics == shown.metrics for owner, shown in rows if not owner):
                rows.append((None, row))
    order = {row.name: index for index, row in enumerate(first.rows)}
    rows.sort(key=lambda entry: order.get(entry[1].name, len(order)))
    metrics = {name: one for name, one in first.metrics.items() if name not in first.missing}
    shown = [row for _, row in rows if not is_noisy(row.name)]
    best = {name: _best(shown, name, metric) for name, metric in metrics.items()}
    missing = {
        member.result.metrics[name].title: why
        for member in members
        for name, why in member.result.missing.items()
        if name in member.result.metrics
    }
    return Evaluation(members, metrics, rows, best, missing)


@dataclasses.dataclass(frozen=True)
class Verdicts:
    """What a published judge says of the rows of an evaluation."""

    run: str
    judge: str
    source: results.JudgeSource
    num_examples: int
    metrics: Mapping[str, results.Metric]  # of this judge
    rows: Sequence[results.ScoredRow]
    best: Mapping[str, float | None]  # metric -> mean, of what is neither recorded nor disturbed


def verdicts(judged: Mapping[str, results.Judged]) -> list[Verdicts]:
    """A table for each judge of each evaluation; `judged` by the evaluation's name."""
    found = []
    for run, result in judged.items():
        for judge, source in result.judges.items():
            prefix = f"{judge}/"
            metrics = {name: one for name, one in result.metrics.items() if name.startswith(prefix)}
            shown = [one for one in result.rows if one.name != RECORDING and not is_noisy(one.name)]
            best = {name: _best(shown, name, metric) for name, metric in metrics.items()}
            rows, count = result.rows, result.num_examples
            found.append(Verdicts(run, judge, source, count, metrics, rows, best))
    return found


def _best(rows: Sequence[results.ScoredRow], name: str, metric: results.Metric) -> float | None:
    """The best mean of a metric over rows."""
    scores = [row.metrics.get(name) for row in rows]
    means = [score.mean for score in scores if score and score.mean is not None]
    return (max if metric.higher_is_better else min)(means, default=None)


def is_noisy(row: str) -> bool:
    """Whether a row is of disturbed latents."""
    return row.startswith("model_alpha")


def heard(runs: Sequence[history.RunHistory]) -> list[tuple[str, list[float | None]]]:
    """What of its data each run has heard: what a share is of, and the share of each of the runs.

    Shares in [0, 1] are means over all lines of the log, weighted alike; None where a run has none.
    What no run has, as one from before it was counted, has no row.
    """
    names = dict.fromkeys(name for run in runs for name in run.curves)
    rows = []
    for known, said in _HEARD.items():
        is_several = known.endswith("/")
        for name in names:
            if name == known or (is_several and name.startswith(known)):
                part = f" ({name.removeprefix(known).replace('_', ' ')})" if is_several else ""
                rows.append((said + part, [_mean(run.curves.get(name)) for run in runs]))
    return rows


def _mean(curve: history.Curve | None) -> float | None:
    return sum(curve.values) / len(curve.values) if curve else None


@dataclasses.dataclass(frozen=True)
class Compared:
    """A table of a comparison: the measures of a group, and each arm's figures."""

    group: str
    measures: Mapping[str, comparison_results.Measure]
    arms: Sequence[comparison_results.Arm]
    best: Mapping[str, float | None]  # of the arms' means; None where none is better
    references: Mapping[str, Mapping[str, float]]  # those that have any of them


def compared(result: comparison_results.Comparison) -> list[Compared]:
    """The tables of a comparison, one for each group."""
    found = []
    for group, measures in result.groups.items():
        best = {name: _best_arm(result.arms, name, one.better) for name, one in measures.items()}
        references = result.references_of(measures)
        found.append(Compared(group, measures, result.arms, best, references))
    return found


def _best_arm(arms: Sequence[comparison_results.Arm], name: str, better: str) -> float | None:
    means = [arm.figures[name].mean for arm in arms if name in arm.figures]
    return {"higher": max, "lower": min}[better](means, default=None) if better else None


class Accuracy(NamedTuple):
    """Of the linear probe, or an error rate, with its spread, and that of neighbours."""

    mean: float
    spread: float | None = None
    neighbours: float | None = None


class Head(NamedTuple):
    """What is predicted, and on what."""

    label: str
    test: str
    num_examples: int
    num_unseen: int = 0  # of them of classes that were not learnt
    is_error: bool = False  # of transcripts: the less the better
    num_classes: int = 0  # that were learnt
    chance: float | None = None  # None in files of before


@dataclasses.dataclass(frozen=True)
class Probes:
    """A table of accuracies; rows that are the same of all runs are nobody's."""

    title: str  # of an ablation; "" for a run's own probes
    heads: Sequence[Head]  # of the columns
    said: str  # how it was measured
    rows: Sequence[tuple[str, str, str, Sequence[Accuracy | None]]]  # name, owner, colour, cells
    best: Sequence[float]  # of each column
    latents: Mapping[str, Sequence[Accuracy | None]]  # by pooling; learnt features are compared
    arms: Mapping[str, Sequence[str]]  # of an ablation, name -> what it changes

    def gain_over(self, row: str, column: int) -> Accuracy | None:
        """The raw latents, pooled alike, with which a row is compared; None where it is not."""
        latents = self.latents.get(probe_results.split_row(row)[1])
        return latents[column] if latents and not is_reference(row) else None


def is_reference(row: str) -> bool:
    """Whether a row of probes does not depend on what was trained."""
    return probe_results.split_row(row)[0] in _REFERENCES


def probes(
    runs: Sequence[history.RunHistory],
    colors: Mapping[str, str],
    named: Mapping[str, probe_results.Probe],
) -> list[Probes]:
    """Every table; probes of several runs that were measured alike share one.

    Args:
        runs: with the results in their folders.
        colors: of the runs.
        named: name -> results that are in no run's folder.
    """
    groups: dict[tuple, list[tuple]] = {}
    found = [
        (run.name, file, one) for run in runs for file, one in run.of(probe_results.Probe).items()
    ]
    for owner, file, result in [*found, *(("", name, one) for name, one in named.items())]:
        name, measured = f"{owner} {file}".strip(), columns(result)
        title = f"Ablation: {name}" if isinstance(result, probe_results.Ablation) else ""
        key = (title, tuple(head for head, _ in measured), _said(result))
        groups.setdefault(key, []).append((owner or name, colors.get(owner, ""), measured, result))
    tables = [_probes(*key, members) for key, members in groups.items()]
    return sorted(tables, key=lambda table: bool(table.title))  # ablations last


def columns(result: probe_results.Probe) -> list[tuple[Head, dict[str, Accuracy]]]:
    """Every column: its head, and row -> accuracy."""
    found = []
    names = [name for label in result.labels.values() for name in label.tests]
    for label, of_label in result.labels.items():
        for name, test in of_label.tests.items():
            head = Head(
                label,
                _short(name, names),
                test.num_examples,
                test.num_unseen,
                num_classes=len(of_label.classes),
                chance=test.chance,
            )
            rows = {probe_results.COMMONEST: Accuracy(test.majority)}
            shuffled = [one.shuffled for one in (test.features or {}).values() if one.shuffled]
            shuffled += [one.shuffled for one in test.rows or () if one.shuffled]
            if shuffled:
                mean = sum(one.mean for one in shuffled) / len(shuffled)
                rows[probe_results.SHUFFLED] = Accuracy(mean, max(one.std for one in shuffled))
            for row, one in (test.features or {}).items():
                linear = one.linear
                rows[row] = Accuracy(linear.mean, linear.std, one.neighbours)
            for one in test.rows or ():
                linear, neighbours = one.linear, one.neighbours and one.neighbours.mean
                rows[one.name] = Accuracy(linear.mean, linear.std, neighbours)
            found.append((head, rows))
    pooled: dict[str, list[str]] = {}
    for row in dict.fromkeys(row for _, rows in found for row in rows):
        pooled.setdefault(probe_results.split_row(row)[0], []).append(row)
    for name, of_set in (getattr(result, "transcripts", None) or {}).items():
        for kind in ("characters", "words"):
            head = Head(f"wrong {kind}", name, of_set.num_examples, is_error=True)
            rates = {row.name: getattr(row, kind) for row in of_set.rows}
            # An arm transcribes alike however its features were pooled.
            rows = {
                row: Accuracy(rate.mean, rate.std)
                for arm, rate in rates.items()
                for row in pooled.get(arm, [arm])
            }
            found.append((head, rows))
    return found


def _said(result: probe_results.Probe) -> str:
    """How probes were measured."""
    seeds = f"{result.num_seeds} seeds of the linear probe"
    facts = [f"Frames are pooled over time by {result.pooling.replace(',', ', ')}."]
    recipe = result.recipe or {}
    if recipe.get("name") == "logistic":
        seeds = f"{result.num_seeds} orders of shuffled labels"
        chosen = {one.alike for one in result.labels.values() if one.alike}
        facts.append(
            "The linear probe is logistic regression taken to its end, its L2 strength chosen on "
            f"other groups of what is learnt ({', '.join(sorted(chosen))})."
        )
    elif "num_epochs" in recipe:
        facts.append(f"The linear probe is X-ARES's, of {recipe['num_epochs']} epochs.")
    if result.leave_out:
        seeds = f"each {result.leave_out} left out of what is learnt"
    if isinstance(result, probe_results.Ablation):
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


def _probes(title: str, heads: Sequence[Head], said: str, members: Sequence[tuple]) -> Probes:
    rows: list[tuple] = []
    cells = [accuracies for _, _, measured, _ in members for _, accuracies in measured]
    for name in dict.fromkeys(name for accuracies in cells for name in accuracies):
        having = [
            (name, owner, color, tuple(accuracies.get(name) for _, accuracies in measured))
            for owner, color, measured, _ in members
            if any(name in accuracies for _, accuracies in measured)
        ]
        is_same = is_reference(name) and len({row[-1] for row in having}) == 1
        if len(members) == 1 or is_same:
            having = [(name, "", "", having[0][-1])]
        rows += having
    best = []
    for head, column in zip(heads, zip(*(row[-1] for row in rows))):
        means = [one.mean for one in column if one]
        best.append((min if head.is_error else max)(means, default=None))
    pooled = ((*probe_results.split_row(row[0]), row[-1]) for row in rows)
    latents = {pooling: row for name, pooling, row in pooled if name == "latents"}
    arms = getattr(members[0][-1], "arms", {})
    return Probes(title, heads, said, rows, best, latents, arms)
