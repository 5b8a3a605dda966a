# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""JSON objects in files that others wrote."""

from collections.abc import Sequence
import json
import pathlib
from typing import Any

from data_pipelines.records import git_lfs
from data_pipelines.records import small_file


def read(path: pathlib.Path) -> dict[str, Any]:
    """Returns the object of a JSON file.

    Raises:
        ValueError: where it is none, too large, a Git LFS pointer, or says a name twice.
    """
    data = small_file.read_bytes(path)
    git_lfs.refuse(path)
    try:
        content = json.loads(data, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be a JSON object, got: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must be a JSON object, got {type(content).__name__}")
    return content


def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The object of its pairs, as json's `object_pairs_hook`.

    Raises:
        ValueError: for two of one name, of which nobody knows which is meant.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r} twice in one object")
    return found
