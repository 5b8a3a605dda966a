# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Unfinished work inside a build's output: one builder at a time, then the one that continues.

    OUTPUT/.building/plan.json          what is being built
    OUTPUT/.building/<task>.json        what went into a finished shard, written before it moves
    OUTPUT/.building/*.partial          shards in the making

The folder is removed when the manifests stand, and only the files above are ever deleted.
"""

from collections.abc import Iterable
import json
import os
import pathlib

from data_pipelines.building import plan as build_plan
from data_pipelines.records import atomic
from data_pipelines.records import lock
from data_pipelines.records import manifest

_VERSION = 5  # of the results; those of another are not continued


def finished(
    output: pathlib.Path, plan: build_plan.Plan, *, parts: Iterable[str]
) -> dict[str, manifest.Manifest] | None:
    """Returns part -> manifest if exactly this build stands whole in `output`, else None.

    Args:
        output: of the build.
        plan: what is to be built.
        parts: in which another build's manifest may lie.

    Raises:
        ValueError: if there is another build.
    """
    found = {}
    for part in parts:
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


class Staging:
    """Holds the output of one build, as a context manager; what a killed build finished is kept."""

    def __init__(self, output: str | os.PathLike, plan: build_plan.Plan):
        """Names the folder; nothing is touched before the context is entered."""
        self._output, self._plan = pathlib.Path(output), plan
        self.folder = self._output / manifest.STAGING_NAME
        self._lock = None

    def __enter__(self) -> "Staging":
        """Takes the output over.

        Raises:
            ValueError: if another builder works there, or a killed one left another build.
        """
        try:
            self._lock = lock.take(self.folder / "lock")
        except BlockingIOError:
            raise ValueError(f"another build is writing to {self._output}: wait for it") from None
        plan_path = self.folder / "plan.json"
        if plan_path.is_file():
            found = json.loads(plan_path.read_text(encoding="utf-8"))
            self._plan.refuse_other(self._output, found["settings"], found["sources"])
            if found.get("version") != _VERSION:
                self._remove_results()
        content = {
            "version": _VERSION,
            "settings": self._plan.settings,
            "sources": self._plan.sources,
        }
        atomic.write_text(plan_path, json.dumps(content))
        for part in self._plan.parts:
            folder = build_plan.part_folder(self._output, part)
            folder.mkdir(exist_ok=True)
            # From here on the set may be in pieces, so what vouches for it goes first.
            (folder / manifest.FILE_NAME).unlink(missing_ok=True)
        self._remove_partials()
        return self

    def __exit__(self, *exception) -> None:
        self._lock.close()

    def result(self, task: build_plan.Task) -> dict | None:
        """What a killed build wrote down about a task whose shard is whole; None if it is to do."""
        path = self._result_path(task)
        if not path.is_file():
            return None
        result = json.loads(path.read_text(encoding="utf-8"))
        shard, wanted = self._shard_path(task), result["shard"]
        if wanted and not (shard.is_file() and manifest.sha256(shard) == wanted["sha256"]):
            return None
        return result

    def keep(self, task: build_plan.Task, result: dict, partial: str | None) -> None:
        """Writes down the result of a task, then gives its shard, if it made one, its name."""
        if not partial:  # Of a task that is done again, there may be one that is not to stay.
            self._shard_path(task).unlink(missing_ok=True)
        atomic.write_text(self._result_path(task), json.dumps(result))
        if partial:
            os.replace(self.folder / partial, self._shard_path(task))

    def remove(self) -> None:
        """Deletes the folder, when nothing in it is needed any more."""
        self._remove_partials()
        self._remove_results()
        for name in ("plan.json", "lock"):
            (self.folder / name).unlink(missing_ok=True)
        try:
            self.folder.rmdir()
        except OSError:
            pass  # Something of the user's lies there; it stays.

    def _remove_partials(self) -> None:
        for partial in self.folder.glob("*.partial"):
            partial.unlink(missing_ok=True)

    def _remove_results(self) -> None:
        for task in self._plan.tasks:
            self._result_path(task).unlink(missing_ok=True)

    def _result_path(self, task: build_plan.Task) -> pathlib.Path:
        return self.folder / f"{task.name}.json"

    def _shard_path(self, task: build_plan.Task) -> pathlib.Path:
        return build_plan.part_folder(self._output, task.part) / task.shard_name
