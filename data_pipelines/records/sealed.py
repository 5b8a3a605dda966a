# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Seals of small JSON files: the SHA-256 of all else in a file, kept in it, gives away any change.

A file is written by one rename, so it and its seal are never of different times.
"""

from collections.abc import Mapping
import hashlib
import json
from typing import Any

NAME = "seal"


class Broken(ValueError):
    """What a file says is not what was written."""


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 in hexadecimal of what JSON content says, however it is spaced and ordered."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content and, behind it, its seal; tuples count as the lists that JSON makes of them."""
    return {**content, NAME: digest(content)}


def opened(content: Mapping[str, Any], what: str, *, required: bool = False) -> dict[str, Any]:
    """The content without its seal.

    Args:
        content: as it was read.
        what: it is, for messages: a path, a line of a file.
        required: whether a seal must be there; files of earlier versions have none.

    Raises:
        Broken: where the seal is missing, or is not of this content.
    """
    found = dict(content)
    given = found.pop(NAME, None)
    if given is None and not required:
        return found
    if given != digest(found):
        how = "none" if given is None else "that of other content"
        raise Broken(
            f"{what} must have the seal that it was written with, got {how}: the file was changed "
            "or damaged since; copy it from where it is whole"
        )
    return found


def read(data: bytes, what: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    """What a file says that holds a sealed object of JSON, or one of earlier versions.

    Args:
        data: content of the file.
        what: it is, for messages.
        kinds: name -> type of each value that every version has. Any other name, be it the seal's
            own with one bit flipped, shows that there must be a seal.

    Raises:
        Broken: where it is something else, or was changed.
    """
    try:
        found = json.loads(data)
        if not isinstance(found, dict):
            raise ValueError(f"{found!r:.60}")
        content = opened(found, what, required=not found.keys() <= kinds.keys())
        for name, kind in kinds.items():
            if type(content.get(name)) is not kind:
                raise ValueError(f"{name} {content.get(name)!r:.60}")
        return content
    except Broken:
        raise
    except (ValueError, RecursionError) as error:
        raise Broken(
            f"{what} must be the JSON with {' and '.join(kinds)} that was written, got another or "
            f"a damaged file ({error}): copy it from where it is whole"
        ) from error
