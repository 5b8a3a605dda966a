# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Disks without room, for tests in a process."""

from collections.abc import Iterator
import contextlib
import resource
import sys


@contextlib.contextmanager
def room(num_bytes: int) -> Iterator[None]:
    """No file grows beyond that: to write more is the error of a full disk, EFBIG for ENOSPC.

    Nor is bytecode kept of what is imported meanwhile: CPython 3.11 takes a file that it could write
    in part alone for a whole one, and every import after that fails.
    """
    before, keeps_none = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = keeps_none
