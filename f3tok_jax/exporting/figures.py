# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What was measured of a run, as tables in Markdown: results beside it, its last evaluation."""

from collections.abc import Iterator, Sequence

from f3tok_jax.exporting import markdown
from f3tok_jax.exporting import training_facts
from f3tok_jax.runs import comparison_results
from f3tok_jax.runs import history as history_lib
from f3tok_jax.runs import probe_results
from f3tok_jax.runs import results as results_lib


def of(chain: Sequence[training_facts.Facts]) -> Iterator[str]:
    """Tables of what was measured, each with what it was measured on."""
    is_any, steps = False, {facts.run.stage: facts.run.step for facts in chain}
    for facts in chain:
        if facts.history is None:
            continue
        for name, result in facts.history.results.items():
            if table := made(result):
                # A later run may have been asked for figures of an earlier stage.
                stage = _STAGES.get(type(result), facts.run.stage)
                head = f"{markdown.text(name)} of the {stage}"
                step = getattr(result, "step", None)
                exported = steps.get(stage, step)
                if step not in (None, exported):
                    head += f", of step {step} and not of the exported {exported}"
                is_any = True
                yield f"{head}; {table}"
        if last := _last_evaluation(facts.history, facts.run.step):
            is_any = True
            yield (
                f"The {facts.run.stage} while it was trained, its last evaluation on held-out "
                f"sound:\n\n{last}"
            )
    if not is_any:
        yield "None were measured beside the run: how good it is, is unknown."


def made(result: results_lib.Result) -> str | None:
    """The table of a result, with what it was measured on; None for a kind that has none."""
    make = _RESULTS.get(type(result))
    return make(result) if make else None


def _reconstruction(result: results_lib.Reconstruction) -> str:
    # ViSQOL, for one, may be asked of no example at all.
    heard = {key for row in result.rows for key, one in row.metrics.items() if one.mean is not None}
    metrics = {key: one for key, one in result.metrics.items() if key in heard}
    rows = []
    for row in result.rows:
        scores = (row.metrics.get(key) for key in metrics)
        rows.append([markdown.text(row.title), *map(_score, scores)])
    head, silence = ["", *(_head(one) for one in metrics.values())], ""
    if result.silence_db is not None:
        silence = f"; silence comes out at {result.silence_db:.0f} dBFS"
    return (
        f"{result.num_examples} held-out sounds, {markdown.duration(result.seconds)}, of the set "
        f"{markdown.code(result.shards.fingerprint[:16])}{silence}:\n\n{markdown.table(head, rows)}"
        f"{_judged(result.judged)}"
    )


def _judged(judged: results_lib.Judged | None) -> str:
    """What published judges say, a table each; "" where none judged."""
    tables = []
    for name, source in judged.judges.items() if judged else ():
        figures = [figure for figure in judged.metrics if figure.startswith(f"{name}/")]
        head = ["", *(_head(judged.metrics[figure]) for figure in figures)]
        rows = [
            [markdown.text(row.title), *(_score(row.metrics.get(figure)) for figure in figures)]
            for row in judged.rows
        ]
        said = f"{source.package} {source.version}, {judged.num_examples} of these sounds"
        tables.append(f"\n\nJudged by {markdown.text(said)}:\n\n{markdown.table(head, rows)}")
    return "".join(tables)


def _head(metric: results_lib.Metric) -> str:
    return _titled(metric.title, metric.unit, "higher" if metric.higher_is_better else "lower")


def _titled(title: str, unit: str, better: str) -> str:
    said = f", {markdown.text(unit)}" if unit else ""
    return f"{markdown.text(title)}{said}{f' ({better} is better)' if better else ''}"


def _score(score: results_lib.Score | None) -> str:
    if score is None or score.mean is None:
        return "unknown"
    error = f" ± {score.standard_error:.2g}" if score.standard_error is not None else ""
    return f"{score.mean:.3g}{error}"


def _generation(result: results_lib.Generation) -> str:
    columns = {
        "classifier_accuracy": "heard right by a classifier",
        "character_error_rate": "character error rate",
        "never_stopped": "never stopped",
        "duration_error": "error of the length, s",
        "frechet_distance": "Fréchet distance",
        "speaker_similarity": "similarity of the voice",
        "text_sensitivity": "another text over another noise",
    }
    shown = {
        name: title
        for name, title in columns.items()
        if any(getattr(row, name) is not None for row in result.rows)
    }
    rows = [
        [markdown.text(row.title), *(_number(getattr(row, name)) for name in shown)]
        for row in result.rows
    ]
    table = markdown.table(["", *shown.values()], rows)
    return f"{result.num_examples} held-out texts:\n\n{table}{_judged(result.judged)}"


def _probe(result: probe_results.Probe) -> str:
    rows = [
        [
            markdown.text(label),
            f"{tested.num_examples} of {markdown.place(test)}",
            markdown.text(title),
            _spread(accuracy.linear),
            _spread(accuracy.neighbours),
            _spread(accuracy.shuffled),
            _number(tested.chance),
        ]
        for label, probed in result.labels.items()
        for test, tested in probed.tests.items()
        for title, accuracy in _accuracies(tested)
    ]
    head = ["label", "tested on", "features", "linear probe", "nearest neighbours"]
    head += ["labels shuffled", "chance"]
    said = f"share that is found right{_over(result)}"
    return f"{said}:\n\n{markdown.table(head, rows)}" if rows else ""


def _accuracies(
    tested: probe_results.Tested,
) -> Iterator[tuple[str, probe_results.FeatureAccuracy | probe_results.ArmAccuracy]]:
    """Title of each kind of feature, and what is known of it."""
    for row, accuracy in (tested.features or {}).items():
        yield probe_results.title_of(row), accuracy
    for accuracy in tested.rows or ():
        yield accuracy.title, accuracy


def _over(result: probe_results.Probe) -> str:
    """Over what standard deviations are."""
    if result.leave_out:
        return (
            f", ± standard deviation over each {markdown.text(result.leave_out)} that was left out"
        )
    if isinstance(result, probe_results.Ablation):
        return f", ± standard deviation over {len(result.seeds)} seeds of the training"
    return f", ± standard deviation over {result.num_seeds} seeds"


def _ablation(result: probe_results.Ablation) -> str:
    """What `_probe` says, and error rates of what was trained to transcribe."""
    parts = [_probe(result)]
    for name, found in (result.transcripts or {}).items():
        head = [f"{found.num_examples} sentences of {markdown.place(name)}"]
        head += ["character error rate", "word error rate"]
        rows = [
            [markdown.text(row.title), _spread(row.characters), _spread(row.words)]
            for row in found.rows
        ]
        parts.append(markdown.table(head, rows))
    arms = [f"{markdown.text(name)}: {_changed(changes)}" for name, changes in result.arms.items()]
    said = f"{result.num_steps} steps with {len(result.seeds)} seeds each, of:"
    return "\n\n".join([said, markdown.items(arms), *filter(None, parts)])


def _transcripts(result: results_lib.Transcripts) -> str:
    rates = [f"{result.characters:.3f}", f"{result.words:.3f}"]
    head = ["character error rate", "word error rate"]
    return f"{result.num_examples} held-out sentences:\n\n{markdown.table(head, [rates])}"


def _comparison(result: comparison_results.Comparison) -> str:
    """A table of each group of measures: a line for each, a column for each arm."""
    stages = [
        f"{markdown.text(stage)}, {markdown.code(recipe)}: "
        + _changed(result.changes[stage], f"{result.num_steps[stage]} steps")
        for stage, recipe in result.recipes.items()
    ]
    said = (
        f"{len(result.seeds)} seeds, ± standard deviation over them; held-out sound of the set "
        f"{markdown.code(result.heldout[:16])}, at most {result.num_examples} examples. Every arm has:"
    )
    parts = [said, markdown.items(stages), "The arms:", markdown.items(map(_arm, result.arms))]
    for group, measures in result.groups.items():
        references = result.references_of(measures)
        rows = [
            [
                _titled(measure.title, measure.unit, measure.better),
                *(_spread(arm.figures.get(name)) for arm in result.arms),
                *(_number(figures.get(name)) for figures in references.values()),
            ]
            for name, measure in measures.items()
        ]
        head = [group, *(arm.name for arm in result.arms), *references]
        parts.append(markdown.table([*map(markdown.text, head)], rows))
    return "\n\n".join(parts)


def _arm(arm: comparison_results.Arm) -> str:
    recipe = markdown.code(arm.recipe) if arm.recipe else ""
    said = f"{markdown.text(arm.name)}: {_changed(arm.changes, recipe)}"
    if arm.semantic_encoder:
        said += f"; it hears through {markdown.text(arm.semantic_encoder)}"
    return said


def _changed(changes: Sequence[str], first: str = "") -> str:
    """What differs from a recipe."""
    return ", ".join(filter(None, [first, *map(markdown.code, changes)])) or "the recipe"


_STAGES = {
    results_lib.Reconstruction: "autoencoder",
    results_lib.Transcripts: "representation",
    results_lib.Generation: "generation",
}
_RESULTS = {
    results_lib.Reconstruction: _reconstruction,
    results_lib.Generation: _generation,
    results_lib.Transcripts: _transcripts,
    probe_results.Probe: _probe,
    probe_results.Ablation: _ablation,
    comparison_results.Comparison: _comparison,
}


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def _spread(value: probe_results.Spread | float | None) -> str:
    if not isinstance(value, probe_results.Spread):
        return _number(value)
    return f"{value.mean:.3g} ± {value.std:.2g}"


def _last_evaluation(history: history_lib.RunHistory, step: int) -> str:
    """The last values of eval/... up to a step; "" where there are none."""
    rows = []
    for name, curve in history.curves.items():
        points = [point for point in zip(curve.steps, curve.values) if point[0] <= step]
        if name.startswith("eval/") and points:
            rows.append([markdown.text(name), f"{points[-1][1]:.4g}", f"{points[-1][0]:g}"])
    return markdown.table(["metric", "value", "step"], rows) if rows else ""
