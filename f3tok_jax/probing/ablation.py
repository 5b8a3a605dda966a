# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Arms of an experiment, trained and probed alike."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import os
import pathlib
import types

from data_pipelines.reading import mixture
from data_pipelines.reading import sources
from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.probing import arms as arms_lib
from f3tok_jax.probing import features
from f3tok_jax.probing import probes
from f3tok_jax.runs import lineage
from f3tok_jax.runs import places
from f3tok_jax.runs import results as results_lib
from f3tok_jax.sweeping import driver as driver_lib
from f3tok_jax.sweeping import job
from f3tok_jax.sweeping import places as places_lib
from f3tok_jax.sweeping import plan as plan_lib
from f3tok_jax.sweeping import space

_FULL = space.Arm("full")
_TASK = "transcription"  # what is asked of an arm's language model


class TrainingStopped(Exception):
    """A run ended before its last step; `code` is train's."""

    def __init__(self, workdir: str, record: job.Record):
        super().__init__(
            f"training in {workdir} ended with exit code {record.code} ({record.words}): mend that, "
            "then run the same command again"
        )
        self.code = record.code


def plan(
    recipe: str,
    overrides: Sequence[str],
    *,
    arms: Sequence[space.Arm],
    seeds: Sequence[int],
    workdir: str,
    moved: Mapping[str, str] = types.MappingProxyType({}),
) -> list[plan_lib.Run]:
    """The runs of an ablation, all checked before the first starts; see `sweeping.plan.runs`.

    Raises:
        ValueError: as there, for a recipe of another stage, and for a full arm that is not.
    """
    config = arms_lib.read_config(recipe, overrides)
    if _FULL in arms and not (config.rq.weight and config.supervision.weight):
        raise ValueError(
            f"the full arm must have both losses, got config.rq.weight={config.rq.weight} and "
            f"config.supervision.weight={config.supervision.weight}"
        )
    options = dict(arms=arms, seeds=seeds, workdir=workdir, moved=moved)
    return plan_lib.runs(recipe, overrides, **options)


def train(runs: Sequence[plan_lib.Run], workdir: str, *, say: Callable[[str], None]) -> None:
    """Trains runs to their ends, those that are there already left out, one after the other.

    Raises:
        TrainingStopped: if one ended otherwise.
        ValueError: where something else trains in `workdir`.
    """
    with driver_lib.alone(workdir):
        ended = driver_lib.Driver(places_lib.Place(kind="local"), say=say).train(runs)
    for run in runs:
        if run.name in ended and ended[run.name].state != job.DONE:
            raise TrainingStopped(run.workdir, ended[run.name])
    if len(ended) < len(runs):
        raise TrainingStopped(workdir, job.Record(state=job.STOPPED, code=job.LEFT[0]))


def load_models(
    runs: Sequence[plan_lib.Run],
    *,
    moved: Mapping[str, str] | None = None,
    say: Callable[[str], None] = print,
) -> features.Models:
    """The autoencoder that all runs share, and the encoder of each by the run's name."""
    open_run = functools.partial(tokenizer_lib.F3Tokenizer.from_pretrained, moved=moved, say=say)
    tokenizers = {run.name: open_run(run.workdir) for run in runs}
    first, *_ = tokenizers.values()
    for name, tokenizer in tokenizers.items():
        if tokenizer.fingerprint != first.fingerprint:
            raise ValueError(
                f"all runs must be of one autoencoder, got {tokenizer.fingerprint} in "
                f"{tokenizer.run.workdir} and {first.fingerprint} in {first.run.workdir}: train "
                "into another --workdir"
            )
    encoders = {name: one.representer.represent for name, one in tokenizers.items()}
    return features.Models(first, encoders)


def summarize(
    measured: results_lib.ProbedLabel, runs: Sequence[plan_lib.Run]
) -> results_lib.ProbedLabel:
    """What `probes.measure` found, with the runs of an arm in one row.

    Args:
        measured: of one label; features are named by runs.
        runs: of all arms.

    Returns:
        The same with rows in place of features.
    """
    sources_of = {name: [name] for name in (features.LOG_MEL, features.LATENTS)}
    for run in runs:
        sources_of.setdefault(run.arm.name, []).append(run.name)
    tests = {}
    for test_name, test in measured.tests.items():
        rows = []
        for name, candidates in sources_of.items():
            found = [test.features[one] for one in candidates if one in test.features]
            if found:
                row = results_lib.ArmAccuracy(
                    name=name,
                    title=results_lib.TITLES.get(name, name),
                    linear=probes.spread([one.linear.values for one in found]),
                    neighbours=probes.spread([[one.neighbours] for one in found]),
                )
                rows.append(row)
        tests[test_name] = dataclasses.replace(test, features=None, rows=rows)
    return dataclasses.replace(measured, tests=tests)


def transcribe(
    runs: Sequence[plan_lib.Run],
    shards: Mapping[str, str],
    measure: Callable[[str, str], results_lib.Transcripts],
) -> dict[str, results_lib.TranscribedSet]:
    """Error rates of the arms that have a language model and were trained to transcribe.

    Args:
        runs: of all arms, trained.
        shards: name -> set of speech with its texts.
        measure: folders of a run and of a set -> rates; see evaluation.transcription.
    """
    results = {}
    for set_name, folder in shards.items():
        arms: dict[str, list[results_lib.Transcripts]] = {}
        for run in runs:
            if _transcribes(run):
                arms.setdefault(run.arm.name, []).append(measure(run.workdir, folder))
        most = max((one.num_examples for found in arms.values() for one in found), default=0)
        rows = [
            results_lib.ArmErrors(
                name=name,
                title=name,
                characters=probes.spread([one.characters for one in found]),
                words=probes.spread([one.words for one in found]),
            )
            for name, found in arms.items()
        ]
        results[set_name] = results_lib.TranscribedSet(num_examples=most, rows=rows)
    return results


def _transcribes(run: plan_lib.Run) -> bool:
    section = run.config.supervision
    return bool(section.weight and section.tasks[_TASK])


def ablate(
    runs: Sequence[plan_lib.Run],
    shards: str,
    test_shards: Mapping[str, str],
    output: pathlib.Path,
    *,
    options: probes.Options,
    measure_transcripts: Callable[[str, str], results_lib.Transcripts],
    speech: Mapping[str, str] = types.MappingProxyType({}),
    moved: Mapping[str, str] | None = None,
    say: Callable[[str], None] = print,
) -> results_lib.Ablation:
    """Trains what is not trained yet, probes every run, writes `output`.

    Args:
        runs: see `plan`.
        shards: sets that probes learn from, with commas between.
        test_shards: name -> set that they are tested on.
        output: JSON file to write.
        options: of the probes.
        measure_transcripts: see `transcribe`.
        speech: name -> set whose sentences are transcribed.
        moved: where what the runs name lies now; see F3Tokenizer.from_pretrained.
        say: where messages go.

    Returns:
        What was written.

    Raises:
        ValueError: if runs, data and labels do not fit together.
        TrainingStopped: if a run ended before its last step.
        checkpoint.CheckpointError: where a run has no whole checkpoint.
    """
    if speech and not any(map(_transcribes, runs)):
        raise ValueError("--transcribe needs an arm that is trained to transcribe, got none")
    sound = lineage.Lineage(config=runs[0].config, places=places.Places(moved or {})).sound
    for folders in (mixture.folders(shards), *([folder] for folder in test_shards.values())):
        _check_labels(folders, options.labels, sound.sample_rate)
    train(runs, os.path.dirname(runs[0].workdir), say=say)
    models = load_models(runs, moved=moved, say=say)
    learnt, tested = probes.read_examples(shards, test_shards, models, options=options, say=say)
    measure = functools.partial(
        probes.measure, seeds=range(options.num_seeds), training=options.training
    )
    results = results_lib.Ablation(
        autoencoder=models.tokenizer.fingerprint,
        num_steps=runs[0].config.num_steps,
        seeds=sorted({run.seed for run in runs}),
        arms={run.arm.name: run.arm.changes for run in runs},
        shards=shards,
        test_shards=dict(test_shards),
        **options.as_results(),
        labels={label: summarize(measure(learnt, tested, label), runs) for label in options.labels},
        transcripts=transcribe(runs, speech, measure_transcripts),
    )
    results_lib.write(output, results)
    return results


def _check_labels(folders: Sequence[str], labels: Sequence[str], sample_rate: int) -> None:
    """Refuses sets without one of the labels, before hours of training rather than after."""
    missing = set(labels)
    for folder in folders:
        source = sources.open_source(folder, sample_rate=sample_rate)
        for index in range(len(source)):
            if not missing:
                break
            missing -= set(source[index].labels)
    if missing:
        raise ValueError(
            f"--label must name labels of the records of {', '.join(folders)}, got "
            f"{min(missing)!r}, which none of them has"
        )


def format_table(results: results_lib.Ablation) -> str:
    """The accuracies as text: a line per label, test set and kind of probe, a column per row."""
    parts = [
        (label, f"{test.num_examples} of {name}", kind, test.rows)
        for label, found in results.labels.items()
        for name, test in found.tests.items()
        for kind in ("linear", "neighbours")
    ] + [
        ("errors", f"{found.num_examples} of {name}", kind, found.rows)
        for name, found in results.transcripts.items()
        for kind in ("characters", "words")
    ]
    titles = list(dict.fromkeys(row.title for *_, rows in parts for row in rows))
    widths = [max(13, len(title)) for title in titles]
    head = f"{'label':10} {'tested on':22} {'probe':10}"
    lines = [head + "".join(f"  {t:>{width}}" for t, width in zip(titles, widths))]
    for label, where, kind, rows in parts:
        spreads = {row.title: getattr(row, kind) for row in rows}
        cells = {title: f"{one.mean:.3f} ± {one.std:.3f}" for title, one in spreads.items()}
        line = f"{label:10} {where:22} {kind:10}"
        line += "".join(f"  {cells.get(t, ''):>{width}}" for t, width in zip(titles, widths))
        lines.append(line)
    lines.append(
        f"mean ± standard deviation over {len(results.seeds)} seeds of the training and "
        f"{results.num_seeds} of the linear probe"
    )
    return "\n".join(lines)
