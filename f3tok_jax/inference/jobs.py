# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""One input or many: what becomes of each is settled before a model is loaded, then done in order.

Of many, one that cannot be used is refused by name, and the others go on.
"""

import collections
from collections.abc import Callable, Collection, Mapping, Sequence
import dataclasses
import os

from data_pipelines import command
from data_pipelines.inputs import entries
from data_pipelines.inputs import listing
from data_pipelines.sound import audio_files
from f3tok_jax.inference import outputs as outputs_lib
from f3tok_jax.inference import pipes


@dataclasses.dataclass(frozen=True)
class Job:
    """One input.

    Attributes:
        source: path, pipes.PIPE, or "" where nothing is read.
        target: likewise; "" where the result is text.
        refusal: why it cannot be done, if it is known already.
    """

    source: str
    target: str = ""
    refusal: str = ""

    @property
    def name(self) -> str:
        """Of the input, for messages."""
        return "standard input" if self.source == pipes.PIPE else self.source


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a command does.

    Attributes:
        jobs: in order.
        is_many: whether several were asked for, however many there are.
        outputs: that are written; None for text.
        skipped: kind -> count of what folders hold that is no input.
    """

    jobs: Sequence[Job]
    is_many: bool
    outputs: outputs_lib.Outputs | None
    skipped: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def run(
        self, work: Callable[[Job], None], *, load: Callable[[], None], say: Callable[[str], None]
    ) -> int:
        """Does every job; returns the exit code.

        Args:
            work: does one; of many, a ValueError refuses it.
            load: the models that all need, before the first of many.
            say: told about refusals, and how many there were.

        Raises:
            ValueError: why the only job cannot be done.
            OSError: where results cannot be written: no later one would fare better.
        """
        if not self.is_many:
            work(self.jobs[0])
            return command.EXIT_DONE
        if any(not job.refusal for job in self.jobs):
            load()
        num_done = num_refused = 0
        try:
            for job in self.jobs:
                try:
                    self._do(job, work)
                    num_done += 1
                except ValueError as error:
                    num_refused += 1
                    text = command.explain(error)
                    say(text if text.startswith(f"{job.name} ") else f"{job.name}: {text}")
        finally:
            passed = f"; passed over: {listing.counted(self.skipped)}" if self.skipped else ""
            say(f"{num_done} of {len(self.jobs)} inputs done, {num_refused} refused{passed}")
        return command.EXIT_REFUSED if num_refused else command.EXIT_DONE

    def _do(self, job: Job, work: Callable[[Job], None]) -> None:
        if job.refusal:
            raise ValueError(job.refusal)
        if self.outputs:
            self.outputs.check(job.target)  # It may have come into being since.
        work(job)
        if self.outputs:
            self.outputs.wrote(job.target)


def one(source: str, target: str = "", kind: str = "", *, force: bool = False) -> Plan:
    """A plan of one input and, unless the result is text, one output.

    Args:
        source: see Job, as `target`.
        kind: of the output, in outputs.KINDS; "" for text.
        force: whether the output may replace one of its kind.

    Raises:
        ValueError: where the input cannot be read, or the output must not be written.
    """
    if os.path.isdir(source):
        raise ValueError(
            f"{source} must be a file, got a folder: give --output_dir for what is made of it"
        )
    if refusal := _refusal(source):
        raise ValueError(refusal)
    outputs = outputs_lib.Outputs(kind, [source], force=force) if kind else None
    if target == pipes.PIPE:
        pipes.check_output()
    elif outputs:
        outputs.check(target)
    return Plan([Job(source, target)], False, outputs)


def many(
    sources: Sequence[str],
    output_dir: str = "",
    kind: str = "",
    *,
    endings: Collection[str] = audio_files.ENDINGS,
    ending: str = "",
    force: bool = False,
) -> Plan:
    """A plan of files and of what folders hold.

    An output stands below `output_dir` as its input stands below the folder that all inputs share,
    with another ending.

    Args:
        sources: files and folders.
        output_dir: where outputs go; "" where results are text.
        kind: of the outputs; see `one`.
        endings: of what is taken from folders.
        ending: of the outputs.
        force: whether outputs may be replaced.

    Raises:
        ValueError: where a folder holds nothing, or two inputs would have one output.
    """
    if pipes.PIPE in sources:
        raise ValueError(f"{pipes.PIPE} must be the only input, got {len(sources)}")
    found, tops, skipped = {}, [], collections.Counter()
    for source in sources:
        if os.path.isdir(source):
            found |= dict.fromkeys(_held(source, endings, skipped))
            tops.append(os.path.abspath(source))
        else:
            found[source] = None
            tops.append(os.path.dirname(os.path.abspath(source)))
    skipped = dict(sorted(skipped.items()))
    paths = {os.path.abspath(path): path for path in reversed(found)}  # each once
    paths = dict(reversed(paths.items()))
    if not kind:
        return Plan([Job(path, "", _refusal(path)) for path in paths.values()], True, None, skipped)
    outputs = outputs_lib.Outputs(kind, paths, force=force)
    top, targets = os.path.commonpath(tops), {}
    for place, path in paths.items():
        stem = os.path.splitext(os.path.relpath(place, top))[0]
        target = os.path.join(output_dir, stem + ending)
        if target in targets:
            raise ValueError(
                f"{targets[target]} and {path} would both become {target}: give them one by one, or "
                "each its own --output_dir"
            )
        targets[target] = path
    jobs = [Job(path, to, _refusal(path, to, outputs)) for to, path in targets.items()]
    return Plan(jobs, True, outputs, skipped)


def _held(folder: str, endings: Collection[str], skipped: collections.Counter) -> list[str]:
    """The files in a folder of certain endings; what is passed over is counted by its kind."""
    found, others = entries.Entries(folder), collections.Counter()
    for file in found.files:
        others[_ending(file.path)] += 1
    count = sum(others.pop(ending, 0) for ending in endings)
    others = dict(sorted((others + found.others).items()))
    skipped.update(others)
    if not count:
        wanted = "sound" if endings is audio_files.ENDINGS else " or ".join(endings)
        got = listing.counted(others) or "nothing"
        raise ValueError(f"{folder} must hold {wanted}, got {got}")
    return sorted(file.path for file in found.files if _ending(file.path) in endings)


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower() or "no ending"


def _refusal(source: str, target: str = "", outputs: outputs_lib.Outputs | None = None) -> str:
    """Why an input cannot be read, or its output not be written; "" where both can."""
    try:
        if source not in (pipes.PIPE, ""):
            os.stat(source)
            if not os.access(source, os.R_OK):
                raise ValueError(f"{source} must be a file that can be read, got one that cannot")
        if outputs:
            outputs.check(target)
    except (ValueError, OSError) as error:
        return command.explain(error)
    return ""
