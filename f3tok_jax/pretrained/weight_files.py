# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The safetensors of a Hugging Face folder: one file, or parts with an index of their tensors.

Every tensor comes from the file that the index assigns to it, slice by slice.
"""

from collections.abc import Mapping
import contextlib
import os
import pathlib

import jax.numpy as jnp
import numpy as np
import safetensors

from data_pipelines.records import git_lfs
from data_pipelines.records import json_object
from f3tok_jax.runs import checkpoint_meta

SINGLE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"

_FLOATS = ("F64", "F32", "F16", "BF16")
_ROWS_COMPARED = 2**12  # of a table at a time: neither of two is held whole

_TO_SAFETENSORS = (
    "write its safetensors with transformers' "
    "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER)"
)
_TO_TOKENIZERS = (
    "write its tokenizer.json with transformers' "
    "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
)
_OTHER_TOKENIZERS = ("tokenizer.model", "vocab.json")
# What stands in folders without safetensors or their index -> what to do about it.
_OTHER_KINDS = {
    "model-*-of-*.safetensors": f"copy their {INDEX_NAME} too",
    "pytorch_model*.bin": _TO_SAFETENSORS,
    "*.gguf": "give the folder that it was made from, with its safetensors",
}


class WeightFiles(contextlib.ExitStack):
    """The open weight files of a folder."""

    def __init__(self, folder: str | os.PathLike):
        """Opens them.

        Raises:
            ValueError: where there are none, one is not whole, or the index is not theirs.
        """
        super().__init__()
        self._folder, weight_map = pathlib.Path(folder), _weight_map(folder)
        with contextlib.ExitStack() as opened:
            files = {path.name: _open(opened, path) for path in paths(folder)}
            if weight_map is None:
                weight_map = dict.fromkeys(files[SINGLE_NAME].keys(), SINGLE_NAME)
            self._file_of = {name: files[file] for name, file in weight_map.items()}
            for file, found in files.items():
                self._check_index(weight_map, file, set(found.keys()))
            self._other = None
            if SINGLE_NAME not in files and (self._folder / SINGLE_NAME).is_file():
                self._other = _open(opened, find(folder, SINGLE_NAME))
            self.push(opened.pop_all())

    @property
    def names(self) -> set[str]:
        """Of all tensors."""
        return set(self._file_of)

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Refuses what is not the tensors of a model.

        Args:
            shapes: name -> shape of every tensor.

        Raises:
            ValueError: for tensors that are missing, left over, no floats or of another shape, and
                for a single file beside the index that holds others.
        """
        for name in sorted(self._file_of):
            if (dtype := self._slice(name).get_dtype()) not in _FLOATS:
                raise ValueError(
                    f"the tensor {name} in {self._folder} must be of {', '.join(_FLOATS)}, got "
                    f"{dtype}: give the folder of the model before it was quantised"
                )
        left_over, missing = self.names - shapes.keys(), shapes.keys() - self.names
        for problem, names in (("lacks", missing), ("has", left_over)):
            if names:
                raise ValueError(
                    f"the weights in {self._folder} must be those of its config.json, which "
                    f"they are not: it {problem} {'tensors beyond it, ' * (problem == 'has')}"
                    f"{checkpoint_meta.listed(sorted(names))}"
                )
        for name, shape in shapes.items():
            found = tuple(self._slice(name).get_shape())
            if found != shape:
                raise ValueError(
                    f"the tensor {name} in {self._folder} must have the shape {shape} of its "
                    f"config.json, got {found}"
                )
        if self._other is not None and not self._equals_other():
            raise ValueError(
                f"the weights in {self._folder} must be in one layout, got both {SINGLE_NAME} and "
                f"{INDEX_NAME} with other tensors or values: remove the one that is not meant"
            )

    def part(self, name: str, index: tuple[slice, ...], dtype: jnp.dtype) -> np.ndarray:
        """The part `index` of a tensor.

        Raises:
            ValueError: for values that are not finite in `dtype`.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # said below, by the tensor's name
            array = self._slice(name)[index].astype(dtype)
        if not _is_finite(array):
            raise ValueError(
                f"the tensor {name} in {self._folder} must hold finite numbers, got NaN or infinity"
                f" (as {array.dtype}): give weights that are whole"
            )
        return array

    def are_equal(self, name: str, other: str) -> bool:
        """Whether two tensors of one shape hold the same values, read some rows at a time."""
        return _are_equal(self._slice(name), self._slice(other))

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
                f"{self._folder / file} must hold the tensors that {INDEX_NAME} assigns to it, it "
                f"lacks {checkpoint_meta.listed(sorted(lacking))}: {again}"
            )
        if unknown:
            raise ValueError(
                f"{self._folder / INDEX_NAME} must name every tensor of its files, got none for "
                f"{checkpoint_meta.listed(sorted(unknown))} in {file}: {again}"
            )


def paths(folder: str | os.PathLike) -> list[pathlib.Path]:
    """The files that hold weights: the single one, or those of the index.

    Raises:
        ValueError: where one is not there or a Git LFS pointer, or the index none.
    """
    weight_map = _weight_map(folder)
    names = [SINGLE_NAME] if weight_map is None else sorted({*weight_map.values()})
    if weight_map is None and not (pathlib.Path(folder) / SINGLE_NAME).is_file():
        for pattern, remedy in _OTHER_KINDS.items():
            if others := sorted(path.name for path in pathlib.Path(folder).glob(pattern)):
                raise ValueError(
                    f"{folder} must hold {SINGLE_NAME}, or parts with {INDEX_NAME}, got "
                    f"{checkpoint_meta.listed(others)}: {remedy}"
                )
    return [find(folder, name) for name in names]


def find(folder: str | os.PathLike, name: str) -> pathlib.Path:
    """The path of a file of a model's folder.

    Raises:
        ValueError: where it is not there or a Git LFS pointer.
    """
    path = pathlib.Path(folder) / name
    if not path.is_file():
        others = (other for other in _OTHER_TOKENIZERS if (path.parent / other).is_file())
        other = next(others, None) if name == "tokenizer.json" else None
        raise ValueError(
            f"{folder} must be a Hugging Face folder of a model, with config.json, {SINGLE_NAME} "
            f"(or its index and parts) and tokenizer.json, got no {name} there"
            + (f" but {other}: {_TO_TOKENIZERS}" if other else "")
        )
    git_lfs.refuse(path)
    return path


def _weight_map(folder: str | os.PathLike) -> dict[str, str] | None:
    """Tensor -> file of the index, None where there is none."""
    path = pathlib.Path(folder) / INDEX_NAME
    if not path.is_file():
        return None
    weight_map = json_object.read(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{path} must have a weight_map of tensors to files")
    for name in weight_map.values():
        # A path could lead to weights that do not move with the folder.
        if not isinstance(name, str) or name in ("", "..") or pathlib.PurePath(name).name != name:
            raise ValueError(f"{path} must name files in its folder, got {name!r:.80}")
    return weight_map


def _open(stack: contextlib.ExitStack, path: pathlib.Path):
    try:
        return stack.enter_context(safetensors.safe_open(path, framework="numpy"))
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} must be a whole safetensors file, got {path.stat().st_size} bytes that are "
            f"none ({error}): copy or download it again"
        ) from None


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
