# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The files of an input that consists of a few large ones: by a folder, a path or a pattern."""

import collections
from collections.abc import Collection
import glob
import os
import pathlib
import re

from data_pipelines.records import git_lfs

_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_BRACES = re.compile(r"\{([^{}]*)\}")


def find(pattern: str, endings: Collection[str]) -> tuple[dict[str, str], dict[str, int]]:
    """Finds the files of an input.

    Args:
        pattern: a folder, searched with all that lies below it; a file; a glob; or names in braces,
            as in `part-{000..009}` or `{train,test}/*`, each of which must be there.
        endings: of files that are taken from a folder.

    Returns:
        Name -> path, sorted by name: the part of the path behind the folder that `pattern` names;
        ending -> count of other files in a folder.

    Raises:
        ValueError: if there is none, a file of a pattern is missing, or one is a Git LFS pointer.
    """
    skipped = collections.Counter()
    if os.path.isdir(pattern):
        root, paths = pattern, []
        for folder, subfolders, names in os.walk(pattern):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            for name in names:
                if name.endswith(tuple(endings)) and not name.startswith("."):
                    paths.append(os.path.join(folder, name))
                else:
                    skipped[os.path.splitext(name)[1].lower() or "no ending"] += 1
    elif os.path.exists(pattern):
        root, paths = os.path.dirname(pattern), [pattern]
    else:
        root = os.path.dirname(re.split(r"[*?\[{]", pattern)[0])
        paths = [path for name in _expanded(pattern) for path in _present(name, pattern)]
    if not paths:
        raise ValueError(
            f"--input={pattern} must name files that end with {', '.join(endings)}, or a folder of "
            f"them, got none of them{_counts(skipped)}"
        )
    for path in paths:
        git_lfs.refuse(path)
    files = {
        pathlib.PurePath(os.path.relpath(path, root or ".")).as_posix(): path for path in paths
    }
    return dict(sorted(files.items())), skipped


def holds(folder: str, endings: Collection[str]) -> bool:
    """Whether any file of these endings lies in a folder or below it."""
    return any(name.endswith(tuple(endings)) for _, _, names in os.walk(folder) for name in names)


def _expanded(pattern: str) -> list[str]:
    """The patterns that one with braces stands for; a range keeps its leading zeros."""
    match = _BRACES.search(pattern)
    if not match:
        return [pattern]
    numbers = _RANGE.fullmatch(match[1])
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        choices = [f"{number:0{len(numbers[1])}d}" for number in range(first, last + 1)]
    else:
        choices = match[1].split(",")
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [name for choice in choices for name in _expanded(before + choice + after)]


def _present(name: str, pattern: str) -> list[str]:
    if os.path.exists(name):
        return [name]
    found = [path for path in glob.glob(name, recursive=True) if os.path.isfile(path)]
    if not found:
        raise ValueError(f"--input={pattern} must name files that are there, {name} is not")
    return found


def _counts(skipped: dict[str, int]) -> str:
    return f" but {', '.join(f'{count} {kind}' for kind, count in skipped.items())}" * bool(skipped)
