# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Where tables of texts lie: what a user has named, and what looks like one and was not named."""

from collections.abc import Sequence
import fnmatch
import glob
import os

from data_pipelines.records import manifest

# Names under which data sets are published with their texts.
_KNOWN = (
    *("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.json", "validated.tsv"),
    *("*.trans.txt", "text", "transcripts.txt", "transcripts.csv", "transcripts.tsv"),
)
_ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson")


def looks_like_table(name: str) -> bool:
    """Whether a file of that name is likely to be a table of texts."""
    is_known = any(fnmatch.fnmatch(name, known) for known in _KNOWN)
    return name != manifest.REFUSALS_NAME and (is_known or name.lower().endswith(_ENDINGS))


def named(flag: str, value: str, root: str) -> list[str]:
    """Returns the files that a flag names, sorted.

    Args:
        flag: for messages.
        value: a path, a glob with ** for any folders, or a folder of data sets' own tables. What
            is relative is so to the working directory or to `root`; a glob first to `root`.
        root: of the sounds.

    Raises:
        ValueError: if there is no such file.
    """
    if os.path.isfile(value):
        return [value]
    inside = os.path.join(root, value)
    if os.path.isfile(inside):
        return [inside]
    folder = next((path for path in (value, inside) if os.path.isdir(path)), "")
    if folder:
        return _in_folder(flag, folder)
    if os.path.exists(value):
        raise ValueError(f"{flag}={value} must be a file, a folder or a glob, got none of them")
    for pattern in (os.path.join(glob.escape(root), value), value):
        found = sorted(path for path in glob.iglob(pattern, recursive=True) if os.path.isfile(path))
        if found and glob.has_magic(value):
            return found
    wanted = "fits no file" if glob.has_magic(value) else "does not exist"
    raise ValueError(f"{flag}={value} {wanted}: name a table, a folder of tables or a glob")


def _in_folder(flag: str, folder: str) -> list[str]:
    """The tables that a data set is published with, or else the only one there is."""
    known, others = [], []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            is_known = any(fnmatch.fnmatch(name, pattern) for pattern in _KNOWN)
            kind = known if is_known else others if looks_like_table(name) else []
            kind.append(os.path.join(place, name))
    if not known and len(others) != 1:
        raise ValueError(
            f"{flag}={folder} must hold tables by names that are known, such as metadata.csv or "
            f"*.trans.txt, got {_some(others) or 'none'}: name the table itself"
        )
    return known or others


def _some(paths: Sequence[str]) -> str:
    return ", ".join(paths[:3]) + (", ..." if len(paths) > 3 else "")
