# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Program: a folder of sound, a TFDS data set or an embedded corpus -> shards, manifest, refusals.

    python -m data_pipelines.build_shards --source=folder --input=DIR --output=SHARDS --sample_rate=24000

The same command gives the same bytes, whatever the number of workers. A build that was killed leaves no
manifest, hence nothing that passes for a shard set; the same command then continues it.
"""

import collections
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Sequence

from absl import app
from absl import flags

from data_pipelines import audio_files
from data_pipelines import inputs
from data_pipelines import manifest
from data_pipelines import shard_writer
from data_pipelines import tfds_input
from data_pipelines import transforms
from data_pipelines import workers

_STAGING = ".building"  # inside the output folder, removed when the manifests are written
_PLAN = "plan.json"

# A shard's share of the input, in bytes: at most 64 shards until they reach the larger size, so that small
# inputs are still built in parallel and large ones do not make files by the thousand.
_NUM_SHARDS, _MIN_SHARD_BYTES, _MAX_SHARD_BYTES = 64, 2**21, 2**28


def build(
    source: inputs.Input,
    output: str | os.PathLike,
    recipe: audio_files.Recipe,
    *,
    holdout: float = 0.0,
    num_workers: int = 0,
    say: Callable[[str], None] = print,
) -> dict[str, manifest.Manifest]:
    """Builds one shard set, or a training and a held-out one, and returns their manifests.

    Args:
        source: where the sounds come from.
        output: folder of the set; with a holdout, its subfolders `train` and `test` are the sets.
        recipe: what becomes of the sounds.
        holdout: fraction of the sources, by a hash of their keys, that goes to `test`.
        num_workers: processes; 0 builds in this one, without protection from crashes of the decoder.
        say: receives lines of progress.

    Returns:
        {"": manifest}, or {"train": manifest, "test": manifest}.

    Raises:
        ValueError: if the folder holds another build, or a set would have no records.
    """
    output = pathlib.Path(output)
    listing = source.listing()
    _check_not_empty(listing, source)
    parts = _split(listing.items, holdout)
    plan = {
        "settings": source.settings() | dataclasses.asdict(recipe) | {"holdout": holdout},
        "sources": _digest(listing),
    }
    plan = json.loads(json.dumps(plan))  # tuples become lists, as they will be when read back
    finished = _finished(output, parts, plan)
    if finished:
        say(f"{output} is already built: {_summary(finished)}")
        return finished
    with _staging(output, parts, plan) as staging:
        results = _write_shards(source, output, staging, parts, recipe, num_workers, say)
        return _finish(output, staging, parts, results, listing, plan, recipe, say)


def _check_not_empty(listing: inputs.Listing, source: inputs.Input) -> None:
    if not listing.items:
        passed_over = ", ".join(f"{count} {ending}" for ending, count in listing.skipped.items())
        raise ValueError(
            f"no sound files in {source.settings()}: passed over {passed_over or 'nothing'}; check --input, "
            "--include and --exclude")


def _digest(listing: inputs.Listing) -> str:
    digest = hashlib.sha256()
    for item in listing.items:
        digest.update(f"{item.key}\0{item.num_bytes}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _split(items: Sequence[inputs.Item], holdout: float) -> dict[str, list[inputs.Item]]:
    """Part -> its items. Who is held out depends on the key alone; both parts get at least one."""
    if not 0.0 <= holdout < 1.0:
        raise ValueError(f"--holdout={holdout} must be a fraction, at least 0 and below 1")
    if holdout == 0.0:
        return {"": list(items)}
    if len(items) < 2:
        raise ValueError(f"--holdout={holdout} needs at least two sources, the input has {len(items)}")
    place = {item.key: _hash(item.key) for item in items}
    threshold = holdout * 2.0**64
    threshold = max(threshold, min(place.values()) + 1)
    threshold = min(threshold, max(place.values()))
    parts = {"train": [], "test": []}
    for item in items:
        parts["test" if place[item.key] < threshold else "train"].append(item)
    return parts


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[:8], "big")


def _finished(output: pathlib.Path, parts: dict, plan: dict) -> dict[str, manifest.Manifest] | None:
    """The manifests if exactly this build stands whole in `output`, None if there is work to do."""
    found = {}
    for part in ("", "train", "test"):
        if (output / part / manifest.FILE_NAME).is_file():
            found[part] = manifest.read(output / part)
            _refuse_other(output / part, plan, {
                "settings": found[part].settings, "sources": found[part].sources})
    if set(found) != set(parts):
        return None
    try:
        for part, content in found.items():
            manifest.verify(content, output / part)
    except ValueError:
        return None  # Damaged: built again.
    return found


def _refuse_other(folder: pathlib.Path, plan: dict, other: dict) -> None:
    """Raises ValueError naming what differs, unless `other` is this build."""
    settings, others = plan["settings"], other["settings"]
    for name in sorted(settings.keys() | others.keys()):
        if settings.get(name) != others.get(name):
            raise ValueError(
                f"{folder} holds another build: {name} is {others.get(name)!r} there and "
                f"{settings.get(name)!r} now; choose another --output or delete that folder")
    if plan["sources"] != other["sources"]:
        raise ValueError(
            f"{folder} holds a build of other files than --input has now (names or sizes differ); choose "
            "another --output or delete that folder")


class _staging:
    """The folder of unfinished work: created or taken over from a killed build, held by one builder only."""

    def __init__(self, output: pathlib.Path, parts: dict, plan: dict):
        self._folder = output / _STAGING
        self._parts = [output / part for part in parts]
        self._plan = plan

    def __enter__(self) -> pathlib.Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(self._folder / "lock", "w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another build is writing to {self._folder.parent}: wait for it") from None
        plan_path = self._folder / _PLAN
        if plan_path.is_file():
            _refuse_other(self._folder.parent, self._plan, json.loads(plan_path.read_text()))
        manifest.write_atomically(plan_path, json.dumps(self._plan))
        for folder in self._parts:
            folder.mkdir(exist_ok=True)
            # From here on the set is in pieces, so what vouches for it goes first.
            (folder / manifest.FILE_NAME).unlink(missing_ok=True)
        for leftover in self._folder.glob("*.partial"):
            leftover.unlink()
        return self._folder

    def __exit__(self, exception_type, exception, trace) -> None:
        if exception_type is None:
            for path in self._folder.iterdir():
                path.unlink()
            self._folder.rmdir()
        self._lock.close()


def _tasks(output: pathlib.Path, staging: pathlib.Path, parts: dict) -> dict[str, shard_writer.Task]:
    """Name of the result file -> task. Depends on the input alone, never on the number of workers."""
    tasks = {}
    for part, items in parts.items():
        total = sum(item.num_bytes for item in items)
        limit = min(max(total // _NUM_SHARDS, _MIN_SHARD_BYTES), _MAX_SHARD_BYTES)
        groups, size = [[]], 0
        for item in items:
            if groups[-1] and size + item.num_bytes > limit:
                groups.append([])
                size = 0
            groups[-1].append(item)
            size += item.num_bytes
        for index, group in enumerate(groups):
            name = f"shard-{index:05d}.array_record"
            tasks[f"{part or 'all'}-{index:05d}.json"] = shard_writer.Task(
                name, str(output / part), str(staging), tuple(group))
    return tasks


def _write_shards(
    source: inputs.Input,
    output: pathlib.Path,
    staging: pathlib.Path,
    parts: dict,
    recipe: audio_files.Recipe,
    num_workers: int,
    say: Callable[[str], None],
) -> dict[str, dict]:
    """Writes what is missing and returns result file -> result of every task, in order."""
    tasks = _tasks(output, staging, parts)
    results = {name: _result_of_earlier_build(staging / name, task) for name, task in tasks.items()}
    missing = [name for name, result in results.items() if result is None]
    if len(missing) < len(tasks):
        say(f"continuing: {len(tasks) - len(missing)} of {len(tasks)} shards are there")
    progress = _Progress(sum(len(tasks[name].items) for name in missing), say)
    work = functools.partial(shard_writer.write_shard, source=source, recipe=recipe)
    finished = workers.run(
        work, [tasks[name] for name in missing], num_workers=num_workers, on_item=progress.count)
    for index, result in finished:
        name = missing[index]
        partial = staging / result.pop("partial")
        # The result first: a shard without one would be a stranger to the next builder.
        manifest.write_atomically(staging / name, json.dumps(result))
        if result["shard"]:
            os.replace(partial, pathlib.Path(tasks[name].folder) / result["shard"]["name"])
        else:
            partial.unlink()
        results[name] = result
        progress.refused += len(result["refused"])
    progress.finish()
    return results


def _result_of_earlier_build(path: pathlib.Path, task: shard_writer.Task) -> dict | None:
    """What a killed build left of this task, if its shard is whole."""
    if not path.is_file():
        return None
    result = json.loads(path.read_text())
    if result["shard"]:
        shard = pathlib.Path(task.folder) / result["shard"]["name"]
        if not shard.is_file() or manifest.sha256(shard) != result["shard"]["sha256"]:
            return None
    return result


class _Progress:
    """A line now and then: how many sounds of how many."""

    def __init__(self, total: int, say: Callable[[str], None], every_seconds: float = 2.0):
        self._total, self._say, self._every_seconds = total, say, every_seconds
        self._started = self._said = time.monotonic()
        self._done = 0
        self.refused = 0

    def count(self, key: str) -> None:
        self._done += 1
        if time.monotonic() - self._said >= self._every_seconds:
            self._said = time.monotonic()
            self.finish()

    def finish(self) -> None:
        done = min(self._done, self._total)
        seconds = time.monotonic() - self._started
        self._say(f"read {done}/{self._total} sounds, refused {self.refused}, {seconds:.0f} s")


def _finish(
    output: pathlib.Path,
    staging: pathlib.Path,
    parts: dict,
    results: dict[str, dict],
    listing: inputs.Listing,
    plan: dict,
    recipe: audio_files.Recipe,
    say: Callable[[str], None],
) -> dict[str, manifest.Manifest]:
    """Writes refusals, then manifests; raises ValueError if a set has nothing in it."""
    manifests = {}
    for part, items in parts.items():
        of_part = [result for name, result in results.items() if name.startswith(f"{part or 'all'}-")]
        refused = [refusal for result in of_part for refusal in result["refused"]]
        lines = "".join(json.dumps(refusal) + "\n" for refusal in refused)
        manifest.write_atomically(output / part / manifest.REFUSALS_NAME, lines)
        content = _manifest_of(of_part, len(items), refused, listing, plan, recipe)
        if not content.shards:
            reasons = ", ".join(f"{count} {reason}" for reason, count in content.refused.items())
            raise ValueError(
                f"nothing usable among the {len(items)} sources of {output / part}: {reasons}; each file "
                f"is named in {output / part / manifest.REFUSALS_NAME}")
        manifests[part] = content
    for part, content in manifests.items():
        manifest.write(content, output / part)
    say(f"built {output}: {_summary(manifests)}")
    return manifests


def _manifest_of(
    results: list[dict],
    num_sources: int,
    refused: list[dict],
    listing: inputs.Listing,
    plan: dict,
    recipe: audio_files.Recipe,
) -> manifest.Manifest:
    totals, labels = collections.Counter(), collections.defaultdict(set)
    for result in results:
        for name in ("num_samples", "num_used", "num_texts", "clipped_samples"):
            totals[name] += result[name]
        for name, values in result["labels"].items():
            labels[name].update(values)
    reasons = collections.Counter(refusal["reason"] for refusal in refused)
    return manifest.Manifest(
        sample_rate=recipe.sample_rate,
        segment_length=recipe.segment_length,
        num_samples=totals["num_samples"],
        shards=tuple(manifest.Shard(**result["shard"]) for result in results if result["shard"]),
        settings=plan["settings"],
        sources=plan["sources"],
        num_sources=num_sources,
        num_used=totals["num_used"],
        refused=dict(sorted(reasons.items())),
        skipped=listing.skipped,
        clipped_samples=totals["clipped_samples"],
        labels={
            name: sorted(values) if len(values) <= shard_writer.MAX_LABEL_VALUES else None
            for name, values in sorted(labels.items())},
        num_texts=totals["num_texts"],
    )


def _summary(manifests: dict[str, manifest.Manifest]) -> str:
    lines = []
    for part, content in manifests.items():
        refused = ", ".join(f"{count} {reason}" for reason, count in content.refused.items())
        lines.append(
            f"{part + ': ' if part else ''}{content.num_records} records, {content.seconds / 3600:.3f} h at "
            f"{content.sample_rate} Hz from {content.num_used} of {content.num_sources} sources"
            + (f" (refused: {refused})" if refused else ""))
    return "; ".join(lines)


def _define_flags() -> None:
    """Defines the flags of this program; on import they would collide with those of other programs."""
    flags.DEFINE_enum("source", None, ["folder", "tfds", "embedded"], "Kind of input.")
    flags.DEFINE_string("input", "", "Folder of sound files; TFDS name[/config][:version] or folder; corpora.")
    flags.DEFINE_string("output", None, "Folder of the shard set.")
    flags.DEFINE_integer("sample_rate", 24_000, "Of the records, Hz.", lower_bound=1_000)
    flags.DEFINE_float("segment_seconds", 4.0, "Length of a record, s.", lower_bound=0.01)
    flags.DEFINE_float("holdout", 0.0, "Fraction of the sources: it goes to OUTPUT/test, the rest to OUTPUT/train.")
    flags.DEFINE_float("min_seconds", 0.1, "Shorter sounds are refused.", lower_bound=0.0)
    flags.DEFINE_float("max_seconds", 6 * 3600.0, "Longer sounds are refused.", lower_bound=0.0)
    flags.DEFINE_enum("mono", "mean", transforms.MONO_POLICIES, "What becomes of several channels.")
    flags.DEFINE_integer("num_workers", os.cpu_count(), "Processes.", lower_bound=1)

    flags.DEFINE_multi_string("include", [], "folder: glob on the relative path or the name; repeatable.")
    flags.DEFINE_multi_string("exclude", [], "folder: glob of what is left out; repeatable.")
    flags.DEFINE_string("label_pattern", "", "folder: regular expression on the name; named groups are labels.")
    flags.DEFINE_string("metadata", "", "folder: table of texts and labels, a line per file.")
    flags.DEFINE_list("metadata_columns", [], "folder: names of its columns, if its first line does not.")

    flags.DEFINE_string("data_dir", "", "tfds: where data sets are prepared.")
    flags.DEFINE_string("split", "train", "tfds: which split.")
    flags.DEFINE_string("audio_feature", "", "tfds: which feature is the sound, if several could be.")
    flags.DEFINE_integer("source_rate", 0, "tfds: Hz, if the data set does not say.", lower_bound=0)

    flags.DEFINE_integer("num_clips", 0, "embedded: clips of each corpus.", lower_bound=0)
    flags.DEFINE_float("hours", 0.0, "embedded: roughly, of all corpora together.", lower_bound=0.0)
    flags.DEFINE_integer("seed", 0, "embedded: other seeds, other clips.", lower_bound=0)
    flags.mark_flags_as_required(["source", "output"])


def _input_from_flags(values: flags.FlagValues, say: Callable[[str], None]) -> inputs.Input:
    if values.source == "embedded":
        names = [name.strip() for name in values.input.split(",") if name.strip()]
        return inputs.embedded(
            names, num_clips=values.num_clips, hours=values.hours, seed=values.seed,
            sample_rate=values.sample_rate, say=say)
    if not values.input:
        raise ValueError(f"--source={values.source} needs --input: a folder of sound files or a TFDS data set")
    if values.source == "tfds":
        return tfds_input.Tfds(
            name=values.input, split=values.split, data_dir=values.data_dir,
            audio_feature=values.audio_feature, source_rate=values.source_rate)
    return inputs.Folder(
        path=values.input,
        include=tuple(values.include),
        exclude=tuple(values.exclude),
        label_pattern=values.label_pattern,
        metadata=values.metadata,
        metadata_columns=tuple(values.metadata_columns),
    )


def main(argv: Sequence[str]) -> None:
    """Runs the program; errors of the user are one line and exit code 1."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}")
    values = flags.FLAGS
    recipe = audio_files.Recipe(
        sample_rate=values.sample_rate,
        segment_length=round(values.segment_seconds * values.sample_rate),
        mono=values.mono,
        min_seconds=values.min_seconds,
        max_seconds=values.max_seconds,
    )
    say = functools.partial(print, flush=True)
    try:
        source = _input_from_flags(values, say)
        build(source, values.output, recipe, holdout=values.holdout, num_workers=values.num_workers, say=say)
    except ValueError as error:
        raise SystemExit(f"build_shards: {error}") from None


if __name__ == "__main__":
    _define_flags()
    app.run(main)
