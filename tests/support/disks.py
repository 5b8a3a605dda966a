# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Disks without room, for tests in a process."""

from collections.abc import Iterator
import contextlib
import resource


@contextlib.contextmanager
def room(num_bytes: int) -> Iterator[None]:
    """No file grows beyond that: to write more is the error of a full disk, EFBIG for ENOSPC."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
