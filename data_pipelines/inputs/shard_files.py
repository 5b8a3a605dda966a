# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The files of an input that consists of a few large ones: by a folder, a path or a pattern."""

import collections
from collections.abc import Collection
import glob
import os
import pathlib
import re

from data_pipelines.inputs import entries as entries_lib
from data_pipelines.inputs import listing
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
        kind -> count of other entries of a folder.

    Raises:
        ValueError: if there is none, a file of a pattern is missing, or one is a Git LFS pointer.
    """
    if os.path.isdir(pattern):
        paths, skipped = _in_folder(pattern, endings)
    else:
        root = os.path.dirname(re.split(r"[*?\[{]", pattern)[0])
        if os.path.exists(pattern):
            root, found = os.path.dirname(pattern), [pattern]
        else:
            found = [path for name in _expanded(pattern) for path in _present(name, pattern)]
        keys = [os.path.relpath(path, root or ".") for path in found]
        paths = {pathlib.PurePath(key).as_posix(): path for key, path in zip(keys, found)}
        skipped = {}
    if not paths:
        raise ValueError(
            f"--input={pattern} must name files that end with {', '.join(endings)}, or a folder of "
            f"them, got {listing.counted(skipped) or 'nothing'}"
        )
    for path in paths.values():
        git_lfs.refuse(path)
    return dict(sorted(paths.items())), collections.Counter(skipped)


def _in_folder(folder: str, endings: Collection[str]) -> tuple[dict[str, str], dict[str, int]]:
    entries = entries_lib.Entries(folder)
    found, skipped = {}, entries.others
    for file in sorted(entries.files, key=lambda file: (file.is_link, file.key)):
        if not file.key.endswith(tuple(endings)):
            skipped[os.path.splitext(file.key)[1].lower() or "no ending"] += 1
        elif file.identity in found:
            skipped["link to the same file"] += 1
        else:
            found[file.identity] = file
    return {file.key: file.path for file in found.values()}, skipped


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
