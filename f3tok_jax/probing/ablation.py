# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Arms of an experiment, trained and probed alike."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import os
import pathlib
import types
from typing import Any

import numpy as np

from f3tok_jax.inference import tokenizer as tokenizer_lib
from f3tok_jax.probing import arms as arms_lib
from f3tok_jax.probing import features
from f3tok_jax.probing import measurement
from f3tok_jax.probing import probes
from f3tok_jax.runs import lineage
from f3tok_jax.runs import places
from f3tok_jax.runs import probe_results
from f3tok_jax.runs import results as results_lib
from f3tok_jax.sweeping import finishing
from f3tok_jax.sweeping import plan as plan_lib
from f3tok_jax.sweeping import space

_FULL = space.Arm("full")
_TASK = "transcription"  # what is asked of an arm's language model


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
    measured: probe_results.ProbedLabel, runs: Sequence[plan_lib.Run]
) -> probe_results.ProbedLabel:
    """What `measurement.measure` found, with the runs of an arm in one row.

    Args:
        measured: of one label; features are named by runs.
        runs: of all arms.

    Returns:
        The same with rows in place of features.
    """
    names = {name: name for name in (features.LOG_MEL, features.MFCC, features.LATENTS)}
    names |= {run.name: run.arm.name for run in runs}
    tests = {name: _by_arms(test, names) for name, test in measured.tests.items()}
    return dataclasses.replace(measured, tests=tests)


def _by_arms(test: probe_results.Tested, names: Mapping[str, str]) -> probe_results.Tested:
    """With the features that have one name in one row per pooling, spread over runs and seeds."""
    groups = test.groups and {name: _by_arms(one, names) for name, one in test.groups.items()}
    found: dict[str, list[probe_results.FeatureAccuracy]] = {}
    for row, one in test.features.items():
        name, pooling = probe_results.split_row(row)
        found.setdefault(probe_results.feature_row(names[name], pooling), []).append(one)
    order = list(dict.fromkeys(names.values()))  # what needs no training first
    ordered = sorted(
        found.items(), key=lambda entry: order.index(probe_results.split_row(entry[0])[0])
    )
    rows = [
        probe_results.ArmAccuracy(
            name=row,
            title=probe_results.title_of(row),
            linear=_over_runs(row, [one.linear for one in of_row], groups),
            neighbours=_spread_of_all([one.neighbours for one in of_row]),
            shuffled=_spread_of_all([one.shuffled and one.shuffled.values for one in of_row]),
        )
        for row, of_row in ordered
    ]
    return dataclasses.replace(test, features=None, rows=rows, groups=groups)


def _over_runs(
    row: str,
    spreads: Sequence[probe_results.Spread],
    groups: Mapping[str, probe_results.Tested] | None,
) -> probe_results.Spread:
    """Of an arm's runs: over all their seeds, or over the groups that were left out."""
    made = measurement.spread([one.values for one in spreads])
    if not groups:
        return made
    means = [
        one.linear.mean for of_group in groups.values() for one in of_group.rows if one.name == row
    ]
    return dataclasses.replace(made, std=measurement.spread(means).std)


def _spread_of_all(values: Sequence[Any]) -> probe_results.Spread | None:
    """Over runs; None where one has nothing."""
    return (
        None
        if None in values
        else measurement.spread([np.atleast_1d(one).tolist() for one in values])
    )


def transcribe(
    runs: Sequence[plan_lib.Run],
    shards: Mapping[str, str],
    measure: Callable[[str, str], results_lib.Transcripts],
) -> dict[str, probe_results.TranscribedSet]:
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
            probe_results.ArmErrors(
                name=name,
                title=name,
                characters=measurement.spread([one.characters for one in found]),
                words=measurement.spread([one.words for one in found]),
            )
            for name, found in arms.items()
        ]
        results[set_name] = probe_results.TranscribedSet(num_examples=most, rows=rows)
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
) -> probe_results.Ablation:
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
        finishing.TrainingStopped: if a run ended before its last step.
        checkpoint.CheckpointError: where a run has no whole checkpoint.
    """
    if speech and not any(map(_transcribes, runs)):
        raise ValueError("--transcribe needs an arm that is trained to transcribe, got none")
    sound = lineage.Lineage(config=runs[0].config, places=places.Places(moved or {})).sound
    probes.check(shards, test_shards, sample_rate=sound.sample_rate, options=options)
    finishing.finish(runs, os.path.dirname(runs[0].workdir), say=say)
    models = load_models(runs, moved=moved, say=say)
    learnt, tested = probes.read_examples(shards, test_shards, models, options=options, say=say)
    measured = options.measure(learnt, tested)
    results = probe_results.Ablation(
        autoencoder=models.tokenizer.fingerprint,
        num_steps=runs[0].config.num_steps,
        seeds=sorted({run.seed for run in runs}),
        arms={run.arm.name: run.arm.changes for run in runs},
        shards=shards,
        test_shards=dict(test_shards),
        **options.as_results(),
        labels={label: summarize(found, runs) for label, found in measured.items()},
        transcripts=transcribe(runs, speech, measure_transcripts),
    )
    results_lib.write(output, results)
    return results
