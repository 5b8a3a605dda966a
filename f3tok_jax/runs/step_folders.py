# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Which folders among a run's checkpoints are its own; what is a stranger's stays as it is."""

from collections.abc import Callable
import errno
import os
import re
import time

from etils import epath

CHECKPOINTS, REFUSED = "checkpoints", "refused_checkpoints"  # in a run's folder
_NAME = re.compile(r"0|[1-9][0-9]{0,9}")  # of a step: a state counts them in 32 bits
_CONTENT = {"state", "meta", "_CHECKPOINT_METADATA"}
_TEMPORARY_MARK = ".orbax-checkpoint-tmp"
_PAUSES = [0.05 * 2**attempt for attempt in range(8)]  # seconds, 13 in all


def of(workdir: str) -> epath.Path:
    """The folder of a run's checkpoints, from the root on."""
    # A bucket's name begins there; `resolve` would put the current folder in front of it.
    path = epath.Path(workdir)
    return (path if "://" in workdir else path.resolve()) / CHECKPOINTS


def steps(folder: epath.Path) -> list[int]:
    """The steps in a folder of checkpoints that are finished, oldest first; none in one that is not.

    A step is a folder of its number, with something of a checkpoint in it or nothing at all.
    """
    if not folder.exists():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if _is_step(path))


def strangers(folder: epath.Path) -> list[str]:
    """Names of all else in a folder of checkpoints, sorted."""
    paths = [path for path in folder.iterdir() if _TEMPORARY_MARK not in path.name]
    return sorted(path.name for path in paths if not _is_step(path))


def is_link(folder: epath.Path, step: int) -> bool:
    """Whether a step lies elsewhere, where somebody keeps it."""
    return os.path.islink(folder / str(step))


def _is_step(path: epath.Path) -> bool:
    if not _NAME.fullmatch(path.name) or not path.is_dir():
        return False
    if os.path.islink(path) and os.path.basename(os.path.realpath(path)) != path.name:
        return False  # It leads to another step.
    names = {inside.name for inside in path.iterdir()}
    return not names or bool(names & _CONTENT)


def prepare(folder: epath.Path, say: Callable[[str], None]) -> None:
    """Makes the folder, sweeps what killed saves left, names strangers, and tries to write there.

    Raises:
        OSError: where it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if _TEMPORARY_MARK in path.name and path.is_dir():
            say(f"removing {path.name}, a save that was killed before it was whole")
            _sweep(path)
    if names := strangers(folder):
        say(f"passing over {', '.join(names)} in {folder}, which {_no_checkpoints(len(names))}")
    probe = folder / "write_test"
    probe.write_text("")
    probe.unlink()


def _sweep(path: epath.Path) -> None:
    """Removes what a save left that is over.

    Orbax ends a save at its first error and awaits none of its other writers: what they had begun
    may still arrive while the folder is emptied.
    """
    for pause in _PAUSES:
        try:
            return path.rmtree()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
                raise
        if not path.exists():
            return None
        time.sleep(pause)
    return path.rmtree()


def _no_checkpoints(count: int) -> str:
    return "are no checkpoints of a run" if count > 1 else "is no checkpoint of a run"


def is_taken(folder: epath.Path, step: int) -> bool:
    """Whether a stranger has the name of a step."""
    path = folder / str(step)
    return _is_there(path) and not _is_step(path)


def _is_there(path: epath.Path) -> bool:
    return os.path.lexists(path) or path.exists()  # A link that leads nowhere is there, too.


def set_aside(folder: epath.Path, step: int) -> epath.Path:
    """Moves what has the name of a step out of its way, and returns where it is now."""
    refused = folder.parent / REFUSED
    refused.mkdir(parents=True, exist_ok=True)
    attempt = 0
    while _is_there(refused / f"{step}_{attempt}"):
        attempt += 1
    return (folder / str(step)).rename(refused / f"{step}_{attempt}")
