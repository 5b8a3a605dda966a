# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Arrays out of an .npz that anybody may have written: sizes are checked before memory is taken."""

from collections.abc import Iterator, Sequence
import contextlib
import io
import math
import os
import warnings
import zipfile

import numpy as np

_SCALAR_BYTES = 2**12  # of a number or a short text, with its header
_ENCRYPTED = 1  # a flag of a member


class Arrays:
    """The arrays of an .npz, as numpy.savez writes them: not compressed, no objects."""

    def __init__(self, archive: zipfile.ZipFile, num_bytes: int):
        self._archive, self._num_bytes = archive, num_bytes

    @property
    def names(self) -> set[str]:
        """Of all arrays."""
        return {name.removesuffix(".npy") for name in self._archive.namelist()}

    def scalar(self, name: str) -> np.ndarray:
        """An array of no axes, compressed or not.

        Raises:
            ValueError: where it is absent or something else.
        """
        with self._archive.open(self._member(name)) as file:
            head = file.read(_SCALAR_BYTES + 1)
        if len(head) > _SCALAR_BYTES:
            raise ValueError(f"{name} must be one value, got more than {_SCALAR_BYTES} bytes")
        array = _array(name, head)
        if array.ndim:
            raise ValueError(f"{name} must be one value, got an array {list(array.shape)}")
        return array

    def array(self, name: str) -> np.ndarray:
        """An array.

        Raises:
            ValueError: where it is absent, compressed or larger than the file.
        """
        member = self._member(name)
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name} is compressed: save it by numpy.savez")
        if not member.file_size == member.compress_size <= self._num_bytes:
            raise ValueError(f"{name} must be within the file, got {member.file_size} bytes")
        with self._archive.open(member) as file:
            return _array(name, file.read())

    def _member(self, name: str) -> zipfile.ZipInfo:
        if name not in self.names:
            raise ValueError(f"there is no {name!r} in it")
        member = self._archive.getinfo(f"{name}.npy")
        if member.flag_bits & _ENCRYPTED:
            raise ValueError(f"{name} is encrypted")
        return member


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[Arrays]:
    """Opens an .npz.

    Raises:
        ValueError: here and in the context, for whatever is wrong with the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield Arrays(archive, os.path.getsize(path))
    except ValueError:
        raise
    except Exception as error:  # zipfile and zlib raise a dozen kinds for bytes that they refuse.
        raise ValueError(str(error) or type(error).__name__) from error


def holds(path: str | os.PathLike, names: Sequence[str]) -> bool:
    """Whether a file is an .npz with arrays of these names, or holds nothing."""
    if not os.path.getsize(path):
        return True
    with contextlib.suppress(ValueError), opened(path) as arrays:
        return arrays.names >= set(names)
    return False


def _array(name: str, data: bytes) -> np.ndarray:
    """The array of a .npy, given whole."""
    file, headers = io.BytesIO(data), np.lib.format
    read = {(1, 0): headers.read_array_header_1_0, (2, 0): headers.read_array_header_2_0}
    try:
        with warnings.catch_warnings(action="error"):  # of headers that are not quite right
            shape, is_transposed, dtype = read[headers.read_magic(file)](file)
    except Exception as error:  # The header is a Python expression, and may be any.
        raise ValueError(f"{name} has no header of an array: {error}") from error
    rest = memoryview(data)[file.tell() :]
    wanted = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or min(shape, default=0) < 0 or wanted != len(rest):
        raise ValueError(
            f"{name} must be of numbers or text, as many as it says, got {dtype} {list(shape)} in "
            f"{len(rest)} bytes"
        )
    return np.frombuffer(rest, dtype).reshape(shape, order="F" if is_transposed else "C")
