# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The safetensors of a Hugging Face folder: one file, or parts with an index of their tensors; or of
a file alone.

Every tensor comes from the file that the index assigns to it, slice by slice.
"""

from collections.abc import Mapping
import contextlib
import os
import pathlib

import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from data_pipelines.records import atomic
from f3tok_jax.runs import checkpoint_meta
from f3tok_jax.runs import language_model_folder as folders

_FLOATS = ("F64", "F32", "F16", "BF16")
_ROWS_COMPARED = 2**12  # of a table at a time: neither of two is held whole


class WeightFiles(contextlib.ExitStack):
    """The open weight files of a folder, or a file of any name."""

    def __init__(self, folder: str | os.PathLike):
        """Opens them.

        Args:
            folder: of a model, or one file.

        Raises:
            ValueError: where there are none, one is not whole, or the index is not theirs.
        """
        super().__init__()
        self._folder = pathlib.Path(folder)
        is_file = self._folder.is_file()
        weight_map = None if is_file else folders.weight_map(folder)
        with contextlib.ExitStack() as opened:
            paths = [self._folder] if is_file else folders.paths(folder)
            files = {path.name: _open(opened, path) for path in paths}
            if weight_map is None:
                weight_map = dict.fromkeys(files[paths[0].name].keys(), paths[0].name)
            self._file_of = {name: files[file] for name, file in weight_map.items()}
            for file, found in files.items():
                self._check_index(weight_map, file, set(found.keys()))
            self._other = None
            if folders.SINGLE_NAME not in files and (self._folder / folders.SINGLE_NAME).is_file():
                self._other = _open(opened, folders.find(folder, folders.SINGLE_NAME))
            self.push(opened.pop_all())

    @property
    def names(self) -> set[str]:
        """Of all tensors."""
        return set(self._file_of)

    def check(self, shapes: Mapping[str, tuple[int, ...]], *, beside: tuple[str, ...] = ()) -> None:
        """Refuses what is not the tensors of a model.

        Args:
            shapes: name -> shape of every tensor.
            beside: how the names of tensors begin that are not looked at, of other models.

        Raises:
            ValueError: for tensors that are missing, left over, no floats or of another shape, and
                for a single file beside the index that holds others.
        """
        found = {name for name in self.names if not name.startswith(beside)}
        for name in sorted(found):
            self._check_float(name)
        left_over, missing = found - shapes.keys(), shapes.keys() - found
        for problem, names in (("lacks", missing), ("has", left_over)):
            if names:
                raise ValueError(
                    f"the weights in {self._folder} must be those of its config.json, which "
                    f"they are not: it {problem} {'tensors beyond it, ' * (problem == 'has')}"
                    f"{checkpoint_meta.listed(sorted(names))}"
                )
        for name, shape in shapes.items():
            stored = self.shape(name)
            if stored != shape:
                raise ValueError(
                    f"the tensor {name} in {self._folder} must have the shape {shape} of its "
                    f"config.json, got {stored}"
                )
        if self._other is not None and not self._equals_other():
            raise ValueError(
                f"the weights in {self._folder} must be in one layout, got both "
                f"{folders.SINGLE_NAME} and {folders.INDEX_NAME} with other tensors or values: "
                "remove the one that is not meant"
            )

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor, as it is stored."""
        return tuple(self._slice(name).get_shape())

    def whole(self, name: str) -> np.ndarray:
        """A tensor, float32.

        Raises:
            ValueError: for one of no floats, or of values that are not finite.
        """
        self._check_float(name)
        return self.part(name, (...,), jnp.float32)

    def part(self, name: str, index: tuple[slice, ...], dtype: jnp.dtype) -> np.ndarray:
        """The part `index` of a tensor.

        Raises:
            ValueError: for values that are not finite in `dtype`.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # said below, by the tensor's name
            array = self._slice(name)[index].astype(dtype)
        check_finite(array, name, self._folder)
        return array

    def are_equal(self, name: str, other: str) -> bool:
        """Whether two tensors of one shape hold the same values, read some rows at a time."""
        return _are_equal(self._slice(name), self._slice(other))

    def _check_float(self, name: str) -> None:
        if (dtype := self._slice(name).get_dtype()) not in _FLOATS:
            raise ValueError(
                f"the tensor {name} in {self._folder} must be of {', '.join(_FLOATS)}, got "
                f"{dtype}: give the folder of the model before it was quantised"
            )

    def _slice(self, name: str):
        return self._file_of[name].get_slice(name)

    def _equals_other(self) -> bool:
        """Whether the single file beside the index holds the same tensors."""
        if set(self._other.keys()) != self.names:
            return False
        return all(
            _are_equal(self._slice(name), self._other.get_slice(name)) for name in self.names
        )

    def _check_index(self, weight_map: Mapping[str, str], file: str, found: set[str]) -> None:
        lacking = {name for name, its in weight_map.items() if its == file} - found
        unknown = found - weight_map.keys()
        again = "copy the folder again, the index with its files"
        if lacking:
            raise ValueError(
                f"{self._folder / file} must hold the tensors that {folders.INDEX_NAME} assigns to "
                f"it, it lacks {checkpoint_meta.listed(sorted(lacking))}: {again}"
            )
        if unknown:
            raise ValueError(
                f"{self._folder / folders.INDEX_NAME} must name every tensor of its files, got none for "
                f"{checkpoint_meta.listed(sorted(unknown))} in {file}: {again}"
            )


def write(path: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes one file that PyTorch's programs read, too; it is whole or not there."""
    full = atomic.disk_errors(safetensors.SafetensorError)
    with atomic.replacing(path) as partial, full:
        partial.touch()
        mode = partial.stat().st_mode  # Safetensors makes files that their owner alone can read.
        safetensors_numpy.save_file(dict(tensors), partial, metadata={"format": "pt"})
        partial.chmod(mode)


def _open(stack: contextlib.ExitStack, path: pathlib.Path):
    try:
        return stack.enter_context(safetensors.safe_open(path, framework="numpy"))
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} must be a whole safetensors file, got {path.stat().st_size} bytes that are "
            f"none ({error}): copy or download it again"
        ) from None


def check_finite(array: np.ndarray, name: str, place: str | os.PathLike) -> None:
    """Raises ValueError where a tensor of floats, of the weights in `place`, holds NaN or infinity."""
    if not _is_finite(array):
        raise ValueError(
            f"the tensor {name} in {place} must hold finite numbers, got NaN or infinity"
            f" (as {array.dtype}): give weights that are whole"
        )


def _is_finite(array: np.ndarray) -> bool:
    """Whether there is no NaN or infinity in an array of floats.

    Their bits are the greatest of each sign, so that two maxima of integers tell: of bfloat16 in a
    quarter of the time that np.isfinite takes.
    """
    infinity = np.array(np.inf, array.dtype)
    for kind, bound in (("i", infinity), ("u", -infinity)):
        bits = f"{kind}{array.dtype.itemsize}"
        if array.size and array.view(bits).max() >= bound.view(bits):
            return False
    return True


def _are_equal(one, other) -> bool:
    """Whether two slices of files hold the same values."""
    if one.get_shape() != other.get_shape() or other.get_dtype() not in _FLOATS:
        return False
    rows = one.get_shape()[0]
    starts = range(0, rows, _ROWS_COMPARED)
    parts = (slice(start, min(start + _ROWS_COMPARED, rows)) for start in starts)
    return all(np.array_equal(one[part], other[part]) for part in parts)
