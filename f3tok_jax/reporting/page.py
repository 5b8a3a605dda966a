# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The page about runs: gathers what its templates lay out.

page.html.jinja and player.html.jinja escape whatever they are given: numbers, texts, and pictures
and sounds as data URIs. page.css.jinja and page.js.jinja become part of the page; by the script's
hash a browser is told to run no other.
"""

import base64
from collections.abc import Mapping, Sequence
import hashlib
import json
from typing import Any, NamedTuple

from f3tok_jax.reporting import charts
from f3tok_jax.reporting import colors
from f3tok_jax.reporting import curves
from f3tok_jax.reporting import maps
from f3tok_jax.reporting import sounds
from f3tok_jax.reporting import tables
from f3tok_jax.runs import comparison_results
from f3tok_jax.runs import history
from f3tok_jax.runs import probe_results
from f3tok_jax.runs import results
from f3tok_jax.runs import typed_json
from f3tok_jax.stages import registry
from f3tok_jax.training import stage as stage_lib

_MAX_TEXT = 2000  # characters of a value of a configuration


class Config(NamedTuple):
    """Of the runs of one stage: key -> a value for each, and those that differ."""

    runs: Sequence[str]
    values: Mapping[str, Sequence[str]]
    different: Mapping[str, Sequence[str]]


Named = probe_results.Probe | comparison_results.Comparison  # what may lie in no run's folder


def render(runs: Sequence[history.RunHistory], named: Mapping[str, Named]) -> str:
    """Returns the page as HTML.

    Args:
        runs: at least one, with different names.
        named: name -> probes, an ablation or a comparison that lie in no run's folder.
    """
    import jinja2  # late, as matplotlib

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("f3tok_jax.reporting", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = environment.get_template("page.js.jinja").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    context = _context(runs, named) | {"script_hash": f"sha256-{digest}"}
    page = environment.get_template("page.html.jinja").render(context)
    return page.encode(errors="backslashreplace").decode()  # JSON may hold half a character


def _context(runs: Sequence[history.RunHistory], named: Mapping[str, Named]) -> dict[str, Any]:
    """What the template shows; an empty part has no section."""
    comparisons = {
        name: (one, tables.compared(one))
        for name, one in named.items()
        if isinstance(one, comparison_results.Comparison)
    }
    named = {name: one for name, one in named.items() if name not in comparisons}
    of_runs = {run.name: colors.SERIES[i % len(colors.SERIES)] for i, run in enumerate(runs)}
    shown = [run.config.get("stage") for run in runs]
    stages = [registry.words_of(name) for name in registry.STAGES if name in shown]
    kind = stages[0] if len(stages) == 1 else registry.words_of(None)
    evaluations = tables.evaluations(runs, of_runs)
    members = [member for one in evaluations for member in one.members]
    judged = {
        name: result.judged
        for kind in (results.Reconstruction, results.Generation)
        for name, result in _named(runs, kind).items()
        if result.judged
    }
    drawn, num_left_out = curves.training(runs, of_runs, stages)
    return {
        "title": f"{kind.title}: {', '.join(run.name for run in runs)}",
        "introduction": [words.introduction for words in stages],
        "colors": of_runs,
        "style_sheet": colors.style_sheet(),
        "shades": charts.shades(),
        "decibels": charts.DECIBELS,
        "summary": [
            _summary(run)
            for run in runs
            if run.config or run.curves or run.of(results.Reconstruction)
        ],
        "notes": [(run.name, note) for run in runs for note in [*run.notes, *_missing(run)]],
        "comparisons": comparisons,
        "evaluations": [(one, curves.under_noise(one)) for one in evaluations],
        "verdicts": tables.verdicts(judged),
        "absent_judges": {name: one.absent for name, one in judged.items() if one.absent},
        "language_models": _named(runs, results.LanguageModel),
        "probes": tables.probes(runs, of_runs, named),
        "title_of": probe_results.title_of,
        "is_reference": tables.is_reference,
        "transcripts": _named(runs, results.Transcripts),
        "generations": _named(runs, results.Generation),
        "heard": tables.heard(runs),
        "clips": _clips(runs),
        "max_seconds": sounds.MAX_SECONDS,
        "max_clips": sounds.MAX_CLIPS,
        "maps": maps.of(runs, named),
        "map_size": maps.SIZE,
        "curves": drawn,
        "num_left_out": num_left_out,
        "members": members,
        "channels": [
            chart
            for name, color, result in members
            for chart in curves.channels(name, color, result.latents)
        ],
        "configs": _configs(runs),
        "words": _words(runs, members, stages),
    }


def _clips(runs: Sequence[history.RunHistory]) -> dict[str, list[sounds.Clip]]:
    """What there is to listen to, by its kind."""
    found = {"Held-out clips": sounds.heldout(runs)}
    for run in runs:
        for name, result in _named([run], results.Generation).items():
            found[f"Sound from text: {name}"] = sounds.generated(run, result)
    found["While training"] = sounds.training(runs)
    return {title: clips for title, clips in found.items() if clips}


def _named(runs: Sequence[history.RunHistory], kind: type) -> dict[str, Any]:
    """Results of a kind by their run and, where it has several, their file."""
    return {
        run.name if len(run.of(kind)) == 1 else f"{run.name} {file}": result
        for run in runs
        for file, result in run.of(kind).items()
    }


def _summary(run: history.RunHistory) -> dict[str, Any]:
    """What a run is, and how far it went."""
    step = max((curve.steps[-1] for curve in run.curves.values()), default=0)
    num_steps, rate = (run.config.get(key) for key in ("num_steps", "model.sample_rate"))
    seconds = run.curves["time/seconds"].values if "time/seconds" in run.curves else ()
    # The clock of a run starts anew when it is resumed.
    parts = [value for value, after in zip(seconds, (*seconds[1:], 0.0)) if after < value]
    spent = run.ledger if run.ledger.sessions else None
    speed = run.curves.get("time/audio_seconds_per_second")
    return {
        "name": run.name,
        "stage": [str(run.config[key]) for key in ("stage", "preset") if key in run.config],
        "sample_rate": rate if typed_json.is_number(rate) else None,
        "step": step,
        "num_steps": num_steps if typed_json.is_number(num_steps) else step,
        "is_done": run.is_done,
        "minutes": spent.wall_seconds / 60 if spent else sum(parts) / 60 if seconds else None,
        "ledger": spent,
        "speed": sorted(speed.values)[len(speed.values) // 2] if speed else None,
    }


def _missing(run: history.RunHistory) -> list[str]:
    """Which program would tell more about a run that has curves alone."""
    words = registry.words_of(run.config.get("stage"))
    if run.results or not words.program:
        return []
    return [
        f"No {words.results}: run python -m f3tok_jax.{words.program} with --output inside the "
        "folder."
    ]


def _configs(runs: Sequence[history.RunHistory]) -> dict[str, Config]:
    """Stage -> the configurations of its runs."""
    stages: dict[str, list[history.RunHistory]] = {}
    for run in runs:
        if run.config:
            stages.setdefault(str(run.config.get("stage")), []).append(run)
    found = {}
    for stage, members in stages.items():
        keys = dict.fromkeys(key for run in members for key in run.config)
        values = {key: [_shown(run.config, key) for run in members] for key in keys}
        different = {key: shown for key, shown in values.items() if len({*shown}) > 1}
        found[stage] = Config([run.name for run in members], values, different)
    return found


def _shown(config: Mapping[str, Any], key: str) -> str:
    if key not in config:
        return "absent"
    try:
        text = json.dumps(config[key])
    except RecursionError:
        return "nested too deep to be shown"
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"


def _words(
    runs: Sequence[history.RunHistory],
    members: Sequence[tables.Member],
    stages: Sequence[stage_lib.Words],
) -> dict[str, str]:
    """The metrics, the rows of the tables, and the curves, a sentence each."""
    entries: dict[str, str] = {}
    for member in members:
        for row in member.result.rows:
            entries.setdefault(row.title, row.description)
        for metric in member.result.metrics.values():
            entries.setdefault(metric.title, metric.explanation)
    drawn = {curves.family(name.split("/", 1)[-1]) for run in runs for name in run.curves}
    for name, said in (curve for words in stages for curve in words.curves.items()):
        if said and name in drawn:
            entries[name.replace("_", " ")] = said
    return entries
