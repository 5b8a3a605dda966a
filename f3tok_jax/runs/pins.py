# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Pins: steps of a run that others depend on, and that stay whatever is trained on.

`pins/<step>` in the run's folder has a line for each that depends on it; remove it to let go.
"""

from etils import epath

from data_pipelines.records import atomic
from data_pipelines.records import small_file

_FOLDER = "pins"


def of(workdir: str) -> set[int]:
    """The steps of a run that are pinned.

    Raises:
        OSError: where nobody can tell.
    """
    folder = epath.Path(workdir) / _FOLDER
    if not folder.exists():
        return set()
    return {int(path.name) for path in folder.iterdir() if path.name.isdecimal()}


def add(workdir: str, step: int, by: str) -> None:
    """Pins a step.

    Args:
        workdir: of the run that must keep it.
        step: of a checkpoint.
        by: what depends on it, for who reads the file.

    Raises:
        OSError: where the folder cannot be written.
    """
    path = epath.Path(workdir) / _FOLDER / str(step)
    before = _lines(path)
    if by not in before:
        atomic.write_text(path, "\n".join([*before, by, ""]))


def _lines(path: epath.Path) -> list[str]:
    """Who depends on a step, as far as its file can be read: the name alone keeps the step."""
    try:
        return small_file.read_text(path).splitlines()
    except (OSError, ValueError):
        return []
