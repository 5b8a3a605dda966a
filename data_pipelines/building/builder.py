# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Builds shard sets of sound: every sound of an input converted, cut, written, refused or counted.

The same call gives the same bytes, whatever the number of workers. A build that was killed leaves
no manifest, hence nothing that passes for a shard set; the same call then continues it.
"""

from collections.abc import Callable, Sequence
import functools
import json
import os
import pathlib
import time

from data_pipelines.building import account
from data_pipelines.building import duplicates
from data_pipelines.building import plan as build_plan
from data_pipelines.building import shard_writer
from data_pipelines.building import split
from data_pipelines.building import staging
from data_pipelines.building import summary
from data_pipelines.building import workers
from data_pipelines.inputs import listing
from data_pipelines.records import atomic
from data_pipelines.records import manifest
from data_pipelines.sound import conversion as conversion_lib


def build(
    source: listing.Input,
    output: str | os.PathLike,
    conversion: conversion_lib.Conversion,
    *,
    holdout: split.Holdout = split.Holdout(),
    num_workers: int = 0,
    say: Callable[[str], None] = print,
) -> dict[str, manifest.Manifest]:
    """Builds one shard set, or one to train on and one that is held out.

    Args:
        source: where the sounds come from.
        output: folder of the set; with a holdout, its subfolders `train` and `test` are the sets.
        conversion: what becomes of the sounds.
        holdout: what goes to `test`.
        num_workers: processes; 0 builds in this one, without protection from a crashing decoder.
        say: receives lines of progress.

    Returns:
        {"": manifest}, or {"train": manifest, "test": manifest}.

    Raises:
        ValueError: if there is nothing usable, or the output holds another build, or what was to
            be held out is on both sides.
    """
    output = pathlib.Path(output)
    plan = build_plan.make_plan(
        source, conversion, holdout=holdout, num_workers=num_workers, say=say
    )
    for remark in plan.remarks:
        say(remark)
    # A build with another holdout has other parts.
    manifests = staging.finished(output, plan, parts=("", "train", "test"))
    if manifests:
        say(summary.of(manifests, output, f"{output} is already built"))
        return manifests
    with staging.Staging(output, plan) as stage:
        results = _write_shards(source, conversion, plan, stage, num_workers, say)
        sides = account.sides(results, plan.held_out_by)
        manifests = {part: _manifest(part, plan, results, conversion, sides) for part in plan.parts}
        for part in plan.parts:
            refused = [refusal for result in results[part] for refusal in result["refused"]]
            lines = "".join(json.dumps(refusal) + "\n" for refusal in refused)
            folder = build_plan.part_folder(output, part)
            atomic.write_text(folder / manifest.REFUSALS_NAME, lines)
        _refuse_empty(output, manifests, stage)
        for part, content in manifests.items():
            manifest.write(content, build_plan.part_folder(output, part))
        stage.remove()
    say(summary.of(manifests, output, f"built {output}"))
    return manifests


def _write_shards(
    source: listing.Input,
    conversion: conversion_lib.Conversion,
    plan: build_plan.Plan,
    stage: staging.Staging,
    num_workers: int,
    say: Callable[[str], None],
) -> dict[str, list[dict]]:
    """Writes the shards that are missing and returns part -> results of its tasks, in order."""
    work = functools.partial(
        shard_writer.write_shard,
        source=source,
        conversion=conversion,
        folder=str(stage.folder),
        held_out_by=plan.held_out_by,
    )
    results = {task: stage.result(task) for task in plan.tasks}
    missing = [task for task, result in results.items() if result is None]
    if len(missing) < len(results):
        say(f"continuing: {len(results) - len(missing)} of {len(results)} shards are there")
    results |= _run(functools.partial(work, left_out={}), missing, stage, num_workers, say)
    left_out = duplicates.across({part: _of_part(results, part) for part in plan.parts})
    again = [task for task in plan.tasks if any(item.key in left_out for item in task.items)]
    if again:
        say(
            f"{len(left_out)} sounds have the samples of others in the other part: {len(again)} "
            "shards are written again without them"
        )
        results |= _run(functools.partial(work, left_out=left_out), again, stage, num_workers, say)
    return {part: _of_part(results, part) for part in plan.parts}


def _of_part(results: dict[build_plan.Task, dict], part: str) -> list[dict]:
    return [result for task, result in results.items() if task.part == part]


def _run(
    work: Callable[..., dict],
    tasks: Sequence[build_plan.Task],
    stage: staging.Staging,
    num_workers: int,
    say: Callable[[str], None],
) -> dict[build_plan.Task, dict]:
    """Writes the shards of `tasks`; returns task -> result."""
    progress, results = _Progress(sum(len(task.items) for task in tasks), say), {}
    for index, result in workers.run(work, tasks, num_workers=num_workers, on_item=progress.count):
        stage.keep(tasks[index], result, result.pop("partial"))
        results[tasks[index]] = result
        progress.num_refused += len(result["refused"])
    progress.print()
    return results


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
    conversion: conversion_lib.Conversion,
    sides: dict[str, dict[str, int]],
) -> manifest.Manifest:
    return manifest.Manifest(
        sample_rate=conversion.sample_rate,
        segment_length=conversion.segment_length,
        shards=tuple(
            manifest.Shard(**result["shard"]) for result in results[part] if result["shard"]
        ),
        settings=plan.settings,
        sources=plan.sources,
        num_sources=plan.parts[part],
        skipped=plan.skipped,
        rows=plan.rows,
        licences=plan.licences,
        sides=sides,
        **account.fields(results[part], conversion.sample_rate),
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
                f"{summary.counts(content.refused)}; each is named in {folder / manifest.REFUSALS_NAME}"
            )
