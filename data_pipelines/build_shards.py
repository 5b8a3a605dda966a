# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Builds shards, their manifest and refusals from a folder of sound, TFDS or embedded corpora.

    python -m data_pipelines.build_shards --source=folder --input=DIR --output=SHARDS --holdout=0.1

The same command gives the same bytes, whatever the number of workers. A build that was killed
leaves no manifest, hence nothing that passes for a shard set; the same command then continues it.

Exit codes: 0 finished, 1 wrong arguments or input; one sentence on stderr says which.
"""

import argparse
import collections
from collections.abc import Callable, Sequence
import functools
import json
import os
import pathlib
import sys
import time

from data_pipelines import command
from data_pipelines.building import plan as build_plan
from data_pipelines.building import shard_writer
from data_pipelines.building import staging
from data_pipelines.building import workers
from data_pipelines.records import atomic
from data_pipelines.records import manifest
from data_pipelines.sound import audio_files
from data_pipelines.sound import inputs
from data_pipelines.sound import tfds_input
from data_pipelines.sound import transforms


def build(
    source: inputs.Input,
    output: str | os.PathLike,
    recipe: audio_files.Recipe,
    *,
    holdout: float = 0.0,
    num_workers: int = 0,
    say: Callable[[str], None] = print,
) -> dict[str, manifest.Manifest]:
    """Builds one shard set, or one to train on and one that is held out.

    Args:
        source: where the sounds come from.
        output: folder of the set; with a holdout, its subfolders `train` and `test` are the sets.
        recipe: what becomes of the sounds.
        holdout: fraction of the sounds that goes to `test`, whole sounds by a hash of their keys.
        num_workers: processes; 0 builds in this one, without protection from a crashing decoder.
        say: receives lines of progress.

    Returns:
        {"": manifest}, or {"train": manifest, "test": manifest}.

    Raises:
        ValueError: if there is nothing usable, or the output holds another build.
    """
    output = pathlib.Path(output)
    plan = build_plan.make_plan(source, recipe, holdout=holdout)
    manifests = _finished(output, plan)
    if manifests:
        say(f"{output} is already built: {_summary(manifests)}")
        return manifests
    with staging.Staging(output, plan) as stage:
        results = _write_shards(source, recipe, plan, stage, num_workers, say)
        manifests = {part: _manifest(part, plan, results, recipe) for part in plan.parts}
        for part in plan.parts:
            _write_refusals(build_plan.part_folder(output, part), results[part])
        _refuse_empty(output, manifests, stage)
        for part, content in manifests.items():
            manifest.write(content, build_plan.part_folder(output, part))
        stage.remove()
    say(f"built {output}: {_summary(manifests)}")
    return manifests


def _finished(output: pathlib.Path, plan: build_plan.Plan) -> dict[str, manifest.Manifest] | None:
    """The manifests if exactly this build stands whole in `output`; None if there is work to do."""
    found = {}
    for part in ("", "train", "test"):
        folder = build_plan.part_folder(output, part)
        if (folder / manifest.FILE_NAME).is_file():
            found[part] = manifest.read(folder)
            plan.refuse_other(folder, found[part].settings, found[part].sources)
    if set(found) != set(plan.parts):
        return None
    try:
        for part, content in found.items():
            manifest.verify(content, build_plan.part_folder(output, part))
    except ValueError:
        return None  # Damaged since: built again.
    return {part: found[part] for part in plan.parts}


def _write_shards(
    source: inputs.Input,
    recipe: audio_files.Recipe,
    plan: build_plan.Plan,
    stage: staging.Staging,
    num_workers: int,
    say: Callable[[str], None],
) -> dict[str, list[dict]]:
    """Writes the shards that are missing and returns part -> results of its tasks, in order."""
    results = {task: stage.result(task) for task in plan.tasks}
    missing = [task for task, result in results.items() if result is None]
    if len(missing) < len(results):
        say(f"continuing: {len(results) - len(missing)} of {len(results)} shards are there")
    progress = _Progress(sum(len(task.items) for task in missing), say)
    work = functools.partial(
        shard_writer.write_shard, source=source, recipe=recipe, folder=str(stage.folder)
    )
    finished = workers.run(work, missing, num_workers=num_workers, on_item=progress.count)
    for index, result in finished:
        partial = result.pop("partial")
        stage.keep(missing[index], result, partial)
        results[missing[index]] = result
        progress.num_refused += len(result["refused"])
    progress.print()
    of_part = collections.defaultdict(list)
    for task, result in results.items():
        of_part[task.part].append(result)
    return of_part


class _Progress:
    """A line now and then: how many sounds of how many."""

    def __init__(self, total: int, say: Callable[[str], None]):
        self._total, self._say = total, say
        self._started = self._printed = time.monotonic()
        self._num_started = 0
        self.num_refused = 0

    def count(self, key: str) -> None:
        """Counts a sound that is about to be read."""
        self._num_started += 1
        now = time.monotonic()
        # Often enough to see it move, seldom enough for the log of a build of hours.
        if now - self._printed >= (2.0 if now - self._started < 60.0 else 20.0):
            self._printed = now
            self.print()

    def print(self) -> None:
        # A sound whose worker died is started twice.
        num_started = min(self._num_started, self._total)
        seconds = time.monotonic() - self._started
        self._say(
            f"read {num_started} of {self._total} sounds, refused {self.num_refused}, "
            f"{seconds:.0f} s"
        )


def _manifest(
    part: str,
    plan: build_plan.Plan,
    results: dict[str, list[dict]],
    recipe: audio_files.Recipe,
) -> manifest.Manifest:
    totals, reasons = collections.Counter(), collections.Counter()
    labels = collections.defaultdict(set)
    for result in results[part]:
        for name in ("num_samples", "num_used", "num_texts", "clipped_samples"):
            totals[name] += result[name]
        for name, values in result["labels"].items():
            labels[name].update(values)
        reasons.update(refusal["reason"] for refusal in result["refused"])
    return manifest.Manifest(
        sample_rate=recipe.sample_rate,
        segment_length=recipe.segment_length,
        shards=tuple(
            manifest.Shard(**result["shard"]) for result in results[part] if result["shard"]
        ),
        settings=plan.settings,
        sources=plan.sources,
        num_sources=plan.parts[part],
        refused=dict(sorted(reasons.items())),
        skipped=plan.skipped,
        labels={
            name: sorted(values) if len(values) <= shard_writer.MAX_LABEL_VALUES else None
            for name, values in sorted(labels.items())
        },
        **totals,
    )


def _write_refusals(folder: pathlib.Path, results: list[dict]) -> None:
    refused = [refusal for result in results for refusal in result["refused"]]
    atomic.write_text(
        folder / manifest.REFUSALS_NAME, "".join(json.dumps(refusal) + "\n" for refusal in refused)
    )


def _refuse_empty(
    output: pathlib.Path, manifests: dict[str, manifest.Manifest], stage: staging.Staging
) -> None:
    for part, content in manifests.items():
        if not content.shards:
            # Nothing to continue: the input may be mended and the same command given again.
            stage.remove()
            folder = build_plan.part_folder(output, part)
            raise ValueError(
                f"nothing usable for {folder} among {content.num_sources} sounds: "
                f"{_counts(content.refused)}; each is named in {folder / manifest.REFUSALS_NAME}"
            )


def _summary(manifests: dict[str, manifest.Manifest]) -> str:
    lines = []
    for part, content in manifests.items():
        line = (f"{part} " if part else "") + (
            f"{content.num_records} records, {content.seconds / 3600:.3f} h at "
            f"{content.sample_rate} Hz from {content.num_used} of {content.num_sources} sounds"
        )
        if content.refused:
            line += f" (refused: {_counts(content.refused)})"
        lines.append(line)
    skipped = next(iter(manifests.values())).skipped
    return "; ".join(lines) + (f"; passed over: {_counts(skipped)}" if skipped else "")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _parser() -> command.Parser:
    parser = command.make_parser("python -m data_pipelines.build_shards", __doc__)
    positive, not_negative = command.at_least(1), command.at_least(0)
    add = parser.add_argument
    add("--source", required=True, choices=("folder", "tfds", "embedded"), help="kind of input")
    text = "folder of sound files, TFDS data set, or names of corpora"
    add("--input", type=command.path, default="", help=text)
    add("--output", required=True, type=command.path, help="folder of the shard set")
    add("--sample_rate", type=command.at_least(1_000), default=24_000, help="of the records, Hz")
    seconds = command.at_least(0.01, float)
    add("--segment_seconds", type=seconds, default=4.0, help="length of a record, s")
    add("--holdout", type=float, default=0.0, help="fraction of the sounds for OUTPUT/test")
    seconds = command.at_least(0.0, float)
    add("--min_seconds", type=seconds, default=0.1, help="shorter sounds are refused")
    add("--max_seconds", type=seconds, default=6 * 3600.0, help="longer sounds are refused")
    text = "what becomes of several channels"
    add("--mono", choices=transforms.MONO_POLICIES, default="mean", help=text)
    add("--num_workers", type=positive, default=os.cpu_count(), help="processes")

    add = parser.add_argument_group("--source=folder").add_argument
    text = "glob on relative path or name; repeatable"
    add("--include", action="append", default=[], help=text)
    text = "glob of what is left out; repeatable"
    add("--exclude", action="append", default=[], help=text)
    text = "regular expression; its named groups are labels"
    add("--label_pattern", default="", help=text)
    text = "table of texts and labels, a line per file"
    add("--metadata", type=command.path, default="", help=text)
    text = "its columns, if it has no header"
    add("--metadata_columns", type=command.values, default=[], help=text)

    add = parser.add_argument_group("--source=tfds").add_argument
    add("--data_dir", type=command.path, default="", help="where data sets are prepared")
    add("--split", default="train", help="which split")
    add("--audio_feature", default="", help="the feature that is the sound")
    add("--source_rate", type=not_negative, default=0, help="Hz, if the data set does not say")

    add = parser.add_argument_group("--source=embedded").add_argument
    add("--num_clips", type=not_negative, default=0, help="clips of each corpus")
    text = "roughly, all corpora together"
    add("--hours", type=command.at_least(0.0, float), default=0.0, help=text)
    add("--seed", type=not_negative, default=0, help="other seeds, other clips")
    return parser


def _input_from_flags(values: argparse.Namespace, say: Callable[[str], None]) -> inputs.Input:
    if values.source == "embedded":
        names = [name.strip() for name in values.input.split(",") if name.strip()]
        return inputs.embedded(
            names,
            num_clips=values.num_clips,
            hours=values.hours,
            seed=values.seed,
            sample_rate=values.sample_rate,
            say=say,
        )
    if not values.input:
        raise ValueError(
            f"--source={values.source} needs --input: a folder of sound files or a TFDS data set"
        )
    if values.source == "tfds":
        return tfds_input.Tfds(
            name=values.input,
            split=values.split,
            data_dir=values.data_dir,
            audio_feature=values.audio_feature,
            source_rate=values.source_rate,
        )
    return inputs.Folder(
        path=values.input,
        include=tuple(values.include),
        exclude=tuple(values.exclude),
        label_pattern=values.label_pattern,
        metadata=values.metadata,
        metadata_columns=tuple(values.metadata_columns),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    return command.run(_parser(), _build, arguments)


def _build(values: argparse.Namespace) -> None:
    recipe = audio_files.Recipe(
        sample_rate=values.sample_rate,
        segment_length=round(values.segment_seconds * values.sample_rate),
        mono=values.mono,
        min_seconds=values.min_seconds,
        max_seconds=values.max_seconds,
    )
    say = functools.partial(print, flush=True)
    build(
        _input_from_flags(values, say),
        values.output,
        recipe,
        holdout=values.holdout,
        num_workers=values.num_workers,
        say=say,
    )


if __name__ == "__main__":
    sys.exit(main())
