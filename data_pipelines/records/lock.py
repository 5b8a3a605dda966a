# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A file that one process at a time holds; the system frees it when that process dies."""

import fcntl
import os
import pathlib
from typing import IO

from absl import logging


def take(path: str | os.PathLike, *, wait: bool = False) -> IO[str]:
    """Locks a file until what is returned is closed; makes the file and its folder.

    A file system without locks gives none: that is said, and the caller goes on as if alone.

    Args:
        path: of the file.
        wait: until it is free.

    Raises:
        BlockingIOError: where another process has it, and `wait` is False.
        OSError: where the file cannot be made.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = open(path, "a", encoding="utf-8")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        handle.close()
        raise
    except OSError as error:
        # A lock file of our own would outlive a killed process, and stop every restart after it.
        logging.warning(
            "%s cannot be locked (%s): nothing keeps a second process out of that folder",
            path,
            error.strerror,
        )
    return handle
