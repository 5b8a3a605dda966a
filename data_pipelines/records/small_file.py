# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Small files in folders that anybody may have made: a pipe would wait, a huge one take all memory."""

import pathlib

MAX_BYTES = 2**26  # an index of 10^5 tensors has about a tenth


def read_bytes(path: pathlib.Path) -> bytes:
    """All of a file, of a disk or of a bucket.

    Args:
        path: pathlib.Path or epath.Path.

    Raises:
        ValueError: where it is a folder, a pipe or a device, or too large.
        OSError: where it is not there or cannot be read.
    """
    size = 0
    if "://" not in str(path):
        state = pathlib.Path(path).stat()
        if not pathlib.Path(path).is_file():
            raise ValueError(f"{path} must be a file, got a folder, a pipe or a device")
        size = state.st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path} must be a small file, got {size} bytes")
    return path.read_bytes()


def read_text(path: pathlib.Path) -> str:
    """All of a file of UTF-8; see `read_bytes`."""
    return read_bytes(path).decode()
