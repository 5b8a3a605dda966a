# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A run with all that it builds on, in one folder that can be moved anywhere.

BUNDLE/generation  representation  autoencoder      run folders, a checkpoint each
       language_model                               a Hugging Face folder
       tokenizer                                    of a run of a language model
"""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import hashlib
import os
import pathlib
from typing import Any

from etils import epath

from data_pipelines.reading import end_of_text
from data_pipelines.reading import tasks
from data_pipelines.records import atomic
from f3tok_jax.runs import folder as run_folder
from f3tok_jax.runs import language_model_folder
from f3tok_jax.runs import lineage
from f3tok_jax.runs import places as places_lib
from f3tok_jax.runs import saved_states

_OF_A_RUN = ("config.json", "frozen.json", "metrics.jsonl", "logs/environment.json")
_BESIDE_A_TOKENIZER = ("tokenizer_config.json", "generation_config.json")
_CHUNK = 2**22  # bytes


def write(
    workdir: str,
    folder: str | os.PathLike,
    step: int | None = None,
    *,
    places: places_lib.Places | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, int]:
    """Copies a run, its ancestors and its language model; verified before and after.

    Args:
        workdir: of the run, of any stage, local or a bucket.
        folder: to write, a local one that is not there yet; it appears when it is whole.
        step: of the run's checkpoint; the newest whole one if None.
        places: where what the runs name may lie.
        say: where messages to the user go: which steps are damaged, what is copied.

    Returns:
        Stage -> the step of it, the run's own first.

    Raises:
        ValueError: where the folder is there, or something is not what the run was trained on.
        checkpoint.CheckpointError: where no checkpoint that may be used is whole.
    """
    target = atomic.absent(folder)
    run = lineage.Lineage.read(workdir, step, places=places)
    run.check(language_model=True)
    runs = [_verified(one, say) for one in _chain(run)]
    with atomic.making(target) as root:
        for one in runs:
            say(f"copying step {one.step} of {one.workdir}")
            _copy_run(one, root / one.stage)
        _copy_folders(runs[0], root)
        _connect(root, runs)
        own = lineage.Lineage.read(
            str(root / run.stage), runs[0].step, places=places_lib.Places({}, ())
        )
        own.check(language_model=True)
    return {one.stage: one.step for one in runs}


def _chain(run: lineage.Lineage) -> Iterator[lineage.Lineage]:
    """A run and its ancestors."""
    yield run
    for parent in run.parents.values():
        yield from _chain(parent)


def _verified(run: lineage.Lineage, say: Callable[[str], None]) -> lineage.Lineage:
    """The run at a step that is whole: all of it is read and compared with what was saved."""
    step = saved_states.verify(run.workdir, None if run.falls_back else run.step, say=say)
    run = run if step == run.step else run.at(step)
    run_folder.frozen(run.workdir, run.digests.get(run_folder.FROZEN, ""))
    return run


def _copy_run(run: lineage.Lineage, target: pathlib.Path) -> None:
    source = epath.Path(run.workdir)
    names = [name for name in _OF_A_RUN if (source / name).exists()]
    names += _below(source, f"checkpoints/{run.step}")
    _copy(source, target, names)


def _below(root: epath.Path, name: str) -> Iterator[str]:
    """The files below a folder, as seen from `root`."""
    for path in sorted((root / name).iterdir()):
        inner = f"{name}/{path.name}"
        if path.is_dir():
            yield from _below(root, inner)
        else:
            yield inner


def _copy_folders(run: lineage.Lineage, root: pathlib.Path) -> None:
    """The language model, or its tokenizer alone, with what says which token ends a text."""
    if folder := run.language_model_folder:
        needed = [language_model_folder.CONFIG_NAME, tasks.TOKENIZER_NAME]
        needed += [path.name for path in language_model_folder.paths(folder)]
        others = [language_model_folder.INDEX_NAME, *_BESIDE_A_TOKENIZER]
        _copy_present(pathlib.Path(folder), root / "language_model", needed, others)
    if run.tokenizer:
        path, target = pathlib.Path(run.tokenizer), root / "tokenizer"
        path = path / tasks.TOKENIZER_NAME if path.is_dir() else path
        _copy_present(path.parent, target, [path.name], end_of_text.KEYS)
        (target / path.name).rename(target / tasks.TOKENIZER_NAME)


def _copy_present(
    source: pathlib.Path, target: pathlib.Path, needed: Iterable[str], others: Iterable[str]
) -> None:
    _copy(source, target, [*needed, *(name for name in others if (source / name).is_file())])


def _copy(source: Any, target: pathlib.Path, names: Iterable[str]) -> None:
    """Copies files, and reads back what was written."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with (source / name).open("rb") as read, open(target / name, "wb") as written:
            while chunk := read.read(_CHUNK):
                digest.update(chunk)
                written.write(chunk)
        atomic.sync(target / name)
        with open(target / name, "rb") as copy:
            if hashlib.file_digest(copy, "sha256").digest() != digest.digest():
                raise ValueError(
                    f"{target / name} must be a copy of {source / name}, got other bytes back: "
                    "the disk is not to be trusted, give another --output"
                )


def _connect(root: pathlib.Path, runs: Iterable[lineage.Lineage]) -> None:
    """Makes each run know where the others lie, and keep the steps that are built on."""
    for run in runs:
        places_lib.keep(str(root / run.stage), {name: str(root / name) for name in run.named})
        for parent in run.parents.values():
            dataclasses.replace(parent, workdir=str(root / parent.stage)).pin(str(root / run.stage))
