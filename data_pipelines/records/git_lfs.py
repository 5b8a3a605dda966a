# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Git LFS pointers: the few lines of text that stand where a large file was not fetched."""

import os

_START = b"version https://git-lfs.github.com/spec/"


def starts(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a pointer."""
    return head.startswith(_START)


def is_pointer(path: str | os.PathLike) -> bool:
    """Whether a regular file is a pointer, by its first bytes."""
    with open(path, "rb") as file:
        return starts(file.read(len(_START)))


def refuse(path: str | os.PathLike) -> None:
    """Raises ValueError where a regular file is a pointer, with what to do about it."""
    if is_pointer(path):
        raise ValueError(
            f"{path} must be the file itself, got a Git LFS pointer to it: run git lfs pull in its "
            "repository"
        )
