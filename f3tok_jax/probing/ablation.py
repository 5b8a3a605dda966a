# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Arms of an experiment, trained and probed alike."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import pathlib
import types
from typing import Any

import ml_collections
import numpy as np

from data_pipelines.reading import sources
from f3tok_jax.pretrained import representation as pretrained_representation
from f3tok_jax.probing import ablation_runs
from f3tok_jax.probing import classifiers
from f3tok_jax.probing import features
from f3tok_jax.probing import probes
from f3tok_jax.runs import lineage
from f3tok_jax.runs import results
from f3tok_jax.runs import results_file

_TASK = "transcription"  # what is asked of an arm's language model

FORMAT = results.Ablation.FORMAT


def load_models(
    runs: Sequence[ablation_runs.Training],
    *,
    batch_size: int = 32,
    say: Callable[[str], None] = print,
) -> features.Models:
    """The autoencoder that all runs share, and the encoder of each by the run's name."""
    models = probes.load_models(runs[0].workdir, batch_size=batch_size, say=say)
    encoders = {}
    for run in runs:
        read = lineage.Lineage.read(run.workdir, stage="representation")
        encoders[run.name] = pretrained_representation.load_encoder(read, say=say)
        found = read.trained_on.get("autoencoder")
        if found != models.autoencoder[2]:
            raise ValueError(
                f"all runs must be of one autoencoder, got {found} in {run.workdir} and "
                f"{models.autoencoder[2]} in {runs[0].workdir}: train into another --workdir"
            )
    return dataclasses.replace(models, encoders=encoders)


def summarize(
    measured: Mapping[str, Any], runs: Sequence[ablation_runs.Training]
) -> dict[str, Any]:
    """What `probe.measure` found, with the runs of an arm in one row.

    Args:
        measured: of one label; features are named by runs.
        runs: of all arms.

    Returns:
        The same with "rows" in place of "features": "name", "title", and "linear" and
        "neighbours", each with "mean" and "std" over all its "values", a list per run.
    """
    sources_of = {name: [name] for name in (features.LOG_MEL, features.LATENTS)}
    for run in runs:
        sources_of.setdefault(run.arm.name, []).append(run.name)
    tests = {}
    for test_name, test in measured["tests"].items():
        found, rows = test["features"], []
        for name, candidates in sources_of.items():
            measured_here = [feature for feature in candidates if feature in found]
            if measured_here:
                row = {"name": name, "title": results.TITLES.get(name, name)}
                row["linear"] = _spread([found[f]["linear"]["values"] for f in measured_here])
                row["neighbours"] = _spread([[found[f]["neighbours"]] for f in measured_here])
                rows.append(row)
        kept = {key: value for key, value in test.items() if key != "features"}
        tests[test_name] = kept | {"rows": rows}
    return {**measured, "tests": tests}


def transcribe(
    runs: Sequence[ablation_runs.Training],
    shards: Mapping[str, str],
    *,
    measure: Callable[..., Mapping[str, Any]],
    num_examples: int,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Error rates of the arms that have a language model and were trained to transcribe.

    Args:
        runs: of all arms, trained.
        shards: name -> set of speech with its texts.
        measure: of evaluation.transcription.
        num_examples: of each set at most.
        say: where progress goes.

    Returns:
        Name of a set -> "num_examples" and "rows": "name", "characters" and "words", each with
        "mean" and "std" over its "values", one per run.
    """
    results = {}
    for set_name, folder in shards.items():
        rows: dict[str, list] = {}
        for run in runs:
            section = run.config.supervision
            if section.weight and section.tasks[_TASK]:
                found = measure(run.workdir, folder, num_examples=num_examples, say=say)
                rows.setdefault(run.arm.name, []).append(found)
        results[set_name] = {
            "num_examples": max(
                (one["num_examples"] for f in rows.values() for one in f), default=0
            ),
            "rows": [
                {"name": name, "title": name}
                | {kind: _spread([one[kind] for one in found]) for kind in ("characters", "words")}
                for name, found in rows.items()
            ],
        }
    return results


def _spread(values: Sequence) -> dict[str, Any]:
    return {"mean": float(np.mean(values)), "std": float(np.std(values)), "values": values}


def ablate(
    runs: Sequence[ablation_runs.Training],
    shards: str,
    test_shards: Mapping[str, str],
    output: pathlib.Path,
    *,
    measure_transcripts: Callable[..., Mapping[str, Any]],
    labels: Sequence[str],
    exclude: Sequence[probes.Filter] = (),
    only: Sequence[probes.Filter] = (),
    num_seeds: int = 5,
    pooling: str = "mean",
    recipe: classifiers.Recipe = classifiers.Recipe(),
    batch_size: int = 32,
    speech: Mapping[str, str] = types.MappingProxyType({}),
    num_transcripts: int = 50,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Trains what is not trained yet, probes every run, writes `output`.

    Args:
        runs: see `ablation_runs.plan`.
        shards: sets that probes learn from, with commas between.
        test_shards: name -> set that they are tested on.
        output: JSON file to write.
        measure_transcripts: of evaluation.transcription.
        labels: names of what to predict.
        exclude, only, num_seeds, pooling, recipe, batch_size: of the probes, see `probe.probe`.
        speech: name -> set whose sentences are transcribed.
        num_transcripts: of each of these sets at most.
        say: where messages go.

    Returns:
        What was written.

    Raises:
        ValueError: if runs, data and labels do not fit together.
        TrainingStopped: if a run ended before its last step.
        checkpoint.CheckpointError: where a run has no whole checkpoint.
    """
    if num_seeds < 1 or batch_size < 1 or not labels:
        raise ValueError(
            f"--label must name a label, --num_seeds and --batch_size be at least 1, got "
            f"{','.join(labels)!r}, {num_seeds} and {batch_size}"
        )
    for folders in (shards.split(","), *([folder] for folder in test_shards.values())):
        _check_labels(folders, labels, runs[0].config)
    for run in runs:
        ablation_runs.train(run, say=say)
    models = load_models(runs, batch_size=batch_size, say=say)
    learnt, tested = probes.read_examples(
        shards, test_shards, models, exclude=exclude, only=only, pooling=pooling, say=say
    )
    measure = functools.partial(probes.measure, seeds=range(num_seeds), recipe=recipe)
    results = {
        "format": FORMAT,
        "autoencoder": models.autoencoder[2],
        "num_steps": runs[0].config.num_steps,
        "seeds": sorted({run.seed for run in runs}),
        "arms": {run.arm.name: list(run.arm.changes) for run in runs},
        "shards": shards,
        "test_shards": dict(test_shards),
        "exclude": ["=".join(pair) for pair in exclude],
        "only": ["=".join(pair) for pair in only],
        "pooling": pooling,
        "num_seeds": num_seeds,
        "recipe": vars(recipe),
        "labels": {label: summarize(measure(learnt, tested, label), runs) for label in labels},
        "transcripts": transcribe(
            runs, speech, measure=measure_transcripts, num_examples=num_transcripts, say=say
        ),
    }
    results_file.write(output, results)
    return results


def _check_labels(
    folders: Sequence[str], labels: Sequence[str], config: ml_collections.ConfigDict
) -> None:
    """Refuses sets without one of the labels, before hours of training rather than after."""
    rate = lineage.Lineage(config=config).sound.sample_rate
    missing = set(labels)
    for folder in folders:
        source = sources.open_source(folder, sample_rate=rate)
        for index in range(len(source)):
            if not missing:
                break
            missing -= set(source[index].labels)
    if missing:
        raise ValueError(
            f"--label must name labels of the records of {', '.join(folders)}, got "
            f"{min(missing)!r}, which none of them has"
        )


def format_table(results: Mapping[str, Any]) -> str:
    """The accuracies as text: a line per label, test set and kind of probe, a column per row."""
    parts = [
        (label, f"{test['num_examples']} of {name}", kind, test["rows"])
        for label, found in results["labels"].items()
        for name, test in found["tests"].items()
        for kind in ("linear", "neighbours")
    ] + [
        ("errors", f"{found['num_examples']} of {name}", kind, found["rows"])
        for name, found in results["transcripts"].items()
        for kind in ("characters", "words")
    ]
    titles = list(dict.fromkeys(row["title"] for *_, rows in parts for row in rows))
    widths = [max(13, len(title)) for title in titles]
    head = f"{'label':10} {'tested on':22} {'probe':10}"
    lines = [head + "".join(f"  {t:>{width}}" for t, width in zip(titles, widths))]
    for label, where, kind, rows in parts:
        cells = {row["title"]: f"{row[kind]['mean']:.3f} ± {row[kind]['std']:.3f}" for row in rows}
        line = f"{label:10} {where:22} {kind:10}"
        line += "".join(f"  {cells.get(t, ''):>{width}}" for t, width in zip(titles, widths))
        lines.append(line)
    lines.append(
        f"mean ± standard deviation over {len(results['seeds'])} seeds of the training and "
        f"{results['num_seeds']} of the linear probe"
    )
    return "\n".join(lines)
